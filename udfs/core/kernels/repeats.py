"""Repeats: is an event the first of its id, or one that came before?

Sequential: the answer for a row depends on the rows before it, never on where the batch was cut. An id holds one cell,
whose time is that of its first event.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel
from udfs.core.kernels.admit import NEVER

FIRST, DUPLICATE, CONFLICT = 0, 1, 2  #: verdict on a row
FACTS = 3  #: what a cell says of the first event: digest, partition, offset

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@kernel
def judge_repeats(
    slots: I64,
    times_ms: I64,
    facts: F64,
    first_seq: int,
    newest_ms: I64,
    born_seq: I64,
    lane_clock_ms: int,
    horizon_ms: int,
    head: I64,
    older: I64,
    owner: I64,
    tile: I64,
    irs: F64,
    free: I64,
    free_count: I64,
    verdict: NDArray[np.int8],
    earlier: F64,
    touched: I64,
) -> int:
    """Judge each row and keep the firsts; a repeat changes nothing, neither its id's time nor the clock.

    Parameters
    ----------
    slots : int64[n], slot of each row's id
    times_ms : int64[n], event times
    facts : float64[n, FACTS], what is kept of a first event; column 0, its digest, tells a duplicate from a conflict
    first_seq : number of firsts before this batch
    newest_ms : int64[slots], event time of the first event of an id, NEVER for a new one; updated
    born_seq : int64[slots], number of that first event; updated
    lane_clock_ms : newest event time of the lane before this batch
    horizon_ms : how far the lane's clock may leave a first event behind before its id is forgotten
    head to free_count : the cells, see `kernels.cells`; the pool has a free cell per row
    verdict : int8[n], out: FIRST, DUPLICATE or CONFLICT
    earlier : float64[n, FACTS], out: for a repeat, the facts of the first
    touched : int64[n], out: the cell of a first, -1 for a repeat

    Returns
    -------
    The lane clock after the batch.
    """
    for i in range(slots.size):
        slot, time_ms = slots[i], times_ms[i]
        cell = head[slot]
        if newest_ms[slot] != NEVER and lane_clock_ms - newest_ms[slot] <= horizon_ms:
            verdict[i] = DUPLICATE if irs[cell, 0] == facts[i, 0] else CONFLICT
            earlier[i] = irs[cell]
            touched[i] = -1
            continue
        if cell < 0:
            free_count[0] -= 1
            cell = free[free_count[0]]
            owner[cell], older[cell], head[slot] = slot, -1, cell
        tile[cell] = time_ms
        irs[cell] = facts[i]
        newest_ms[slot] = time_ms
        born_seq[slot] = first_seq
        first_seq += 1
        verdict[i] = FIRST
        touched[i] = cell
        # As in `admit`: one event from far ahead must not age all ids at once.
        ahead_ms = time_ms if lane_clock_ms == NEVER else min(time_ms, lane_clock_ms + horizon_ms // 2)
        lane_clock_ms = max(lane_clock_ms, ahead_ms)
    return lane_clock_ms
