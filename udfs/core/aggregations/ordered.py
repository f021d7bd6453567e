"""What `first` and `last` share: a short list of [time, value] in an array."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

Floats = NDArray[np.float64]


@kernel
def insert(ir: Floats, at: int, time_ms: float, value: float) -> None:
    """Put a pair at index `at`; what is pushed over the end is forgotten."""
    for i in range(ir.size - 1, at + 1, -1):
        ir[i] = ir[i - 2]
    ir[at] = time_ms
    ir[at + 1] = value
