"""sum, mean: of non-null values. IR: [n, sum]. Rounded as float64 addition, newest tile first."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Floats = NDArray[np.float64]


@kernel
def init(ir: Floats, _params: Floats, _at: int) -> None:
    """Make the IR empty."""
    ir[0] = 0.0
    ir[1] = 0.0


@kernel
def update(ir: Floats, value: float, _other: float, _time_ms: int, _params: Floats, _at: int) -> None:
    """Add one value."""
    ir[0] += 1.0
    ir[1] += value


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR."""
    ir[0] += older[0]
    ir[1] += older[1]


@kernel
def total(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the sum, NaN for an empty IR."""
    return float(ir[1] if ir[0] > 0.0 else np.nan)


@kernel
def mean(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the mean, NaN for an empty IR."""
    return float(ir[1] / ir[0] if ir[0] > 0.0 else np.nan)
