"""std: sample standard deviation (n - 1). IR: [n, mean, m2], m2 the sum of squared distances from the mean.

Update: Welford, "Note on a Method for Calculating Corrected Sums of Squares and Products", Technometrics 4(3), 1962.
Merge: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Ir = NDArray[np.float64]


@kernel
def init(ir: Ir) -> None:
    """Make the IR empty."""
    ir[0] = 0.0
    ir[1] = 0.0
    ir[2] = 0.0


@kernel
def update(ir: Ir, value: float) -> None:
    """Add one value."""
    ir[0] += 1.0
    distance = value - ir[1]
    ir[1] += distance / ir[0]
    ir[2] += distance * (value - ir[1])


@kernel
def merge(ir: Ir, other: Ir) -> None:
    """Add an older IR."""
    if other[0] == 0.0:
        return
    total = ir[0] + other[0]
    distance = other[1] - ir[1]
    ir[2] += other[2] + distance * distance * (ir[0] * other[0] / total)
    ir[1] += distance * (other[0] / total)
    ir[0] = total


@kernel
def finalize(ir: Ir) -> float:
    """Return the sample standard deviation, NaN below two values."""
    return float(np.sqrt(ir[2] / (ir[0] - 1.0))) if ir[0] > 1.0 else np.nan
