"""Featurize operator: one stage, or all where they share one lane. Pieces in, the same pieces with features out.

The first one also ingests: it gets raw batches of all topics and makes pieces of them, without another hop.
"""

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapState, MapStateDescriptor

from udfs.batch_rows import raw_batch
from udfs.core.batches import Piece
from udfs.core.features import plan_operators
from udfs.core.ingest import ingest_of_topics
from udfs.core.lane import Lane
from udfs.core.lanes import split_by_lane
from udfs.core.loading import load_pipeline


class Featurize(KeyedProcessFunction):
    """One operator of featurize stages.

    Parameters
    ----------
    bundle : folder of the pipeline's files, where the worker finds it
    position : number of the operator, see `features.plan_operators`
    lane_keys : per lane, the integer that Flink is keyed by
    """

    def __init__(self, bundle: str, position: int, lane_keys: list[int]) -> None:
        self._bundle, self._position, self._lane_keys = bundle, position, lane_keys

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the pipeline; the lanes' state is rebuilt lazily, each on its first batch."""
        folder = Path(self._bundle)
        self._pipeline = load_pipeline(folder)
        operators = plan_operators(self._pipeline)
        is_last = self._position + 1 == len(operators)
        # What the next operator is laned by, per topic; an enrichment goes by its own key.
        self._lane_by = {} if is_last else {one.topic: one.key for one in self._pipeline.enrichments}
        if not is_last:
            self._lane_by[self._pipeline.source.topic] = operators[self._position + 1][0].entity
        self._ingests = ingest_of_topics(self._pipeline, folder) if self._position == 0 else {}
        bytes_type = Types.PRIMITIVE_ARRAY(Types.BYTE())
        self._logs = [
            (stage, runtime_context.get_map_state(MapStateDescriptor(f"log-{stage.entity}", Types.LONG(), bytes_type)))
            for stage in operators[self._position]
        ]
        self._lane_of_key = {key: lane for lane, key in enumerate(self._lane_keys)}
        self._lanes: dict[int, list[Lane]] = {}

    def process_element(self, value: Row | bytes, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:
        """Take one micro-batch or one encoded piece through the stages."""
        key = ctx.get_current_key()
        lanes = self._lanes.get(key)
        if lanes is None:
            number = self._lane_of_key[key]
            lanes = [Lane(self._pipeline, stage, number, _StateMapping(log)) for stage, log in self._logs]
            self._lanes[key] = lanes
        if self._ingests:
            raw = raw_batch(value)
            piece = self._ingests[raw.topic].process(raw)
        else:
            piece = Piece.decode(value)
        for lane in lanes:
            piece = lane.process(piece)
        if self._lane_by:
            for number, part in split_by_lane(piece, self._lane_by[piece.topic], len(self._lane_keys)):
                yield Row(self._lane_keys[number], part.encode())
        elif piece.rows.num_rows or piece.letters.num_rows:
            yield Row(key, piece.encode())


class _StateMapping(MutableMapping[int, bytes]):
    """Flink map state of the current key as a mapping; it has no length, and is only iterated to restore."""

    def __init__(self, state: MapState) -> None:
        self._state = state

    def __setitem__(self, number: int, data: bytes) -> None:
        self._state.put(number, data)

    def __getitem__(self, number: int) -> bytes:
        data: bytes | None = self._state.get(number)
        if data is None:
            raise KeyError(number)
        return data

    def __delitem__(self, number: int) -> None:
        self._state.remove(number)

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._state.keys()))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def items(self) -> Any:
        """Return all entries in one pass over the state."""
        return list(self._state.items())
