"""max: largest of the non-null values. IR: [max], NaN while empty."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Ir = NDArray[np.float64]


@kernel
def init(ir: Ir) -> None:
    """Make the IR empty."""
    ir[0] = np.nan


@kernel
def update(ir: Ir, value: float) -> None:
    """Add one value."""
    if np.isnan(ir[0]) or value > ir[0]:
        ir[0] = value


@kernel
def merge(ir: Ir, other: Ir) -> None:
    """Add an older IR."""
    if not np.isnan(other[0]):
        update(ir, other[0])


@kernel
def finalize(ir: Ir) -> float:
    """Return the largest value, NaN for an empty IR."""
    return float(ir[0])
