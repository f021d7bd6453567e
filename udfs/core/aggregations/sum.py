"""sum: sum of non-null values. IR as of `mean`: [n, sum]."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.aggregations.mean import init, merge, update
from udfs.core.jit import kernel

__all__ = ["finalize", "init", "merge", "update"]


@kernel
def finalize(ir: NDArray[np.float64]) -> float:
    """Return the sum, NaN for an empty IR."""
    return float(ir[1]) if ir[0] > 0.0 else np.nan
