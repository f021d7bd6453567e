"""count: number of non-null values, or of events. IR: [n]. Exact."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Floats = NDArray[np.float64]


@kernel
def init(ir: Floats, _params: Floats, _at: int) -> None:
    """Make the IR empty."""
    ir[0] = 0.0


@kernel
def update(ir: Floats, _value: float, _other: float, _time_ms: int, _params: Floats, _at: int) -> None:
    """Add one value."""
    ir[0] += 1.0


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR."""
    ir[0] += older[0]


@kernel
def count(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the count, 0 for an empty IR."""
    return float(ir[0])
