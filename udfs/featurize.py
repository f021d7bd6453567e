"""Featurize operator: one stage, or all where they share one lane. Pieces in, the same pieces with features out.

The first one also ingests: it gets raw batches of all topics and makes pieces of them, without another hop.
Each lane keeps a header beside its logs: what wrote them. A lane without one has not begun, and begins with its part of
the state snapshot, if the job is given one; a lane with a header never does so again.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, TimerService
from pyflink.datastream.state import MapState, MapStateDescriptor, ValueStateDescriptor

from udfs.batch_rows import raw_batch
from udfs.core.declare.loading import load_pipeline
from udfs.core.plan.features import Stage, plan_operators
from udfs.core.rows.batches import Piece, RawBatch
from udfs.core.rows.entities import add_entity
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.rows.lanes import split_by_lane
from udfs.core.rows.letters import no_letters
from udfs.core.stage.duplicates import Duplicates
from udfs.core.stage.lane import Lane
from udfs.core.state.header import DUPLICATES, HEADER_STATE, StateHeader, log_name, pages_name
from udfs.core.state.migration import refuse_unfit
from udfs.core.state.snapshot import SnapshotReader, pending_of_lane

K = TypeVar("K", int, str)


class Featurize(KeyedProcessFunction):
    """One operator of featurize stages.

    Parameters
    ----------
    bundle : folder of the pipeline's files, where the worker finds it
    position : number of the operator, see `features.plan_operators`
    lane_keys : per lane, the integer that Flink is keyed by
    memory_bytes : what the keys and cells of one store of one lane may take in memory
    snapshot : place of the state snapshot that the job starts from, where the worker finds it
    """

    def __init__(
        self, bundle: str, position: int, lane_keys: list[int], memory_bytes: int, snapshot: str | None = None
    ) -> None:
        self._bundle, self._position, self._lane_keys = bundle, position, lane_keys
        self._memory_bytes, self._place = memory_bytes, snapshot

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the pipeline; the lanes' state is rebuilt lazily, each on its first batch."""
        folder = Path(self._bundle)
        self._pipeline = load_pipeline(folder)
        operators = plan_operators(self._pipeline)
        is_last = self._position + 1 == len(operators)
        # What the next operator is laned by, per topic; an enrichment goes by its own key.
        self._lane_by: dict[str, tuple[str, tuple[str, ...]]] = {}
        if not is_last:
            self._lane_by |= {one.topic: (one.key, (one.key,)) for one in self._pipeline.enrichments}
            following = operators[self._position + 1][0]
            self._lane_by[self._pipeline.source.topic] = (following.entity, following.fields)
        self._ingests = ingest_of_topics(self._pipeline, folder) if self._position == 0 else {}
        bytes_type = Types.PRIMITIVE_ARRAY(Types.BYTE())
        self._stages = operators[self._position]
        # Ids are looked at before any stage sees a row, where rows are still laned by their Kafka key.
        self._looks_at_ids = self._position == 0 and self._pipeline.time.duplicates_within_ms > 0
        logs = [*(log_name(stage.entity) for stage in self._stages), *([DUPLICATES] if self._looks_at_ids else [])]
        pages = [pages_name(stage.entity) for stage in self._stages]
        self._states = {
            name: runtime_context.get_map_state(MapStateDescriptor(name, key_type, bytes_type))
            for names, key_type in ((logs, Types.LONG()), (pages, Types.STRING()))
            for name in names
        }
        self._stored_header = runtime_context.get_state(ValueStateDescriptor(HEADER_STATE, bytes_type))
        self._header = StateHeader.of(self._pipeline, folder)
        self._snapshot = SnapshotReader(self._place) if self._place else None
        runtime_context.get_metrics_group().gauge("paged_keys", self._paged_keys)
        self._lane_of_key = {key: lane for lane, key in enumerate(self._lane_keys)}
        self._lanes: dict[int, list[Duplicates | Lane]] = {}
        self._may_wait = any(join.is_awaited for stage in self._stages for join in stage.enrichments)
        runtime_context.get_metrics_group().gauge("waiting_events", self._waiting_events)
        #: Flink key of a lane -> when its first timer fires, as far as it was set here
        self._timers: dict[int, int] = {}

    def _paged_keys(self) -> int:
        return sum(lane.paged_keys for lanes in self._lanes.values() for lane in lanes if isinstance(lane, Lane))

    def _waiting_events(self) -> int:
        waiting = (lane.waiting for lanes in self._lanes.values() for lane in lanes if isinstance(lane, Lane))
        return sum(len(one) for one in waiting if one is not None)

    def process_element(self, value: Row | bytes, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:
        """Take one micro-batch or one encoded piece through the stages."""
        key = ctx.get_current_key()
        now_ms = ctx.timer_service().current_processing_time() if self._may_wait else None
        begins = None if key in self._lanes else self._start_lane(key, now_ms)
        batches: list[RawBatch | Piece] = [raw_batch(value) if self._ingests else Piece.decode(value)]
        if begins is not None and self._ingests:
            lane, lanes = self._lane_of_key[key], len(self._lane_keys)
            batches = [*pending_of_lane(begins.pending(), lane, lanes), *batches]
        for batch in batches:
            piece = self._ingests[batch.topic].process(batch) if isinstance(batch, RawBatch) else batch
            piece = _through(self._lanes[key], piece, now_ms)
            yield from self._sent(key, piece)
        if begins is not None and self._lane_by:
            # The same lane of the next operator begins, too: soon no state depends on the snapshot any more.
            yield Row(key, Piece(piece.topic, piece.rows.slice(0, 0), no_letters()).encode())
        if self._may_wait:
            self._set_timer(key, ctx.timer_service())

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Row]:
        """Let events go on that have waited long enough for an enrichment that may be idle."""
        key = ctx.get_current_key()
        now_ms = max(timestamp, ctx.timer_service().current_processing_time())
        if key not in self._lanes:
            self._start_lane(key, now_ms)
        if self._timers.get(key, timestamp) <= timestamp:
            self._timers.pop(key, None)
        for i, lane in enumerate(self._lanes[key], start=1):
            piece = lane.expire(now_ms) if isinstance(lane, Lane) else None
            if piece is not None:
                yield from self._sent(key, _through(self._lanes[key][i:], piece, now_ms))
        self._set_timer(key, ctx.timer_service())

    def _set_timer(self, key: int, timers: TimerService) -> None:
        """Set a timer for the event of a lane that goes on first, unless there is one."""
        waiting = [lane.waiting for lane in self._lanes[key] if isinstance(lane, Lane)]
        due_ms = min((one.due_ms for one in waiting if one is not None and one.due_ms is not None), default=None)
        if due_ms is not None and due_ms < self._timers.get(key, due_ms + 1):
            self._timers[key] = due_ms
            timers.register_processing_time_timer(due_ms)

    def _sent(self, key: int, piece: Piece) -> Iterator[Row]:
        if self._lane_by:
            entity, fields = self._lane_by[piece.topic]
            piece = replace(piece, rows=add_entity(piece.rows, entity, fields))
            for number, part in split_by_lane(piece, entity, len(self._lane_keys)):
                yield Row(self._lane_keys[number], part.encode())
        elif piece.rows.num_rows or piece.letters.num_rows:
            yield Row(key, piece.encode())

    def _start_lane(self, key: int, now_ms: int | None) -> SnapshotReader | None:
        """Restore a lane, or begin it; return the snapshot that it begins with.

        A savepoint has the timers of the events that wait, a snapshot has none: from now on they wait by the clock, so
        that the batch at hand, whatever it holds, sets the timer.
        """
        number, stored, header = self._lane_of_key[key], self._stored_header.value(), self._header.encode()
        begins = self._snapshot if stored is None else None
        if stored != header:
            if stored is not None:
                refuse_unfit(StateHeader.decode(stored), self._header)
            self._stored_header.update(header)
        if begins is not None:
            refuse_unfit(begins.manifest.header, self._header)
            for name in self._states.keys() & set(begins.manifest.header.logs):
                for i, segment in enumerate(begins.segments(name, number)):
                    self._states[name].put(i, segment)
        ids = [Duplicates(self._pipeline, _StateMapping(self._states[DUPLICATES]))] if self._looks_at_ids else []
        lanes = [self._lane(stage, number) for stage in self._stages]
        self._lanes[key] = [*ids, *lanes]
        for lane in lanes:
            if now_ms is not None and lane.waiting is not None:
                lane.waiting.arm(now_ms)
        return begins

    def _lane(self, stage: Stage, number: int) -> Lane:
        log, pages = (self._states[name(stage.entity)] for name in (log_name, pages_name))
        return Lane(self._pipeline, stage, number, _StateMapping(log), _StateMapping(pages), self._memory_bytes)


def _through(lanes: Sequence[Duplicates | Lane], piece: Piece, now_ms: int | None) -> Piece:
    """Take a piece through stages, one after the other."""
    for lane in lanes:
        piece = lane.process(piece, now_ms) if isinstance(lane, Lane) else lane.process(piece)
    return piece


class _StateMapping(MutableMapping[K, bytes]):
    """Flink map state of the current key as a mapping; it has no length, and is only iterated to restore."""

    def __init__(self, state: MapState) -> None:
        self._state = state

    def __setitem__(self, key: K, data: bytes) -> None:
        self._state.put(key, data)

    def __getitem__(self, key: K) -> bytes:
        data: bytes | None = self._state.get(key)
        if data is None:
            raise KeyError(key)
        return data

    def __delitem__(self, key: K) -> None:
        self._state.remove(key)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._state.keys()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def items(self) -> Any:
        """Return all entries in one pass over the state."""
        return list(self._state.items())
