"""Featurize operator: one stage, keyed by lane. Pieces in, the same pieces with features out, cut for the next stage.

A first stage without enrichments also ingests: it gets raw batches and makes pieces of them, without another hop.
"""

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import MapState, MapStateDescriptor

from udfs.batch_rows import raw_batch
from udfs.core.batches import Piece
from udfs.core.definition import Pipeline
from udfs.core.features import Stage, plan_stages
from udfs.core.ingest import Ingest
from udfs.core.lane import Lane
from udfs.core.lanes import split_by_lane
from udfs.core.loading import load_pipeline


def takes_raw_batches(position: int, stage: Stage) -> bool:
    """Say whether a stage ingests the source by itself; one that joins enrichments takes pieces of all topics."""
    return position == 0 and not stage.enrichments


class Featurize(KeyedProcessFunction):
    """One featurize stage.

    Parameters
    ----------
    bundle : folder of the pipeline's files, where the worker finds it
    position : number of the stage
    lane_keys : per lane, the integer that Flink is keyed by
    """

    def __init__(self, bundle: str, position: int, lane_keys: list[int]) -> None:
        self._bundle, self._position, self._lane_keys = bundle, position, lane_keys

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the pipeline; the lanes' state is rebuilt lazily, each on its first batch."""
        folder = Path(self._bundle)
        self._pipeline: Pipeline = load_pipeline(folder)
        stages = plan_stages(self._pipeline)
        self._stage: Stage = stages[self._position]
        self._next_entity = stages[self._position + 1].entity if self._position + 1 < len(stages) else None
        raw = takes_raw_batches(self._position, self._stage)
        self._ingest = Ingest.of_source(self._pipeline, folder) if raw else None
        self._log = runtime_context.get_map_state(
            MapStateDescriptor("log", Types.LONG(), Types.PRIMITIVE_ARRAY(Types.BYTE()))
        )
        self._lane_of_key = {key: lane for lane, key in enumerate(self._lane_keys)}
        self._lanes: dict[int, Lane] = {}

    def process_element(self, value: Row | bytes, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:
        """Take one micro-batch or one encoded piece through the stage."""
        key = ctx.get_current_key()
        lane = self._lanes.get(key)
        if lane is None:
            number = self._lane_of_key[key]
            lane = self._lanes[key] = Lane(self._pipeline, self._stage, number, _StateMapping(self._log))
        if self._ingest is None:
            piece = Piece.decode(value)
        else:
            piece = self._ingest.process(raw_batch(self._pipeline.source.topic, value))
        piece = lane.process(piece)
        if self._next_entity is None:
            yield Row(key, piece.encode())
        else:
            for number, part in split_by_lane(piece, self._next_entity, len(self._lane_keys)):
                yield Row(self._lane_keys[number], part.encode())


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
