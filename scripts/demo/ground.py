"""Fresh ground: empty topics and no row of an earlier run in the online store."""

from collections.abc import Collection

from redis import Redis

from scripts.kafka.topics import Topic, create, delete
from udfs.online.reader import OnlineStore

_SCAN = 1_000


def renew_topics(bootstrap: str, names: Collection[str]) -> None:
    """Delete the topics and create them with one partition, so that their order is the order of sending.

    Raises
    ------
    TopicError : the broker refuses.
    """
    delete(bootstrap, names)
    create(bootstrap, [Topic(name) for name in names])


def clear_rows(redis_url: str, prefix: str) -> int:
    """Delete the keys of a name space of the online store; return how many there were."""
    with Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter(f"{prefix}:*", _SCAN))
        for start in range(0, len(keys), _SCAN):
            client.delete(*keys[start : start + _SCAN])
    return len(keys)


def row(redis_url: str, key: str) -> dict[str, str]:
    """Return one row of the online store as of its event time, column -> text; empty when there is none."""
    prefix, entity, tag = key.split(":", 2)
    with OnlineStore.connect(redis_url, prefix) as store:
        event_time_ms = store.read(entity, tag[1:-1]).event_time_ms
        values = store.read(entity, tag[1:-1], now_ms=event_time_ms).values
    if event_time_ms is None:
        return {}
    return {"event_time_ms": str(event_time_ms)} | {
        column: "" if value is None else str(value) for column, value in values.items()
    }
