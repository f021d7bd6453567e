"""Windows of tiles, event by event: add the event to its tile, fold the tiles of each window.

A window folds the tiles `number - oldest` .. `number - skip` of the key, seen from the event's tile: the newest first,
then ever older ones, so that the value is one fixed sequence of merges, whatever the batch. Nothing is ever subtracted.
Sliding windows are many narrow tiles, a tumbling one is one tile as wide as itself, a lifetime is the tile of width 0.
A window counts what came before in the sequence, and a tile counts whole: of the event's own tile also what is later in
time. A row that reads from farther behind than the allowed lateness finds the tiles that a late event could still find.
The paned form is Li et al., "No Pane, No Gain", SIGMOD Record 34(1), 2005.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import borrowing, inlined, kernel
from udfs.core.kernels import dispatch
from udfs.core.kernels.admit import OK, SKIPPED
from udfs.core.kernels.arrays import READS, UPDATES, Events, Plan, Pool
from udfs.core.kernels.cells import drop_behind, drop_from, find_or_insert
from udfs.core.kernels.fold import init_irs, update_irs, write_window

AHEAD, DEEP = 32, 64  #: events whose cells are fetched together, and at most how many cells of each
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
MONDAY_MS = 4 * 86_400_000  #: tiles are counted from Monday, 5 January 1970, so that a tile of 7d is a calendar week


@inlined
def tile_of(time_ms: int, tile_ms: int) -> int:
    """Return the number of the tile that a time falls into."""
    return (time_ms - MONDAY_MS) // tile_ms if tile_ms > 0 else 0


@kernel
def fold_tiles(events: Events, tile_ms: int, lateness_ms: int, plan: Plan, pool: Pool, touched: I64, out: F64) -> None:
    """Update the cells of one track with a batch and write its features.

    Parameters
    ----------
    events, plan, pool : see `arrays`; the pool is updated
    tile_ms : width of a tile, 0: one tile for all times; lateness_ms : allowed lateness
    touched : int64[n], out: the cell each row went to, -1 for none
    out : float64[n, f], the features; NaN for null and for what overflowed float64
    """
    folded, run = np.empty(plan.offsets[-1]), np.empty(plan.windows[2].max() + 1, np.int64)
    ahead = np.empty(AHEAD, np.int64)
    _fold(events, tile_ms, lateness_ms, plan, pool, touched, out, folded, run, ahead)


@borrowing
def _fold(
    events: Events,
    tile_ms: int,
    lateness_ms: int,
    plan: Plan,
    pool: Pool,
    touched: I64,
    out: F64,
    folded: F64,
    run: I64,
    ahead: I64,
) -> None:
    head, older, owner, tile, irs, free, free_count = pool
    windows = plan.windows.shape[1]
    before = windows - plan.windows[0].sum()
    late_tiles = lateness_ms // tile_ms + 1 if tile_ms > 0 else 0
    kept = plan.windows[2].max() + late_tiles
    for i in range(events.slots.size):
        _fetch(i, events.slots[i : i + AHEAD], pool, ahead, folded)
        touched[i] = -1
        updates, reads, status = events.flags[i] & UPDATES, events.flags[i] & READS, events.status[i]
        if reads:
            out[i] = np.nan
        if status == SKIPPED or (status != OK and updates):
            continue
        slot, time_ms, row = events.slots[i], events.times_ms[i], events.values[i]
        if events.reborn[i]:
            drop_from(head[slot], older, owner, free, free_count)
            head[slot] = -1
        number = tile_of(time_ms, tile_ms)
        newest = head[slot] if status == OK else -1
        # Who reads from afar looks from where a late event may be. What is behind that is gone, even where memory, a
        # wider window or a restored log still holds it.
        nearest = max(number, tile[newest] - late_tiles) if newest >= 0 else number
        write = 0
        if reads and before:
            write = _read(0, before, newest, number, nearest, row, time_ms, plan, pool, folded, run, write, out[i])
        if updates:
            cell, is_new = find_or_insert(slot, number, head, older, owner, tile, free, free_count)
            if is_new:
                init_irs(irs[cell], plan)
            update_irs(irs[cell], row, time_ms, plan)
            if head[slot] != newest and newest >= 0:
                drop_behind(slot, number - kept, head, older, owner, tile, free, free_count)
            touched[i] = cell
            newest = head[slot]
        if reads and before < windows:
            _read(before, windows, newest, number, nearest, row, time_ms, plan, pool, folded, run, write, out[i])


@inlined
def _fetch(at: int, slots: I64, pool: Pool, cells: I64, folded: F64) -> None:
    """Before every AHEAD-th event bring the newest cells of the next keys into the processor's cache.

    Event by event each cell is waited for in turn; here the waits of many events overlap. `cells`, `folded`: scratch.
    """
    if at % AHEAD != 0:
        return
    for i in range(slots.size):
        cells[i] = pool.head[slots[i]] if slots[i] >= 0 else -1
    seen = 0.0
    found, depth = slots.size, 0
    while found > 0 and depth < DEEP:
        found, depth = 0, depth + 1
        for i in range(slots.size):
            cell = cells[i]
            if cell >= 0:
                seen += pool.tile[cell] + pool.irs[cell, 0]
                cells[i] = pool.older[cell]
                found += 1
    folded[0] = seen  # what is read must go somewhere, or the compiler leaves the reads out


@inlined
def _read(
    first: int,
    end: int,
    newest: int,
    number: int,
    nearest: int,
    row: F64,
    time_ms: int,
    plan: Plan,
    pool: Pool,
    folded: F64,
    run: I64,
    write: int,
    out: F64,
) -> int:
    """Fold and write windows `first` .. `end` of an event; windows of one skip share their way, each adds its tail."""
    tile, older, irs = pool.tile, pool.older, pool.irs
    cell = newest
    for window in range(first, end):
        newest_read = number - plan.windows[1, window]
        oldest = nearest - plan.windows[2, window]
        if window == first or plan.windows[1, window] != plan.windows[1, window - 1]:
            cell = newest
            while cell >= 0 and tile[cell] > newest_read:
                cell = older[cell]
            if cell >= 0 and tile[cell] >= oldest:
                for j in range(folded.size):
                    folded[j] = irs[cell, j]
                cell = older[cell]
            else:
                init_irs(folded, plan)
        count = 0
        while cell >= 0 and tile[cell] >= oldest:
            run[count] = cell
            count += 1
            cell = older[cell]
        if count > 0:
            for k in range(plan.opcodes.size):
                start, stop = plan.offsets[k], plan.offsets[k + 1]
                into = folded[start:stop]
                dispatch.merge_run(
                    plan.opcodes[k], into, irs, run, count, start, stop, plan.params, plan.param_offsets[k]
                )
        write = write_window(window, write, folded, row, time_ms, plan, out)
    return write
