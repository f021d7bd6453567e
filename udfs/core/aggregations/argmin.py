"""argmin: the value where another column is smallest; of several the latest by event time. Exact.

IR: [smallest of the other column, value there, its time], NaN while empty.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Floats = NDArray[np.float64]


@kernel
def init(ir: Floats, _params: Floats, _at: int) -> None:
    """Make the IR empty."""
    ir[:] = np.nan


@kernel
def update(ir: Floats, value: float, other: float, time_ms: int, _params: Floats, _at: int) -> None:
    """Add one value with its `other`; a null one does not count."""
    if other < ir[0] or (other == ir[0] and time_ms >= ir[2]) or (np.isnan(ir[0]) and not np.isnan(other)):
        ir[0] = other
        ir[1] = value
        ir[2] = time_ms


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR."""
    if older[0] < ir[0] or (older[0] == ir[0] and older[2] > ir[2]) or np.isnan(ir[0]):
        for j in range(3):
            ir[j] = older[j]


@kernel
def value_there(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the value, NaN for an empty IR."""
    return float(ir[1])
