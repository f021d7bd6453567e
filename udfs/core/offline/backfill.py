"""Backfill: the feature path over records that are there already, on several threads, without Flink.

The records of all topics are one sequence, cut into chunks. Every lane of every stage sees its rows in the order of the
sequence, so neither the chunks nor the threads show in what comes out. While a chunk is in one stage the next chunk can
be in the stage before: kernels and Arrow work without the GIL.
"""

import itertools
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import plan_stages
from udfs.core.rows.batches import OFFSET, Piece, RawBatch, add_columns, join_batches
from udfs.core.rows.entities import add_entity
from udfs.core.rows.ingest import Ingest, ingest_of_topics
from udfs.core.rows.lanes import split_by_lane
from udfs.core.rows.letters import no_letters
from udfs.core.stage.duplicates import Duplicates
from udfs.core.stage.lane import Lane
from udfs.core.stage.leaving import let_go_by
from udfs.core.state.header import DUPLICATES, log_name

I64 = NDArray[np.int64]
POSITION = "_position"  #: reserved column: int64, the place of a row in its chunk, over all topics


@dataclass(frozen=True, slots=True)
class Part:
    """What a chunk holds of one topic: raw records, or rows that are decoded already."""

    batch: RawBatch | Piece
    #: int64[n], ascending: the place of each record (or row) in the chunk
    positions: I64


#: Records that follow one another in the sequence; a topic has one part at most.
Chunk = Sequence[Part]


@dataclass(frozen=True, slots=True)
class Featurized:
    """What came of one chunk."""

    #: rows of the source topic with every column that the scoring stage would see, in the order of the sequence
    rows: pa.RecordBatch
    #: rejects and late rows of all topics
    letters: pa.RecordBatch
    #: topic -> records that came in
    records: Counter[str]


class Backfill:
    """The stages of a pipeline, with state that starts empty.

    Parameters
    ----------
    pipeline, folder : the definition and the folder its files are relative to
    threads : how many work at the same time, beside the one that iterates
    lanes : how many lanes each stage has; default: as many as the job. A lane has one clock, by which idle keys are
        forgotten: another number shows only where a key comes back after `time.forget_idle_after`, or an event waits
    logs : is filled with the durable log of each (log, lane), see `snapshot`; default: nothing is kept durable, and
        events that still wait at the end go on without the row that they wait for
    """

    def __init__(
        self,
        pipeline: Pipeline,
        folder: Path,
        threads: int = 1,
        lanes: int | None = None,
        logs: dict[tuple[str, int], dict[int, bytes]] | None = None,
    ) -> None:
        self._threads, self._keeps = threads, logs is not None
        self.source = pipeline.source.topic
        self.ingests = ingest_of_topics(pipeline, folder)
        self.stages = plan_stages(pipeline)
        #: enrichment topic -> field that says in which lane a row is
        self.keys = {enrichment.topic: enrichment.key for enrichment in pipeline.enrichments}
        #: per stage its lanes; they hold the state after `run`
        numbers = range(lanes or pipeline.lanes)
        kept = {} if logs is None else logs
        looks_at_ids = pipeline.time.duplicates_within_ms > 0
        self._duplicates = [Duplicates(pipeline, kept.setdefault((DUPLICATES, n), {})) for n in numbers if looks_at_ids]
        self.lanes = [
            [
                Lane(pipeline, stage, n, None if logs is None else kept.setdefault((log_name(stage.entity), n), {}))
                for n in numbers
            ]
            for stage in self.stages
        ]

    def run(self, chunks: Iterable[Chunk]) -> Iterator[Featurized]:
        """Yield what comes of each chunk, in their order, reading a few chunks ahead, and of what waited to the end."""
        with ThreadPoolExecutor(self._threads, "backfill") as pool:
            ingest = _Serial(pool)
            lanes = [[_Serial(pool) for _ in stage] for stage in self.lanes]
            done: queue.SimpleQueue[Featurized | BaseException] = queue.SimpleQueue()
            ahead, under_way = self._threads + len(self.stages), 0
            try:
                waits = any(lane.waiting is not None for stage in self.lanes for lane in stage)
                ends = [((), True)] if waits and not self._keeps else []
                for chunk, is_end in itertools.chain(((chunk, False) for chunk in chunks), ends):
                    ingest.submit(_Passage(self, chunk, lanes, done.put, is_end=is_end).ingest)
                    under_way += 1
                    if under_way > ahead:
                        yield _result(done)
                        under_way -= 1
                for _ in range(under_way):
                    yield _result(done)
            finally:
                pool.shutdown(cancel_futures=True)

    def process(self, number: int, lane: int, pieces: dict[str, Piece], *, is_end: bool = False) -> dict[str, Piece]:
        """Take rows of all topics, in the order of their positions, through a lane of a stage.

        Events that waited get the position of what let them go.
        """
        if number == 0 and self._duplicates:
            pieces[self.source] = self._duplicates[lane].process(pieces[self.source])
        positions = np.concatenate([piece.rows[POSITION].to_numpy() for piece in pieces.values()])
        topics = np.repeat(np.arange(len(pieces), dtype=np.int8), [piece.rows.num_rows for piece in pieces.values()])
        order, stage, here = np.argsort(positions), self.stages[number], self.lanes[number][lane]
        seen = here.next_seq
        done = here.process_interleaved(pieces, topics[order])
        if here.waiting is None:
            return done
        own = [topic == self.source or topic in {one.topic for one in stage.enrichments} for topic in pieces]
        places = positions[order][np.array(own)[topics[order]]]
        source = done[self.source]
        at = let_go_by(source.rows, stage) - seen
        done[self.source] = replace(source, rows=_set(source.rows, POSITION, pa.array(places[at])))
        last = here.expire() if is_end else None
        if last is not None:
            behind = np.arange(last.rows.num_rows) + positions.max(initial=-1) + 1
            last = replace(last, rows=_set(last.rows, POSITION, pa.array(behind)))
            done[self.source] = _joined([done[self.source], last])
        return done


def _result(done: "queue.SimpleQueue[Featurized | BaseException]") -> Featurized:
    found = done.get()
    if isinstance(found, BaseException):
        raise found
    return found


class _Passage:
    """One chunk on its way. One thread at a time holds it; only the lanes of a stage work on it together."""

    def __init__(
        self,
        backfill: Backfill,
        chunk: Chunk,
        lanes: list[list["_Serial"]],
        done: Callable[[Featurized | BaseException], None],
        *,
        is_end: bool,
    ) -> None:
        self._backfill, self._chunk, self._lanes, self._done = backfill, chunk, lanes, done
        self._is_end = is_end
        self._records: Counter[str] = Counter()
        self._letters: list[pa.RecordBatch] = [no_letters()]
        self._lock, self._left = threading.Lock(), 0
        #: lane -> what it has made of its share
        self._made: dict[int, dict[str, Piece]] = {}

    def ingest(self) -> None:
        """Decode what is raw; rules, lookups and the derive function; then hand over to the first stage."""
        ingests, nothing = self._backfill.ingests, RawBatch(self._backfill.source, [], [], [], [], [])
        try:
            parts = {nothing.topic: Part(nothing, np.zeros(0, np.int64))}
            parts |= {part.batch.topic: part for part in self._chunk}
            pieces = {}
            for topic, part in parts.items():
                decoded = _decoded(ingests[topic], part)
                self._records[topic] += decoded.rows.num_rows + decoded.letters.num_rows
                pieces[topic] = ingests[topic].check(decoded)
            self._chunk = ()
            self._hand_over(0, pieces)
        except BaseException as error:  # noqa: BLE001  raised again where the results are read
            self._done(error)

    def _hand_over(self, number: int, pieces: dict[str, Piece]) -> None:
        """Give the pieces to the lanes of a stage; behind the last stage they are done."""
        self._letters += [piece.letters for piece in pieces.values()]
        pieces = {topic: Piece(topic, piece.rows, no_letters()) for topic, piece in pieces.items()}
        source = pieces[self._backfill.source]
        if number == len(self._backfill.stages):
            letters = join_batches(self._letters)
            letters = letters.filter(pc.not_equal(letters["kind"], "order"))
            self._done(Featurized(source.rows.drop_columns([POSITION]), letters, self._records))
            return
        stage, lanes = self._backfill.stages[number], self._lanes[number]
        if len(lanes) > 1:
            source = replace(source, rows=add_entity(source.rows, stage.entity, stage.fields))
            pieces[source.topic] = source
        shares: dict[int, dict[str, Piece]] = {}
        for topic, piece in pieces.items():
            for lane, share in split_by_lane(piece, self._backfill.keys.get(topic, stage.entity), len(lanes)):
                shares.setdefault(lane, {})[topic] = share
        no_rows = Piece(source.topic, source.rows.slice(0, 0), no_letters())
        wanted = range(len(lanes)) if self._is_end else shares or (0,)
        shares = {lane: {source.topic: no_rows} | shares.get(lane, {}) for lane in wanted}
        self._made, self._left = {}, len(lanes)
        # Every lane gets its turn, if only to do nothing: so no chunk overtakes another between two stages.
        for lane, serial in enumerate(lanes):
            serial.submit(partial(self._in_lane, number, lane, shares.get(lane)))

    def _in_lane(self, number: int, lane: int, pieces: dict[str, Piece] | None) -> None:
        try:
            made = None if pieces is None else self._backfill.process(number, lane, pieces, is_end=self._is_end)
            with self._lock:
                if made is not None:
                    self._made[lane] = made
                self._left -= 1
                if self._left:
                    return
            shares = [self._made[lane] for lane in sorted(self._made)]
            topics = dict.fromkeys(topic for share in shares for topic in share)
            together = {topic: _joined([share[topic] for share in shares if topic in share]) for topic in topics}
            self._hand_over(number + 1, together)
        except BaseException as error:  # noqa: BLE001  raised again where the results are read
            self._done(error)


class _Serial:
    """Does what it is given one after the other, in the order given, on the threads of a pool."""

    def __init__(self, pool: Executor) -> None:
        self._pool, self._lock = pool, threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()

    def submit(self, call: Callable[[], None]) -> None:
        """Do it when all that was given before is done."""
        with self._lock:
            self._waiting.append(call)
            if len(self._waiting) == 1:
                self._pool.submit(self._next)

    def _next(self) -> None:
        self._waiting[0]()
        with self._lock:
            self._waiting.popleft()
            if self._waiting:
                self._pool.submit(self._next)


def _decoded(ingest: Ingest, part: Part) -> Piece:
    """Return the rows of a part with their positions."""
    if isinstance(part.batch, Piece):
        rows = add_columns(part.batch.rows, {POSITION: pa.array(part.positions)})
        return part.batch.with_rows(rows)
    raw = part.batch
    # Which records became rows is said by their numbers, which go through the decoder in the place of the offsets.
    numbered = RawBatch(raw.topic, raw.values, raw.keys, raw.partitions, range(len(raw.values)), raw.timestamps_ms)
    piece = ingest.decode(numbered)
    offsets = pa.array(raw.offsets, pa.int64())
    positions = pa.array(part.positions).take(piece.rows[OFFSET])
    rows = _set(piece.rows, OFFSET, offsets.take(piece.rows[OFFSET]))
    letters = _set(piece.letters, "offset", offsets.take(piece.letters["offset"]))
    return Piece(raw.topic, add_columns(rows, {POSITION: positions}), letters)


def _set(rows: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    columns = [column if one == name else rows[one] for one in rows.schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _joined(shares: list[Piece]) -> Piece:
    """Put the shares of several lanes together again, in the order of their positions."""
    letters = join_batches([share.letters for share in shares])
    rows = join_batches([share.rows for share in shares])
    if len(shares) > 1:
        rows = rows.take(pa.array(np.argsort(rows[POSITION].to_numpy(), kind="stable")))
    return Piece(shares[0].topic, rows, letters)
