"""last, last_n, lag, delta, time_since_last: by event time; of equal times the later arrival is last. Exact.

IR: [time, value] x n, newest first, NaN while empty. Parameter: n.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.aggregations.ordered import insert
from udfs.core.jit import kernel

Floats = NDArray[np.float64]


@kernel
def init(ir: Floats, _params: Floats, _at: int) -> None:
    """Make the IR empty."""
    ir[:] = np.nan


@kernel
def update(ir: Floats, value: float, _other: float, time_ms: int, _params: Floats, _at: int) -> None:
    """Add one value."""
    for at in range(0, ir.size, 2):
        if np.isnan(ir[at]) or time_ms >= ir[at]:
            insert(ir, at, float(time_ms), value)
            return


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR: of equal times its values come last."""
    at = 0
    for i in range(0, older.size, 2):
        if np.isnan(older[i]):
            return
        while at < ir.size and ir[at] >= older[i]:
            at += 2
        if at == ir.size:
            return
        insert(ir, at, older[i], older[i + 1])
        at += 2


@kernel
def last_n(ir: Floats, _params: Floats, _at: int, part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the last values, newest first, NaN where there are fewer."""
    return float(ir[2 * part + 1])


@kernel
def lag(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the n-th last value, NaN where there are fewer."""
    return float(ir[ir.size - 1])


@kernel
def delta(ir: Floats, _params: Floats, _at: int, _part: int, value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the event's own value minus the n-th last one, NaN where either is missing."""
    return float(value - ir[ir.size - 1])


@kernel
def time_since_last(
    ir: Floats, _params: Floats, _at: int, _part: int, _value: float, now_ms: int, _size_ms: int
) -> float:
    """Return the milliseconds since the last value, NaN for an empty IR."""
    return float(now_ms - ir[0])
