"""histogram: number of values below, between and from the last of given bounds. Exact.

IR: one count per bin. Parameters: the ascending bounds b; bin i holds b[i - 1] <= value < b[i].
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Floats = NDArray[np.float64]


@kernel
def init(ir: Floats, _params: Floats, _at: int) -> None:
    """Make the IR empty."""
    ir[:] = 0.0


@kernel
def update(ir: Floats, value: float, _other: float, _time_ms: int, params: Floats, at: int) -> None:
    """Add one value."""
    i = 0
    while i < ir.size - 1 and value >= params[at + i]:
        i += 1
    ir[i] += 1.0


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR."""
    for i in range(ir.size):
        ir[i] += older[i]


@kernel
def bins(ir: Floats, _params: Floats, _at: int, part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the counts."""
    return float(ir[part])
