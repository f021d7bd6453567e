"""A job on the small Flink: sources, featurize tasks, a transactional sink; checkpoints, crashes, other parallelism."""

import random
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import msgspec
from pyflink.common import Row

from tests.samples import Sent
from tests.simulator.tasks import MAX_PARALLELISM, Barrier, Channel, KeyState, Message, Task, owner
from udfs.batch_rows import FLAG_BITS, NULL_KEY
from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import plan_operators
from udfs.core.rows.batches import Piece
from udfs.core.rows.lanes import lane_keys, lane_of
from udfs.featurize import Featurize

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True)
class Record:
    """One record of a topic."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes


class Topics:
    """The topics that the job reads."""

    def __init__(self, sent: Iterable[Sent], partitions: int, timestamp_ms: int) -> None:
        self.records: dict[Place, list[Record]] = {}
        for number, one in enumerate(sent):
            key = None if one.key is None else one.key.encode()
            place = one.topic, (number if key is None else crc32(key)) % partitions
            log = self.records.setdefault(place, [])
            log.append(Record(len(log), timestamp_ms, key, msgspec.json.encode(one.row)))


@dataclass
class Source:
    """What of a partition has been read: up to where, and what waits for its micro-batch, per lane."""

    offset: int = 0
    pending: dict[int, list[Record]] = field(default_factory=dict)


@dataclass
class Checkpoint:
    """A snapshot that is being made, or is complete."""

    number: int
    parallelism: int
    sources: dict[Place, Source] = field(default_factory=dict)
    #: (operator, subtask) -> its state per key
    tasks: dict[tuple[int, int], dict[int, KeyState]] = field(default_factory=dict)
    #: subtask -> pieces written since the checkpoint before
    transactions: dict[int, list[Piece]] = field(default_factory=dict)
    #: pieces of earlier checkpoints that were not committed yet
    uncommitted: list[Piece] = field(default_factory=list)

    @property
    def written(self) -> list[Piece]:
        """All pieces of its transactions."""
        return [piece for pieces in self.transactions.values() for piece in pieces]


class Cluster:
    """A running job. Each method is one thing that may happen next; `chance` decides what does."""

    def __init__(
        self, pipeline: Pipeline, folder: Path, topics: Topics, memory_bytes: int, chance: random.Random
    ) -> None:
        self.pipeline, self.topics = pipeline, topics
        self._folder, self._memory_bytes, self._chance = folder, memory_bytes, chance
        self._keys = lane_keys(pipeline.lanes, MAX_PARALLELISM)
        self._operators = len(plan_operators(pipeline))
        self.committed: list[Piece] = []
        self.now_ms = 0
        self._completed = Checkpoint(0, 1, {place: Source() for place in topics.records})
        self.start(1)

    def start(self, parallelism: int) -> None:
        """Start from the newest complete checkpoint: what it had written is committed, what came after it is lost."""
        self.commit()
        found = deepcopy(self._completed)
        self.parallelism, self.sources = parallelism, found.sources
        self._making: Checkpoint | None = None
        self._transactions: dict[int, list[Piece]] = {i: [] for i in range(parallelism)}
        self._tasks: dict[tuple[int, int], Task] = {}
        for position in range(self._operators):
            states = {
                key: state for (at, _), keys in found.tasks.items() if at == position for key, state in keys.items()
            }
            for subtask in range(parallelism):
                mine = {key: state for key, state in states.items() if owner(key, parallelism) == subtask}
                operator = Featurize(str(self._folder), position, self._keys, self._memory_bytes)
                channels = len(self.sources) if position == 0 else parallelism
                self._tasks[position, subtask] = Task(operator, mine, channels)
        self._fire()

    @property
    def unread(self) -> list[Place]:
        """Partitions with records that were not read yet."""
        return [place for place, one in self.sources.items() if one.offset < len(self.topics.records[place])]

    @property
    def pending(self) -> list[tuple[Place, int]]:
        """Micro-batches that were not sent yet."""
        return [(place, lane) for place, one in self.sources.items() for lane in one.pending]

    @property
    def deliverable(self) -> list[tuple[tuple[int, int], int]]:
        """Channels that a task can read from."""
        return [(at, channel) for at, task in self._tasks.items() for channel in task.ready()]

    @property
    def unsnapped(self) -> list[Place]:
        """Sources that the checkpoint in progress has not reached."""
        return [] if self._making is None else [one for one in self.sources if one not in self._making.sources]

    @property
    def is_checkpointing(self) -> bool:
        return self._making is not None

    def read(self, place: Place, count: int) -> None:
        """Read records; each waits for the micro-batch of its lane."""
        source = self.sources[place]
        for record in self.topics.records[place][source.offset : source.offset + count]:
            lane = lane_of(None if record.key is None else record.key.decode(), self.pipeline.lanes)
            source.pending.setdefault(lane, []).append(record)
            source.offset += 1

    def send(self, place: Place, lane: int) -> None:
        """Send a micro-batch."""
        (topic, partition), records = place, self.sources[place].pending.pop(lane)
        value = Row(
            topic,
            [one.value for one in records],
            [one.key or b"" for one in records],
            [(partition << FLAG_BITS) | (NULL_KEY if one.key is None else 0) for one in records],
            [one.offset for one in records],
            [one.timestamp_ms for one in records],
        )
        self._channel(0, self._keys[lane], list(self.sources).index(place)).append(Message(self._keys[lane], value))

    def deliver(self, at: tuple[int, int], channel: int) -> None:
        """Let a task read one element of a channel."""
        done = self._tasks[at].take(channel)
        if isinstance(done, Barrier):
            self._snapshot(at, done)
        elif done is not None:
            self._emit(at, done)

    def tick(self, by_ms: int) -> None:
        """Let time pass."""
        self.now_ms += by_ms
        self._fire()

    def begin_checkpoint(self) -> None:
        """Begin a checkpoint; its barriers leave the sources one by one."""
        self._making = Checkpoint(self._completed.number + 1, self.parallelism)

    def snap_source(self, place: Place) -> None:
        """Let the barrier pass a source."""
        assert self._making is not None
        self._making.sources[place] = deepcopy(self.sources[place])
        at = list(self.sources).index(place)
        for subtask in range(self.parallelism):
            self._tasks[0, subtask].inputs[at].append(Barrier(self._making.number))

    def _snapshot(self, at: tuple[int, int], barrier: Barrier) -> None:
        position, subtask = at
        assert self._making is not None
        self._making.tasks[at] = self._tasks[at].snapshot()
        if position + 1 < self._operators:
            for following in range(self.parallelism):
                self._tasks[position + 1, following].inputs[subtask].append(barrier)
            return
        self._making.transactions[subtask], self._transactions[subtask] = self._transactions[subtask], []
        if len(self._making.transactions) == self.parallelism:
            # A sink keeps what it could not commit yet: nobody told it of the last checkpoint.
            self._making.uncommitted = [*self._completed.written, *self._completed.uncommitted]
            self._completed, self._making = self._making, None

    def commit(self) -> None:
        """Tell the sinks of the newest complete checkpoint, which may come late or, before a crash, never."""
        self.committed += [*self._completed.uncommitted, *self._completed.written]
        self._completed.uncommitted.clear()
        self._completed.transactions.clear()

    def _fire(self) -> None:
        for at, task in self._tasks.items():
            self._emit(at, task.fire(self.now_ms))

    def _emit(self, at: tuple[int, int], messages: list[Message]) -> None:
        position, subtask = at
        for message in messages:
            if position + 1 < self._operators:
                self._channel(position + 1, message.key, subtask).append(message)
            else:
                self._transactions[subtask].append(Piece.decode(message.value))

    def _channel(self, position: int, key: int, sender: int) -> Channel:
        return self._tasks[position, owner(key, self.parallelism)].inputs[sender]
