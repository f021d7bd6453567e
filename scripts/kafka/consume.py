"""Read a topic from its first record to its current end, only what is committed.

Transaction markers and aborted records take up offsets and are never returned, so the end is where the consumer's
*position* reaches the end offset; the last record's offset may be well before it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from scripts.kafka.errors import ReadTimeoutError, TopicError

_POLL_MS = 100
_MAX_POLL_RECORDS = 5_000
_BOOTSTRAP_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read."""

    topic: str
    partition: int
    offset: int
    #: Epoch milliseconds; when the broker appended it, for a LogAppendTime topic.
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def read_all(bootstrap: str, topic: str, *, timeout_s: float = 60.0) -> list[Record]:
    """Return every committed record up to the end that the topic has now; see `iterate`.

    Each partition's records are in order; partitions interleave as they come.
    """
    return list(iterate(bootstrap, topic, timeout_s=timeout_s))


def iterate(bootstrap: str, topic: str, *, timeout_s: float = 60.0) -> Iterator[Record]:
    """Yield every committed record up to the end that the topic has when the first one is asked for.

    Parameters
    ----------
    bootstrap : `host:port` of a broker.
    topic : its records of open transactions, and all after them, count as not there yet.
    timeout_s : longest wait for the next record.

    Raises
    ------
    TopicError : there is no such topic.
    ReadTimeoutError : nothing came for `timeout_s` although the end is not reached.
    """
    consumer, places = consumer_of(bootstrap, topic)
    try:
        ends = consumer.end_offsets(places)
        left = {place for place in places if consumer.position(place) < ends[place]}
        consumer.pause(*(set(places) - left))
        deadline_s = time.monotonic() + timeout_s
        while left:
            for place, fetched in consumer.poll(_POLL_MS, _MAX_POLL_RECORDS).items():
                deadline_s = time.monotonic() + timeout_s
                yield from (record_of(raw) for raw in fetched if raw.offset < ends[place])
            done = {place for place in left if consumer.position(place) >= ends[place]}
            consumer.pause(*done)
            left -= done
            if left and time.monotonic() > deadline_s:
                at = ", ".join(f"{p.partition}: {consumer.position(p)} of {ends[p]}" for p in sorted(left))
                msg = f"topic {topic!r}: no record for {timeout_s:g} s before the end; partition: position of end: {at}"
                raise ReadTimeoutError(msg)
    finally:
        consumer.close()


def read_until(
    bootstrap: str, topic: str, enough: Callable[[Sequence[Record]], bool], *, timeout_s: float = 60.0
) -> list[Record]:
    """Read from the first record on, and wait for more, until `enough` holds for all that was read.

    Parameters
    ----------
    bootstrap : `host:port` of a broker.
    topic : may be empty still.
    enough : is asked after every poll that brought records, and once at the start.
    timeout_s : for the whole wait.

    Raises
    ------
    TopicError : there is no such topic.
    ReadTimeoutError : it did not hold in time; says how many records there were.
    """
    consumer, _ = consumer_of(bootstrap, topic)
    records: list[Record] = []
    try:
        deadline_s = time.monotonic() + timeout_s
        while not enough(records):
            while not (polled := consumer.poll(_POLL_MS, _MAX_POLL_RECORDS)):
                if time.monotonic() > deadline_s:
                    last = records[-1] if records else None
                    msg = f"topic {topic!r}: not enough after {timeout_s:g} s; got {len(records)} records, last {last}"
                    raise ReadTimeoutError(msg)
            records.extend(record_of(raw) for fetched in polled.values() for raw in fetched)
    finally:
        consumer.close()
    return records


def consumer_of(bootstrap: str, *topics: str, committed: bool = True) -> tuple[Any, list[Any]]:
    """Return a consumer of all partitions of some topics, at their beginning, and the partitions.

    Parameters
    ----------
    committed : it sees what is committed; False: records of open and aborted transactions, too.

    Raises
    ------
    TopicError : there is no broker, or a topic is missing.
    """
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed" if committed else "read_uncommitted",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            fetch_max_wait_ms=50,
            bootstrap_timeout_ms=_BOOTSTRAP_TIMEOUT_MS,
        )
    except KafkaError as error:
        msg = f"{bootstrap}: there is no Kafka to reach ({type(error).__name__}); local one: headrace services up"
        raise TopicError(msg) from error
    places = []
    for topic in topics:
        partitions = consumer.partitions_for_topic(topic)
        if not partitions:
            consumer.close()
            msg = f"topic {topic!r} does not exist on {bootstrap}; create it, or start the job that writes it"
            raise TopicError(msg)
        places += [TopicPartition(topic, partition) for partition in sorted(partitions)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    return consumer, places


def record_of(raw: Any) -> Record:
    """Return a record of kafka-python."""
    headers = tuple((name, value) for name, value in raw.headers)
    return Record(raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, headers)
