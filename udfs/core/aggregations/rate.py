"""rate: values per unit of time of the window; without a fixed size, of the time since the first value. Exact count.

IR: [n, time of the first value]. Parameter: the unit in ms.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Floats = NDArray[np.float64]


@kernel
def init(ir: Floats, _params: Floats, _at: int) -> None:
    """Make the IR empty."""
    ir[0] = 0.0
    ir[1] = np.nan


@kernel
def update(ir: Floats, _value: float, _other: float, time_ms: int, _params: Floats, _at: int) -> None:
    """Add one value."""
    ir[0] += 1.0
    if not ir[1] <= time_ms:
        ir[1] = time_ms


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR."""
    ir[0] += older[0]
    if older[1] < ir[1] or np.isnan(ir[1]):
        ir[1] = older[1]


@kernel
def rate(ir: Floats, params: Floats, at: int, _part: int, _value: float, now_ms: int, size_ms: int) -> float:
    """Return the rate: 0 for an empty IR of a sized window, NaN where no time has passed since the first value."""
    length_ms = float(size_ms) if size_ms > 0 else now_ms - ir[1]
    return float(ir[0] * params[at] / length_ms if length_ms > 0.0 else np.nan)
