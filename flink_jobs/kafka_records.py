"""Kafka as one sequence: the committed records of several topics in the order of their Kafka timestamps.

A partition's own order is kept: where its timestamps go back, a record counts as of the newest before it. At equal
times topics have the order given, then partitions. Records are held until every partition has come as far as they have.
"""

import datetime as dt
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flink_jobs.config import Kafka
from models.history import SCHEMA
from models.inputs import InputError, Order, Records, by_event_time, label_of
from scripts.kafka.batches import raw_batch
from scripts.kafka.consume import Record, consumer_of, record_of
from scripts.kafka.errors import ReadTimeoutError
from udfs.core.declare.definition import Pipeline
from udfs.core.offline.backfill import Chunk, Part

CHUNK_RECORDS = 65_536
MOST_HELD_RECORDS = 20_000  #: of one partition that waits for others
_POLL_MS, _MAX_POLL_RECORDS, _TIMEOUT_S = 100, 5_000, 60.0
_SECURITY = ("security.", "sasl.", "ssl.")


class Place(NamedTuple):
    """A partition, by the position of its topic."""

    topic: int
    partition: int


class _Key(NamedTuple):
    """What orders records: newest timestamp of the partition so far, then where it is from."""

    clock_ms: int
    topic: int
    partition: int
    offset: int


class Merge:
    """Puts the records of several partitions into one order while they come."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._held: dict[Place, deque[tuple[_Key, Record]]] = {place: deque() for place in places}
        #: how far the partitions have come that have not ended
        self._open = {place: _Key(-1, *place, -1) for place in places}

    def add(self, place: Place, records: Sequence[Record]) -> None:
        """Take the next records of a partition."""
        for record in records:
            key = _Key(max(self._open[place].clock_ms, record.timestamp_ms), *place, record.offset)
            self._open[place] = key
            self._held[place].append((key, record))

    def end(self, place: Place) -> None:
        """Note that a partition has no more records."""
        self._open.pop(place, None)

    def held(self, place: Place) -> int:
        """Return how many records of a partition wait."""
        return len(self._held[place])

    def take(self) -> list[Record]:
        """Return the records that no other can come before any more, in their order."""
        bound = min(self._open.values(), default=None)
        taken: list[tuple[_Key, Record]] = []
        for held in self._held.values():
            while held and (bound is None or held[0][0] <= bound):
                taken.append(held.popleft())
        return [record for _, record in sorted(taken, key=lambda one: one[0])]


@dataclass(frozen=True, slots=True)
class Span:
    """Which records of the source: from `start` until before `end`, each an offset or a time; None: all there are.

    Up to a time means up to the present end, less what is later: a topic need not be in the order of its timestamps.
    """

    start: int | dt.datetime | None = None
    end: int | dt.datetime | None = None

    def holds(self, timestamp_ms: int) -> bool:
        """Say whether the times of the span hold a timestamp."""
        after = not isinstance(self.start, dt.datetime) or timestamp_ms >= self.start.timestamp() * 1000
        return after and (not isinstance(self.end, dt.datetime) or timestamp_ms < self.end.timestamp() * 1000)

    @staticmethod
    def parse(text: str) -> "Span":
        """Read `FROM..TO`; each is an offset, an ISO 8601 time (UTC if it names no zone), or left out.

        Raises
        ------
        InputError : it is nothing of the kind.

        Examples
        --------
        >>> Span.parse("100..2013-11-05").end
        datetime.datetime(2013, 11, 5, 0, 0, tzinfo=datetime.timezone.utc)
        """
        first, dots, last = text.partition("..")
        if not dots:
            msg = f"--kafka: got {text!r}; expected FROM..TO, such as 0..1000, 2013-11-01..2013-12-01 or .. for all"
            raise InputError(msg)
        return Span(_bound(first), _bound(last))


def _bound(text: str) -> int | dt.datetime | None:
    if not text:
        return None
    if text.isdecimal():
        return int(text)
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"--kafka: got {text!r}; a bound is an offset, such as 1000, or a time, such as 2013-11-01T06:00"
        raise InputError(msg) from error
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


class KafkaRecords:
    """The records that topics hold now.

    Parameters
    ----------
    kafka : where the topics are, and the prefix of their names there
    topics : without prefix, in the order that records of one time have
    spans : topic -> which of its records; all of the others

    Raises
    ------
    TopicError, ReadTimeoutError : a topic is missing or cannot be read to its end.
    InputError : the brokers want security settings.
    """

    def __init__(self, kafka: Kafka, topics: Sequence[str], spans: Mapping[str, Span] | None = None) -> None:
        _refuse_security(kafka)
        self._topics = tuple(topics)
        self._consumer, places = consumer_of(kafka.bootstrap_servers, *(kafka.topic_prefix + one for one in topics))
        number = {kafka.topic_prefix + topic: i for i, topic in enumerate(topics)}
        self._places = {place: Place(number[place.topic], place.partition) for place in places}
        beginnings, ends = self._consumer.beginning_offsets(places), self._consumer.end_offsets(places)
        self._spans = {place: (spans or {}).get(topics[mine.topic], Span()) for place, mine in self._places.items()}
        for place, span in self._spans.items():
            beginnings[place] = max(beginnings[place], self._start(place, span.start))
            ends[place] = min(ends[place], span.end) if isinstance(span.end, int) else ends[place]
            self._consumer.seek(place, beginnings[place])
        self._ends = ends
        self._prefix = kafka.topic_prefix
        #: per partition its topic, number, first offset and the one behind its last
        self.ranges = [
            {"topic": at.topic, "partition": at.partition, "from": beginnings[at], "to": ends[at]} for at in places
        ]
        #: at most, since markers of transactions take up offsets; and how many have been gone through
        self.rows, self.read = sum(max(0, ends[at] - beginnings[at]) for at in places), 0

    def __iter__(self) -> Iterator[Chunk]:
        """Go through the records, once."""
        for records in full_pieces(self.pieces(), CHUNK_RECORDS):
            yield self._chunk(records)

    def pieces(self) -> Iterator[list[Record]]:
        """Go through the records piece by piece, once."""
        merge, consumer = Merge(list(self._places.values())), self._consumer
        left, deadline_s = set(self._places), time.monotonic() + _TIMEOUT_S
        try:
            while left:
                for place in list(left):
                    if consumer.position(place) >= self._ends[place]:
                        left.remove(place)
                        consumer.pause(place)
                        merge.end(self._places[place])
                if records := merge.take():
                    self.read += len(records)
                    yield records
                full = {place for place in left if merge.held(self._places[place]) >= MOST_HELD_RECORDS}
                consumer.pause(*full)
                consumer.resume(*(left - full))
                for place, fetched in consumer.poll(_POLL_MS, _MAX_POLL_RECORDS).items() if left else ():
                    deadline_s = time.monotonic() + _TIMEOUT_S
                    span, end = self._spans[place], self._ends[place]
                    wanted = [raw for raw in fetched if raw.offset < end and span.holds(raw.timestamp)]
                    merge.add(self._places[place], [record_of(raw) for raw in wanted])
                if left and time.monotonic() > deadline_s:
                    raise ReadTimeoutError(self._stuck(left))
        finally:
            consumer.close()
        if records := merge.take():
            self.read += len(records)
            yield records

    def _chunk(self, records: list[Record]) -> Chunk:
        chunk = []
        for topic in self._topics:
            places = [i for i, record in enumerate(records) if record.topic == self._prefix + topic]
            if places:
                chunk.append(Part(raw_batch(topic, [records[i] for i in places]), np.array(places)))
        return chunk

    def _start(self, place: Any, bound: int | dt.datetime | None) -> int:
        """Return the offset before which no record is within a bound."""
        if not isinstance(bound, dt.datetime):
            return bound or 0
        found = self._consumer.offsets_for_times({place: int(bound.timestamp() * 1000)})[place]
        return int(self._consumer.end_offsets([place])[place] if found is None else found.offset)

    def _stuck(self, left: set[Any]) -> str:
        at = ", ".join(
            f"{place.topic}[{place.partition}]: {self._consumer.position(place)} of {self._ends[place]}"
            for place in sorted(left)
        )
        return f"no record for {_TIMEOUT_S:g} s before the end; partition: position of end: {at}"


def full_pieces(pieces: Iterator[list[Record]], size: int) -> Iterator[list[Record]]:
    """Yield the same records in pieces of `size`, the last one smaller."""
    waiting: list[Record] = []
    for piece in pieces:
        waiting += piece
        while len(waiting) >= size:
            yield waiting[:size]
            del waiting[:size]
    if waiting:
        yield waiting


class KafkaInput:
    """The topics of a pipeline as the input of a backfill, see `models.inputs.Input`.

    Parameters
    ----------
    kafka : where the topics are, and the prefix of their names there
    span : of the source; enrichments are read from their beginning, up to its end if that is a time
    order : `event-time`, or as they stand in Kafka
    """

    def __init__(self, kafka: Kafka, span: Span, order: Order | None = None) -> None:
        self._kafka, self._span, self._order = kafka, span, order
        self._opened: list[KafkaRecords] = []

    def open(self, pipeline: Pipeline, folder: Path, scratch: Path) -> Records:
        """Return the records of the source and of its enrichments."""
        topics = [*(one.topic for one in pipeline.enrichments), pipeline.source.topic]
        until = Span(None, self._span.end if isinstance(self._span.end, dt.datetime) else None)
        spans = {**dict.fromkeys(topics, until), pipeline.source.topic: self._span}
        records = KafkaRecords(self._kafka, topics, spans)
        self._opened.append(records)
        return records if self._order != "event-time" else by_event_time(pipeline, folder, records, scratch)

    def open_labels(self, pipeline: Pipeline, scratch: Path) -> Records:  # noqa: ARG002  files need it
        """Return the records of the label topic, all there are now."""
        records = KafkaRecords(self._kafka, [label_of(pipeline).topic])
        self._opened.append(records)
        return records

    def describe(self) -> list[dict[str, Any]]:
        """Return which offsets were read."""
        return [
            {"bootstrap_servers": self._kafka.bootstrap_servers, **one}
            for opened in self._opened
            for one in opened.ranges
        ]


def _refuse_security(kafka: Kafka) -> None:
    found = next((name for name in kafka.properties if name.startswith(_SECURITY)), None)
    if found is not None:
        msg = (
            f"kafka.properties: got {found}; only brokers without security settings are read from here; write a Parquet"
            f" file by other means, with columns {', '.join(SCHEMA.names)} in the order of replay"
        )
        raise InputError(msg)
