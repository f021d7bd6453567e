"""Admission: late or not, on the key's own timeline, and the rebirth of keys that were idle beyond the horizon.

Sequential: the answer for a row depends on the rows before it, never on where the batch was cut.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import inlined, kernel
from udfs.core.kernels.arrays import UPDATES

NEVER = np.iinfo(np.int64).min  #: clock value of a key or lane that has seen nothing
#: status of a row: key is null, admitted, behind the allowed lateness, reads a key that is unknown or forgotten
SKIPPED, OK, LATE, EMPTY = 0, 1, 2, 3
NULL_KEY, UNKNOWN_KEY = -1, -2  #: slots of rows without one


@inlined
def advanced(clock_ms: int, time_ms: int, horizon_ms: int) -> int:
    """Return a lane's clock after a row that updates.

    One event from far ahead must not age all other keys at once: it moves the clock by half a horizon at most.
    """
    ahead_ms = time_ms if clock_ms == NEVER else min(time_ms, clock_ms + horizon_ms // 2)
    return max(clock_ms, ahead_ms)


@kernel
def admit(
    slots: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    seqs: NDArray[np.int64],
    flags: NDArray[np.int8],
    newest_ms: NDArray[np.int64],
    born_seq: NDArray[np.int64],
    lane_clock_ms: int,
    lateness_ms: int,
    horizon_ms: int,
    status: NDArray[np.int8],
    reborn: NDArray[np.bool_],
    behind_ms: NDArray[np.int64],
) -> int:
    """Judge each row; those that update advance the clocks.

    Parameters
    ----------
    slots : int64[n], slot of each row's key, NULL_KEY or UNKNOWN_KEY
    times_ms, seqs : int64[n], event times and sequence numbers
    flags : int8[n], UPDATES, READS or both
    newest_ms : int64[slots], newest event time per key, NEVER for a new one; updated
    born_seq : int64[slots], sequence number at which the key's present life began; updated
    lane_clock_ms : newest event time of the lane before this batch
    lateness_ms, horizon_ms : allowed lateness; idle time after which a key is forgotten
    status : int8[n], out: SKIPPED, OK, LATE or EMPTY
    reborn : bool[n], out: the key's earlier cells must be dropped before this row
    behind_ms : int64[n], out: how far a late row is behind the newest of its key; 0 for the others

    Returns
    -------
    The lane clock after the batch.
    """
    for i in range(slots.size):
        reborn[i] = False
        behind_ms[i] = 0
        slot = slots[i]
        if slot < 0:
            status[i] = SKIPPED if slot == NULL_KEY else EMPTY
            continue
        time_ms = times_ms[i]
        newest = newest_ms[slot]
        is_new = newest == NEVER or lane_clock_ms - newest > horizon_ms
        if not flags[i] & UPDATES:
            status[i] = EMPTY if is_new else OK
            continue
        if is_new:
            reborn[i] = True
            born_seq[slot] = seqs[i]
            newest_ms[slot] = time_ms
            status[i] = OK
        elif time_ms < newest - lateness_ms:
            status[i] = LATE
            behind_ms[i] = newest - time_ms
        else:
            newest_ms[slot] = max(newest, time_ms)
            status[i] = OK
        lane_clock_ms = advanced(lane_clock_ms, time_ms, horizon_ms)
    return lane_clock_ms
