"""max: largest of the non-null values. IR: [max], NaN while empty. Exact."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Floats = NDArray[np.float64]


@kernel
def init(ir: Floats, _params: Floats, _at: int) -> None:
    """Make the IR empty."""
    ir[0] = np.nan


@kernel
def update(ir: Floats, value: float, _other: float, _time_ms: int, _params: Floats, _at: int) -> None:
    """Add one value."""
    if not ir[0] >= value:
        ir[0] = value


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR."""
    if older[0] > ir[0] or np.isnan(ir[0]):
        ir[0] = older[0]


@kernel
def largest(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the largest value, NaN for an empty IR."""
    return float(ir[0])
