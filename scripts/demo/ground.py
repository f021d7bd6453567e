"""Fresh ground: empty topics and no row of an earlier run in the online store."""

from collections.abc import Collection

from redis import Redis

from scripts.kafka.topics import Topic, create, delete

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
    """Return one row of the online store, column -> text; empty when there is none."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        return {str(column): str(value) for column, value in client.hgetall(key).items()}
