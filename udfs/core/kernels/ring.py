"""The last n events, event by event: one cell per key holds the newest events by time, each window folds some of them.

A cell is [time, columns ...] for each event, newest first, NaN times behind the last; of equal times the later arrival
is newer. A window of n remembers the n newest events of the key, whatever other windows do: it takes those of them that
are not newer than the event, and the event itself as one of the n, and updates empty IRs with them, oldest first. So an
event that is late may find fewer. Events that `where` leaves out and those without a value are among the n, too.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel
from udfs.core.kernels.admit import OK, SKIPPED
from udfs.core.kernels.arrays import READS, UPDATES, Events, Plan, Pool
from udfs.core.kernels.cells import drop_from, find_or_insert
from udfs.core.kernels.fold import init_irs, update_irs, write_window

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@kernel
def fold_ring(  # noqa: C901  numba inlines what is split off only at a cost
    events: Events, plan: Plan, pool: Pool, touched: I64, out: F64
) -> None:
    """Update the rings of one track with a batch and write its features; parameters as in `fold_tiles`."""
    slots, times_ms, values, flags, statuses, reborn = events
    windows = plan.windows
    head, older, owner, tile, irs, free, free_count = pool
    folded = np.empty(plan.offsets[-1])
    step = 1 + values.shape[1]
    nothing = np.full(step, np.nan)
    for i in range(slots.size):
        touched[i] = -1
        updates, reads, status = flags[i] & UPDATES, flags[i] & READS, statuses[i]
        if reads:
            out[i] = np.nan
        if status == SKIPPED or (status != OK and updates):
            continue
        slot, time_ms = slots[i], times_ms[i]
        if reborn[i]:
            drop_from(head[slot], older, owner, free, free_count)
            head[slot] = -1
        ring = irs[head[slot]] if status == OK and head[slot] >= 0 else nothing
        first, write = 0, 0
        while first < ring.size and ring[first] > time_ms:
            first += step
        for window in range(windows.shape[1] if reads else 0):
            own = 1 if updates and windows[0, window] else 0
            end = min(windows[2, window] * step, ring.size)
            at = min(first + (windows[2, window] - own) * step, end) - step
            init_irs(folded, plan)
            while at >= first:
                if not np.isnan(ring[at]):
                    row = ring[at + 1 : at + step]
                    update_irs(folded, row, int(ring[at]), plan)
                at -= step
            if own:
                update_irs(folded, values[i], time_ms, plan)
            write = write_window(window, write, folded, values[i], time_ms, plan, out[i])
        if updates:
            cell, is_new = find_or_insert(slot, 0, head, older, owner, tile, free, free_count)
            if is_new:
                irs[cell] = np.nan
            _insert(irs[cell], time_ms, values[i])
            touched[i] = cell


@kernel
def _insert(ring: F64, time_ms: int, row: F64) -> None:
    """Put an event at its place; what is pushed over the end is forgotten."""
    step = 1 + row.size
    at = 0
    while at < ring.size and ring[at] > time_ms:
        at += step
    if at < ring.size:
        for j in range(ring.size - 1, at + step - 1, -1):
            ring[j] = ring[j - step]
        ring[at] = time_ms
        ring[at + 1 : at + step] = row
