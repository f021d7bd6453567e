"""A store: what one stage keeps of one stream in one lane, and the features that are read from it.

The store of the scored events is updated and read by every event; that of an enrichment is updated by its rows and read
by the events. Both are one sequence in the lane's order.
"""

from collections.abc import MutableMapping
from collections.abc import Sequence as Names
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.cells.keyed import KeyedCells, Layout
from udfs.core.cells.keyed import Track as Cells
from udfs.core.cells.log import Log
from udfs.core.cells.pages import Pages
from udfs.core.cells.sketches import fold_sketches, sketch_makers
from udfs.core.declare.declarations import Enrichment, TimePolicy
from udfs.core.declare.feature import Input
from udfs.core.kernels.arrays import UPDATES, Events
from udfs.core.kernels.asof import join_latest
from udfs.core.kernels.ring import fold_ring
from udfs.core.kernels.sessions import fold_sessions
from udfs.core.kernels.tiles import MONDAY_MS, fold_tiles
from udfs.core.plan.features import Spans, Stage
from udfs.core.plan.tracks import Track
from udfs.core.stage.patience import Joined, Patience, join_or_wait
from udfs.core.stage.sequence import Sequence

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


class Judged(NamedTuple):
    """What admission says of a sequence: int64 slots, int8 status and bool reborn, per row."""

    slots: I64
    status: NDArray[np.int8]
    reborn: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a store says of a sequence."""

    #: feature and join columns, float64, of the events
    columns: dict[str, pa.Array]
    #: int8 and int64, of the own rows: status, and how far late ones are behind
    status: NDArray[np.int8]
    behind_ms: I64
    #: of an awaited enrichment: what the readers were joined with
    joined: Joined | None = None


class Store:
    """Cells, log and kernels of one stream.

    Parameters
    ----------
    number : of the store within its lane, in the log
    stage, policy : whose features, and its policy of time
    enrichment : the stream; None for the scored events
    """

    def __init__(self, number: int, stage: Stage, policy: TimePolicy, enrichment: Enrichment | None) -> None:
        self._join = enrichment if enrichment is not None and enrichment.take else None
        self._tracks = tuple(one for one in stage.tracks if one.cut.stream == (enrichment.name if enrichment else None))
        spans = Spans.of(stage, policy, enrichment)
        self.cells = KeyedCells(
            [*([join_layout(self._join)] if self._join else []), *map(track_layout, self._tracks)],
            spans.lateness_ms,
            spans.horizon_ms,
        )
        self.log = Log(number, self.cells, spans.longest_ms)
        self.pages: Pages | None = None

    def limit(self, mapping: MutableMapping[str, bytes], limit_bytes: int) -> None:
        """Keep at most so many bytes of keys and cells in memory, the others in pages; called before the first row."""
        self.pages = Pages(mapping, self.cells, self.log, limit_bytes)

    def apply(
        self,
        sequence: "Sequence",
        mapping: MutableMapping[int, bytes] | None,
        next_number: int,
        next_seq: int,
        patience: Patience | None = None,
    ) -> tuple["Answer", int]:
        """Take a sequence; append what changed to the log, if there is one.

        With `patience`, readers wait for the rows of the join; features are read for those that have not waited before.

        Returns
        -------
        The answer, and the next free segment number.
        """
        brought = self.pages.bring(sequence.keys()) if self.pages else None
        sweeps, clock_ms = self.cells.sweeps, self.cells.clock_ms
        slots = sequence.slots(self.cells)
        status, reborn, behind_ms = self.cells.admit(slots, sequence.times_ms, sequence.seqs, sequence.flags)
        judged = Judged(slots, status, reborn)
        columns: dict[str, pa.Array] = {}
        touched: list[I64] = []
        pools = iter(self.cells.tracks)
        joined = None
        if self._join is not None:
            joined, out, rows = self._latest(self._join, next(pools), sequence, judged, clock_ms, patience)
            touched.append(rows)
            columns |= sequence.read(tuple(self._join.take), out) if joined is None else {}
        for track, cells in zip(self._tracks, pools, strict=True):
            rows = np.empty((2 if track.cut.family == "sessions" else 1) * slots.size, np.int64)
            touched.append(rows)
            if track.is_flat:
                out = self._fold(track, cells, sequence, judged, rows)
                columns |= sequence.read(tuple(one.name for one in track.features), out)
            else:
                events = _events(sequence, (), judged)
                own = (sequence.own.batch, sequence.own_at)
                lists = fold_sketches(events, *own, track, self.cells.lateness_ms, cells, rows)
                if self.pages is not None:
                    cells.weigh(rows)
                columns |= sequence.read_lists(track.features, lists)
        if mapping is None:
            self.log.forget()
        elif slots.size:
            updated = np.where(sequence.flags & UPDATES, slots, -1)
            if brought is not None:
                updated = np.concatenate([updated, brought[0]])
                touched = [np.concatenate(rows) for rows in zip(touched, brought[1], strict=True)]
            next_number = self.log.write(mapping, next_number, next_seq, updated, touched)
            if self.pages is not None:
                next_number = self.pages.make_room(mapping, next_number, next_seq)
                if self.cells.sweeps > sweeps:
                    self.pages.forget_idle()
        held = 0 if patience is None else patience.held
        columns = {name: column.slice(held) for name, column in columns.items()} if held else columns
        return Answer(columns, status[sequence.own_at], behind_ms[sequence.own_at], joined), next_number

    def _latest(
        self,
        join: Enrichment,
        cells: Cells,
        sequence: Sequence,
        judged: Judged,
        clock_ms: int,
        patience: Patience | None,
    ) -> tuple[Joined | None, F64, I64]:
        events = _events(sequence, tuple(join.take.values()), judged)
        count = events.slots.size
        out, touched = np.empty((count, len(join.take))), np.empty(count, np.int64)
        if patience is not None:
            clocks = (clock_ms, self.cells.horizon_ms)
            return join_or_wait(join, events, sequence.seqs, *clocks, cells.pool, touched, patience), out, touched
        join_latest(events, join.max_age_ms, join.keep_ms, cells.pool, touched, out)
        return None, out, touched

    def _fold(self, track: Track, cells: Cells, sequence: Sequence, judged: Judged, touched: I64) -> F64:
        cut, plan, lateness_ms = track.cut, track.plan, self.cells.lateness_ms
        events = _events(sequence, track.columns, judged)
        out = np.empty((events.slots.size, len(track.features)))
        if cut.family == "tiles":
            fold_tiles(events, cut.tile_ms, lateness_ms, plan, cells.pool, touched, out)
        elif cut.family == "ring":
            fold_ring(events, plan, cells.pool, touched, out)
        else:
            gap_ms = cut.tile_ms or self.cells.horizon_ms
            fold_sessions(events, gap_ms, sequence.meets(cut.start), lateness_ms, plan, cells.pool, touched, out)
        return out


def _events(sequence: Sequence, columns: Names[str | Input], judged: Judged) -> Events:
    return Events(
        judged.slots, sequence.times_ms, sequence.matrix(columns), sequence.flags, judged.status, judged.reborn
    )


def join_layout(join: Enrichment) -> Layout:
    """Return the layout of an enrichment's rows: a row is a cell, its time the tile."""
    return Layout(f"{join.name}:" + ",".join(join.take.values()), 1, len(join.take))


def track_layout(track: Track) -> Layout:
    """Return the layout of a track's cells."""
    makers = () if track.is_flat else sketch_makers(track)
    if track.cut.family == "tiles" and track.cut.tile_ms:
        return Layout(track.layout, track.cut.tile_ms, track.width, "tile", MONDAY_MS, makers)
    age: Literal["end", "newest"] = "end" if track.cut.family == "sessions" else "newest"
    return Layout(track.layout, 1, track.width, age, 0, makers)
