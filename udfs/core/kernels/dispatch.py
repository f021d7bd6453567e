"""Aggregation functions by opcode: a chain of comparisons that numba inlines, so that one compiled kernel fits all."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.aggregations import count, mean, std
from udfs.core.aggregations import max as max_
from udfs.core.aggregations import min as min_
from udfs.core.aggregations import sum as sum_
from udfs.core.jit import kernel

Ir = NDArray[np.float64]
Ir2 = NDArray[np.float64]
Cells = NDArray[np.int64]


@kernel
def init(opcode: int, ir: Ir) -> None:
    """Make `ir` empty."""
    if opcode == 0:
        count.init(ir)
    elif opcode == 1:
        sum_.init(ir)
    elif opcode == 2:
        mean.init(ir)
    elif opcode == 3:
        min_.init(ir)
    elif opcode == 4:
        max_.init(ir)
    elif opcode == 5:
        std.init(ir)


@kernel
def update(opcode: int, ir: Ir, value: float) -> None:
    """Add one non-null value."""
    if opcode == 0:
        count.update(ir, value)
    elif opcode == 1:
        sum_.update(ir, value)
    elif opcode == 2:
        mean.update(ir, value)
    elif opcode == 3:
        min_.update(ir, value)
    elif opcode == 4:
        max_.update(ir, value)
    elif opcode == 5:
        std.update(ir, value)


@kernel
def merge(opcode: int, ir: Ir, other: Ir) -> None:
    """Add an older IR."""
    if opcode == 0:
        count.merge(ir, other)
    elif opcode == 1:
        sum_.merge(ir, other)
    elif opcode == 2:
        mean.merge(ir, other)
    elif opcode == 3:
        min_.merge(ir, other)
    elif opcode == 4:
        max_.merge(ir, other)
    elif opcode == 5:
        std.merge(ir, other)


@kernel
def merge_run(  # noqa: C901  one branch per aggregation
    opcode: int, folded: Ir, irs: Ir2, run: Cells, cells: int, start: int, end: int
) -> None:
    """Add to `folded[start:end]` the same part of the cells `run[:cells]`, in this order: newest first."""
    into = folded[start:end]
    if opcode == 0:
        for i in range(cells):
            count.merge(into, irs[run[i], start:end])
    elif opcode == 1:
        for i in range(cells):
            sum_.merge(into, irs[run[i], start:end])
    elif opcode == 2:
        for i in range(cells):
            mean.merge(into, irs[run[i], start:end])
    elif opcode == 3:
        for i in range(cells):
            min_.merge(into, irs[run[i], start:end])
    elif opcode == 4:
        for i in range(cells):
            max_.merge(into, irs[run[i], start:end])
    elif opcode == 5:
        for i in range(cells):
            std.merge(into, irs[run[i], start:end])


@kernel
def finalize(opcode: int, ir: Ir) -> float:  # noqa: PLR0911  one per aggregation
    """Return the feature value, NaN for null."""
    if opcode == 0:
        return count.finalize(ir)
    if opcode == 1:
        return sum_.finalize(ir)
    if opcode == 2:
        return mean.finalize(ir)
    if opcode == 3:
        return min_.finalize(ir)
    if opcode == 4:
        return max_.finalize(ir)
    if opcode == 5:
        return std.finalize(ir)
    return np.nan
