"""Make, drop and look at topics. Each call may be repeated: what is as asked already is left alone."""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import IsolationLevel, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

from scripts.kafka.errors import TopicError

# Event time is a field of the event; the record's own timestamp says when the broker took it, the start of latency.
EVENT_CONFIGS = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}
_DELETE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as wanted, or as it is."""

    name: str
    partitions: int = 1
    #: Settings that differ from the broker's, by their Kafka names.
    configs: Mapping[str, str] = field(default_factory=lambda: dict(EVENT_CONFIGS))
    replication_factor: int = 1


def create(bootstrap: str, topics: Collection[Topic]) -> list[str]:
    """Create the topics that do not exist, wait until they have leaders, and return their names.

    Parameters
    ----------
    bootstrap : `host:port` of a broker.
    topics : an existing topic is left as it is, even with other settings.

    Raises
    ------
    TopicError : the broker refuses.
    """
    created = []
    with admin_of(bootstrap) as admin:
        for topic in topics:
            wanted = {
                "num_partitions": topic.partitions,
                "replication_factor": topic.replication_factor,
                "configs": dict(topic.configs),
            }
            try:
                admin.create_topics({topic.name: wanted})
                created.append(topic.name)
            except TopicAlreadyExistsError:
                continue
            except KafkaError as error:
                msg = f"topic {topic.name!r} cannot be created with {wanted}: {error}"
                raise TopicError(msg) from error
        admin.wait_for_topics([topic.name for topic in topics])
    return created


def delete(bootstrap: str, names: Collection[str]) -> list[str]:
    """Delete the topics that exist, wait until they are gone, and return their names.

    Raises
    ------
    TopicError : one is still there after half a minute.
    """
    deleted = []
    with admin_of(bootstrap) as admin:
        for name in names:
            try:
                admin.delete_topics([name])
                deleted.append(name)
            except UnknownTopicOrPartitionError:
                continue
        deadline_s = time.monotonic() + _DELETE_TIMEOUT_S
        while left := sorted(set(deleted) & set(admin.list_topics())):
            if time.monotonic() > deadline_s:
                msg = f"topic {left[0]!r} is still there {_DELETE_TIMEOUT_S:.0f} s after its deletion; see its log"
                raise TopicError(msg)
            time.sleep(0.05)
    return deleted


def describe(bootstrap: str, names: Collection[str]) -> dict[str, Topic]:
    """Say how the topics are that exist; others are not in the result."""
    with admin_of(bootstrap) as admin:
        existing = [name for name in names if name in set(admin.list_topics())]
        if not existing:
            return {}
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in existing]
        settings = admin.describe_configs(asked)["topic"]
        return {
            found["name"]: Topic(
                found["name"],
                len(found["partitions"]),
                {key: str(setting["value"]) for key, setting in settings.get(found["name"], {}).items()},
                len(found["partitions"][0]["replica_nodes"]),
            )
            for found in admin.describe_topics(existing)
        }


def end_offsets(bootstrap: str, name: str, *, committed: bool = True) -> dict[int, int]:
    """Partition -> offset that the next record gets.

    Parameters
    ----------
    bootstrap : `host:port` of a broker.
    name : the topic.
    committed : up to the first transaction that is still open, as a read_committed consumer sees it; else the very end.

    Raises
    ------
    TopicError : there is no such topic.
    """
    with admin_of(bootstrap) as admin:
        if name not in set(admin.list_topics()):
            msg = f"topic {name!r} does not exist on {bootstrap}; create it first"
            raise TopicError(msg)
        partitions = [part["partition_index"] for part in admin.describe_topics([name])[0]["partitions"]]
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        asked = {TopicPartition(name, partition): OffsetSpec.LATEST for partition in partitions}
        found = admin.list_partition_offsets(asked, isolation_level=level)
        return {place.partition: answer.offset for place, answer in sorted(found.items())}


@contextmanager
def admin_of(bootstrap: str) -> Iterator[Any]:
    """Yield an admin client; closed afterwards."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        yield admin
    finally:
        admin.close()
