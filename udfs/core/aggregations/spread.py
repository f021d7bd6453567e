"""variance, std: of the sample (n - 1). Rounded as float64. IR: [n, sum, m2], m2 the squared distances from the mean.

Update and merge: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
1979, equation 2.1; in sums, so that no division waits for the one before.
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
    ir[2] = 0.0


@kernel
def _combine(ir: Floats, n: float, total: float, m2: float) -> None:
    if ir[0] > 0.0:
        distance = total * ir[0] - ir[1] * n
        ir[2] += m2 + distance * distance / (n * ir[0] * (n + ir[0]))
    else:
        ir[2] = m2
    ir[0] += n
    ir[1] += total


@kernel
def update(ir: Floats, value: float, _other: float, _time_ms: int, _params: Floats, _at: int) -> None:
    """Add one value."""
    _combine(ir, 1.0, value, 0.0)


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR."""
    if older[0] > 0.0:
        _combine(ir, older[0], older[1], older[2])


@kernel
def variance(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the sample variance, NaN below two values."""
    return float(ir[2] / (ir[0] - 1.0) if ir[0] > 1.0 else np.nan)


@kernel
def std(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the sample standard deviation, NaN below two values."""
    return float(np.sqrt(ir[2] / (ir[0] - 1.0)) if ir[0] > 1.0 else np.nan)
