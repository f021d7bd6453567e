"""As-of join: keep the rows of another stream per key, and find the latest at or before an event.

Rows live in the same cells as window tiles: a row's event time in ms is the tile number and its values are the IR. A
later arrival with the same time replaces the earlier one.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import inlined, kernel
from udfs.core.kernels.admit import OK
from udfs.core.kernels.arrays import UPDATES, Events, Pool
from udfs.core.kernels.cells import drop_behind, drop_from, find_or_insert

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
SLICES = 8
"""What is behind the kept history stays for up to this part of it longer."""


@inlined
def latest_row(slot: int, time_ms: int, max_age_ms: int, keep_ms: int, head: I64, older: I64, tile: I64) -> int:
    """Return the cell of a key's latest row at or before a time; -1 if there is none, or it is too old.

    Rows behind the kept history count as gone even where memory still holds them: when they are freed depends on where
    batches were cut.
    """
    cell = head[slot]
    oldest_ms = max(tile[cell] - keep_ms, time_ms - max_age_ms) if cell >= 0 else 0
    while cell >= 0 and tile[cell] > time_ms:
        cell = older[cell]
    return cell if cell >= 0 and tile[cell] >= oldest_ms else -1


@inlined
def place_row(
    slot: int,
    time_ms: int,
    is_reborn: bool,
    keep_ms: int,
    head: I64,
    older: I64,
    owner: I64,
    tile: I64,
    free: I64,
    free_count: I64,
) -> int:
    """Return the cell for a row of a key; what falls behind the kept history is dropped."""
    if is_reborn:
        drop_from(head[slot], older, owner, free, free_count)
        head[slot] = -1
    before = head[slot]
    cell, _ = find_or_insert(slot, time_ms, head, older, owner, tile, free, free_count)
    # A walk through all that is kept, so not for every row: until it comes, `latest_row` passes the rest over.
    slice_ms = keep_ms // SLICES + 1
    if head[slot] != before and before >= 0 and time_ms // slice_ms != tile[before] // slice_ms:
        drop_behind(slot, time_ms - keep_ms, head, older, owner, tile, free, free_count)
    return cell


@kernel
def join_latest(events: Events, max_age_ms: int, keep_ms: int, pool: Pool, touched: I64, out: F64) -> None:
    """Store the rows that update; write into `out`, float64[n, columns], the latest row for those that read.

    The rest is as in `fold_tiles`.
    """
    slots, times_ms, values, flags, statuses, reborn = events
    head, older, owner, tile, irs, free, free_count = pool
    for i in range(slots.size):
        touched[i] = -1
        slot, time_ms = slots[i], times_ms[i]
        if not flags[i] & UPDATES:
            out[i] = np.nan
            cell = -1
            if statuses[i] == OK:
                cell = latest_row(slot, time_ms, max_age_ms, keep_ms, head, older, tile)
            if cell >= 0:
                out[i] = irs[cell]
        elif statuses[i] == OK:
            cell = place_row(slot, time_ms, reborn[i], keep_ms, head, older, owner, tile, free, free_count)
            touched[i] = cell
            irs[cell] = values[i]
