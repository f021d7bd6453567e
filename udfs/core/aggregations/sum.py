"""sum: sum of non-null values. IR: [n, sum]."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Ir = NDArray[np.float64]


@kernel
def init(ir: Ir) -> None:
    """Make the IR empty."""
    ir[0] = 0.0
    ir[1] = 0.0


@kernel
def update(ir: Ir, value: float) -> None:
    """Add one value."""
    ir[0] += 1.0
    ir[1] += value


@kernel
def merge(ir: Ir, other: Ir) -> None:
    """Add an older IR."""
    ir[0] += other[0]
    ir[1] += other[1]


@kernel
def finalize(ir: Ir) -> float:
    """Return the sum, NaN for an empty IR."""
    return float(ir[1]) if ir[0] > 0.0 else np.nan
