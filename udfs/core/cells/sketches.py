"""Sketches in cells: what the kernels do for arrays, in Python, for the features that arrays cannot hold."""

import importlib
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.cells.inputs import input_values
from udfs.core.cells.keyed import SketchMaker
from udfs.core.cells.keyed import Track as Cells
from udfs.core.declare.feature import Ir
from udfs.core.kernels.admit import OK, SKIPPED
from udfs.core.kernels.arrays import READS, UPDATES, Events
from udfs.core.kernels.cells import cells_between, drop_keys, put_tile
from udfs.core.kernels.tiles import tile_of
from udfs.core.plan.tracks import Track

I64 = NDArray[np.int64]


def sketch_makers(track: Track) -> tuple[SketchMaker, ...]:
    """Return what makes the sketches of a cell."""
    return tuple(partial(_make, ir) for ir in track.irs)


def fold_sketches(
    events: Events,
    batch: pa.RecordBatch,
    own_at: I64 | slice,
    track: Track,
    lateness_ms: int,
    cells: Cells,
    touched: I64,
) -> list[list[Any]]:
    """Update the cells of one track with a batch; return its features, a list per feature over all rows.

    Parameters
    ----------
    events : the sequence; `values` is not read
    batch, own_at : its own rows, which update, and where they stand in it
    touched : int64[n], out: the cell each row went to, -1 for none
    """
    count = events.slots.size
    values = [_in_sequence(input_values(batch, ir), own_at, count) for ir in track.irs]
    out: list[list[Any]] = [[None] * count for _ in track.features]
    tile_ms = track.cut.tile_ms
    late_tiles = lateness_ms // tile_ms + 1 if tile_ms else 0
    kept = track.oldest + late_tiles
    run = np.empty(track.oldest + 1, np.int64)
    touched[:] = -1
    for i in range(count):
        updates, reads, status = events.flags[i] & UPDATES, events.flags[i] & READS, events.status[i]
        if status == SKIPPED or (status != OK and updates):
            continue
        slot, time_ms = int(events.slots[i]), int(events.times_ms[i])
        if events.reborn[i]:
            drop_keys(np.array([slot]), cells.pool)
        number = tile_of(time_ms, tile_ms)
        is_waiting = updates != 0
        for reach in track.reaches:
            if is_waiting and reach.includes_event:
                touched[i] = _update(slot, number, kept, time_ms, [column[i] for column in values], cells)
                is_waiting = False
            if reads:
                head = int(cells.head[slot]) if status == OK else -1
                nearest = max(number, int(cells.tile[head]) - late_tiles) if head >= 0 else number
                found = cells_between(head, nearest - reach.oldest, number - reach.skip, run, cells.pool)
                folded = _folded(run[:found].tolist(), cells)
                for column, feature in zip(out, track.features, strict=True):
                    if reach.holds(feature):
                        column[i] = folded[track.irs.index(feature.ir)].value(time_ms, reach.size_ms, feature.index)
        if is_waiting:
            touched[i] = _update(slot, number, kept, time_ms, [column[i] for column in values], cells)
    return out


def _make(ir: Ir, data: bytes | None = None) -> Any:
    module, name = ir.kind.split(".")
    kind = getattr(importlib.import_module(f"udfs.core.sketches.{module}"), name)
    arguments = (ir.of_each, ir.params) if ir.by else (ir.params,)
    return kind(*arguments) if data is None else kind.from_bytes(data, *arguments)


def _update(slot: int, number: int, kept: int, time_ms: int, values: list[Any], cells: Cells) -> int:
    """Add an event to its tile; return the cell."""
    cell, is_new = put_tile(slot, number, kept, cells.pool)
    if is_new:
        cells.sketches[cell] = [make() for make in cells.layout.sketches]
    for sketch, value in zip(cells.sketches[cell], values, strict=True):
        if value is not None:
            sketch.update(value, time_ms)
    return int(cell)


def _folded(run: list[int], cells: Cells) -> list[Any]:
    """Merge cells, newest first."""
    folded = [make() for make in cells.layout.sketches]
    for cell in run:
        for into, sketch in zip(folded, cells.sketches[cell], strict=True):
            into.merge(sketch)
    return folded


def _in_sequence(own: list[Any], own_at: I64 | slice, count: int) -> list[Any]:
    if isinstance(own_at, slice):
        return own
    merged: list[Any] = [None] * count
    for place, value in zip(own_at.tolist(), own, strict=True):
        merged[place] = value
    return merged
