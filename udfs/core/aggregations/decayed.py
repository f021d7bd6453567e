"""decayed_count, decayed_sum, decayed_mean: a value counts 2^(-age / half-life). Rounded as float64.

IR: [weight, weighted sum, time they are as of]. Parameter: half-life in ms. Forward decay: Cormode, Shkapenyuk,
Srivastava, Xu, "Forward Decay: A Practical Time Decay Model for Streaming Systems", ICDE 2009.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Floats = NDArray[np.float64]


@kernel
def init(ir: Floats, _params: Floats, _at: int) -> None:
    """Make the IR empty."""
    ir[0] = 0.0
    ir[1] = 0.0
    ir[2] = np.nan


@kernel
def _add(ir: Floats, weight: float, total: float, time_ms: float, half_life_ms: float) -> None:
    if np.isnan(ir[2]):
        ir[0], ir[1], ir[2] = weight, total, time_ms
    elif time_ms >= ir[2]:
        left = 2.0 ** ((ir[2] - time_ms) / half_life_ms)
        ir[0], ir[1], ir[2] = ir[0] * left + weight, ir[1] * left + total, time_ms
    else:
        left = 2.0 ** ((time_ms - ir[2]) / half_life_ms)
        ir[0] += weight * left
        ir[1] += total * left


@kernel
def update(ir: Floats, value: float, _other: float, time_ms: int, params: Floats, at: int) -> None:
    """Add one value."""
    _add(ir, 1.0, value, float(time_ms), params[at])


@kernel
def merge(ir: Floats, older: Floats, params: Floats, at: int) -> None:
    """Add an older IR."""
    if not np.isnan(older[2]):
        _add(ir, older[0], older[1], older[2], params[at])


@kernel
def _left(ir: Floats, params: Floats, at: int, now_ms: int) -> float:
    return float(2.0 ** (min(ir[2] - now_ms, 0.0) / params[at]))


@kernel
def decayed_count(ir: Floats, params: Floats, at: int, _part: int, _value: float, now_ms: int, _size_ms: int) -> float:
    """Return the decayed number of values, 0 for an empty IR."""
    return float(0.0 if np.isnan(ir[2]) else ir[0] * _left(ir, params, at, now_ms))


@kernel
def decayed_sum(ir: Floats, params: Floats, at: int, _part: int, _value: float, now_ms: int, _size_ms: int) -> float:
    """Return the decayed sum, NaN for an empty IR."""
    return float(np.nan if np.isnan(ir[2]) else ir[1] * _left(ir, params, at, now_ms))


@kernel
def decayed_mean(
    ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int
) -> float:
    """Return the mean by decayed weights, NaN for an empty IR."""
    return float(np.nan if np.isnan(ir[2]) else ir[1] / ir[0])
