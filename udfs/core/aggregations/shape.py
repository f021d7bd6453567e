"""skew, kurtosis: bias-corrected, as pandas and DuckDB give them. Rounded as float64.

IR: [n, mean, m2, m3, m4], the last three sums of powers of the distances from the mean.

Update and merge: Pebay, "Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order
Statistical Moments", Sandia report SAND2008-6212, 2008; an update is the merge of one value.
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
def _combine(ir: Floats, n: float, mean: float, m2: float, m3: float, m4: float) -> None:
    total = ir[0] + n
    d = mean - ir[1]
    share = n / total
    own = ir[0] / total
    cross = d * d * (ir[0] * share)
    ir[4] += m4 + cross * d * d * (own * own - own * share + share * share) + 6.0 * d * d * (
        own * own * m2 + share * share * ir[2]
    ) + 4.0 * d * (own * m3 - share * ir[3])  # fmt: skip
    ir[3] += m3 + cross * d * (own - share) + 3.0 * d * (own * m2 - share * ir[2])
    ir[2] += m2 + cross
    ir[1] += d * share
    ir[0] = total


@kernel
def update(ir: Floats, value: float, _other: float, _time_ms: int, _params: Floats, _at: int) -> None:
    """Add one value."""
    _combine(ir, 1.0, value, 0.0, 0.0, 0.0)


@kernel
def merge(ir: Floats, older: Floats, _params: Floats, _at: int) -> None:
    """Add an older IR."""
    if older[0] > 0.0:
        _combine(ir, older[0], older[1], older[2], older[3], older[4])


@kernel
def skew(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the adjusted Fisher-Pearson skewness G1; NaN below three values and where all are equal."""
    n, m2 = ir[0], ir[2]
    if n > 2 and m2 > 0:
        return float(np.sqrt(n * (n - 1.0)) / (n - 2.0) * np.sqrt(n) * ir[3] / (m2 * np.sqrt(m2)))
    return np.nan


@kernel
def kurtosis(ir: Floats, _params: Floats, _at: int, _part: int, _value: float, _now_ms: int, _size_ms: int) -> float:
    """Return the bias-corrected excess kurtosis G2; NaN below four values and where all are equal."""
    n, m2 = ir[0], ir[2]
    if n > 3 and m2 > 0:
        return float(((n + 1.0) * (n * ir[4] / (m2 * m2)) - 3.0 * (n - 1.0)) * (n - 1.0) / ((n - 2.0) * (n - 3.0)))
    return np.nan
