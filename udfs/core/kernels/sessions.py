"""Sessions, event by event: find the session of the event, join two that it closes the gap between, add it.

A cell is one session: its tile number is the time of the event that made it, and its first two values are the times of
its first and last event. A session that was joined into a newer one stays in the list as a dead cell (its start is
infinite), so that the durable log learns of it, and leaves with its neighbours.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel
from udfs.core.kernels import dispatch
from udfs.core.kernels.admit import OK, SKIPPED
from udfs.core.kernels.arrays import READS, UPDATES, Events, Plan, Pool
from udfs.core.kernels.cells import drop_from, find_or_insert
from udfs.core.kernels.fold import init_irs, update_irs, write_window

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
START, END = 0, 1


@kernel
def fold_sessions(  # noqa: C901, PLR0912, PLR0915  numba inlines what is split off only at a cost
    events: Events,
    gap_ms: int,
    opens: NDArray[np.bool_],
    lateness_ms: int,
    plan: Plan,
    pool: Pool,
    touched: I64,
    out: F64,
) -> None:
    """Update the sessions of one track with a batch and write its features.

    Parameters
    ----------
    gap_ms : longest time between two events of a session; of one that a condition starts, too
    opens : bool[n], rows that start a session; bool[0]: sessions end by their gap alone
    touched : int64[2 n], out: the cell each row went to and the one that it made dead, -1 for none

    The others are as in `fold_tiles`.
    """
    slots, times_ms, values, flags, statuses, reborn = events
    windows, opcodes, _, offsets, params, param_offsets, _ = plan
    head, older, owner, tile, irs, free, free_count = pool
    count = slots.size
    folded = np.empty(offsets[-1], np.float64)
    for i in range(count):
        touched[i] = -1
        touched[count + i] = -1
        updates, reads, status = flags[i] & UPDATES, flags[i] & READS, statuses[i]
        if reads:
            out[i] = np.nan
        if status == SKIPPED or (status != OK and updates):
            continue
        slot, time_ms = slots[i], times_ms[i]
        if reborn[i]:
            drop_from(head[slot], older, owner, free, free_count)
            head[slot] = -1
        cell, joined = -1, -1
        if status == OK and opens.size > 0:
            cell = _session_since(head[slot], time_ms, opens[i], gap_ms, lateness_ms, older, tile, irs)
        elif status == OK:
            cell, joined = _sessions_near(head[slot], time_ms, gap_ms, lateness_ms, older, irs)
        if cell < 0:
            init_irs(folded, plan)
            folded[START], folded[END] = time_ms, time_ms
        else:
            folded[:] = irs[cell]
        if joined >= 0:
            for k in range(opcodes.size):
                start, end = offsets[k], offsets[k + 1]
                dispatch.merge(opcodes[k], folded[start:end], irs[joined, start:end], params, param_offsets[k])
            folded[START] = irs[joined, START]
        is_waiting = updates != 0
        write = 0
        for window in range(windows.shape[1] + 1):
            is_end = window == windows.shape[1]
            if is_waiting and (is_end or windows[0, window]):
                update_irs(folded, values[i], time_ms, plan)
                folded[START] = min(folded[START], time_ms)
                folded[END] = max(folded[END], time_ms)
                is_waiting = False
            if reads and not is_end:
                write = write_window(window, write, folded, values[i], time_ms, plan, out[i])
        if updates:
            if cell < 0:
                cell, _ = find_or_insert(slot, time_ms, head, older, owner, tile, free, free_count)
            irs[cell] = folded
            if joined >= 0:
                irs[joined, START] = np.inf
            touched[i], touched[count + i] = cell, joined
            if cell == head[slot]:
                last = _last_open(cell, gap_ms, lateness_ms, opens.size > 0, older, tile, irs)
                drop_from(older[last], older, owner, free, free_count)
                older[last] = -1


@kernel
def _sessions_near(cell: int, time_ms: int, gap_ms: int, lateness_ms: int, older: I64, irs: F64) -> tuple[int, int]:
    """Return the newer and the older live session within the gap of a time, -1 for none."""
    newer, joined = -1, -1
    gone_ms = irs[cell, END] - lateness_ms - gap_ms if cell >= 0 else 0.0
    while cell >= 0:
        start_ms, end_ms = irs[cell, START], irs[cell, END]
        if not np.isinf(start_ms):
            if end_ms + gap_ms < time_ms or end_ms < gone_ms:
                break
            if start_ms - gap_ms <= time_ms:
                if newer >= 0:
                    joined = cell
                    break
                newer = cell
        cell = older[cell]
    return newer, joined


@kernel
def _session_since(
    cell: int, time_ms: int, opens: bool, gap_ms: int, lateness_ms: int, older: I64, tile: I64, irs: F64
) -> int:
    """Return the newest session that started at or before a time, -1 for none or if this event starts its own."""
    if cell >= 0 and time_ms < irs[cell, END] - lateness_ms:
        return -1  # read from afar: what was then may be forgotten
    while cell >= 0 and tile[cell] > time_ms:
        cell = older[cell]
    if cell < 0 or (opens and tile[cell] < time_ms) or time_ms - irs[cell, END] > gap_ms:
        return -1
    return cell


@kernel
def _last_open(
    last: int,
    gap_ms: int,
    lateness_ms: int,
    by_condition: bool,
    older: I64,
    tile: I64,
    irs: F64,
) -> int:
    """Return the oldest session that an event within the allowed lateness can belong to; `last` is the newest."""
    oldest_ms = irs[last, END] - lateness_ms
    cell = older[last]
    while cell >= 0:
        if by_condition and tile[last] <= oldest_ms:
            break
        if not by_condition and irs[cell, START] < np.inf and irs[cell, END] < oldest_ms - gap_ms:
            break
        last, cell = cell, older[cell]
    return last
