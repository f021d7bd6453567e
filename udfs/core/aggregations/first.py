"""first, first_n, time_since_first: by event time; of equal times the earlier arrival is first. Exact.

IR: [time, value] x n, oldest first, NaN while empty. Parameter: n.
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
        if np.isnan(ir[at]) or time_ms < ir[at]:
            insert(ir, at, float(time_ms), value)
            return


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR: of equal times its values come first."""
    at = 0
    for i in range(0, older.size, 2):
        if np.isnan(older[i]):
            return
        while at < ir.size and ir[at] < older[i]:
            at += 2
        if at == ir.size:
            return
        insert(ir, at, older[i], older[i + 1])
        at += 2


@kernel
def first_n(ir: Floats, _params: Floats, _at: int, part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the first values, oldest first, NaN where there are fewer."""
    return float(ir[2 * part + 1])


@kernel
def time_since_first(
    ir: Floats, _params: Floats, _at: int, _part: int, _value: float, now_ms: int, _size_ms: int
) -> float:
    """Return the milliseconds since the first value, NaN for an empty IR."""
    return float(now_ms - ir[0])
