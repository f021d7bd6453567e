"""What the window kernels share: update the IRs of a cell with an event, give features from folded IRs."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import inlined
from udfs.core.kernels import dispatch
from udfs.core.kernels.arrays import Plan

F64 = NDArray[np.float64]


@inlined
def init_irs(cell: F64, plan: Plan) -> None:
    """Make all IRs of a cell empty."""
    for k in range(plan.opcodes.size):
        ir = cell[plan.offsets[k] : plan.offsets[k + 1]]
        dispatch.init(plan.opcodes[k], ir, plan.params, plan.param_offsets[k])


@inlined
def update_irs(cell: F64, row: F64, time_ms: int, plan: Plan) -> None:
    """Update all IRs of a cell with one event: `row` is float64[columns], NaN for null."""
    for k in range(plan.opcodes.size):
        value = 1.0 if plan.inputs[0, k] < 0 else row[plan.inputs[0, k]]
        if not np.isnan(value):
            other = np.nan if plan.inputs[1, k] < 0 else row[plan.inputs[1, k]]
            ir = cell[plan.offsets[k] : plan.offsets[k + 1]]
            dispatch.update(plan.opcodes[k], ir, value, other, time_ms, plan.params, plan.param_offsets[k])


@inlined
def write_window(window: int, write: int, folded: F64, row: F64, time_ms: int, plan: Plan, out: F64) -> int:
    """Write the features of one window of an event into `out`, float64[f]; return the position behind its writes.

    NaN for null and for what overflowed float64.
    """
    writes = plan.writes
    while write < writes.shape[1] and writes[0, write] == window:
        k = writes[1, write]
        value = 1.0 if plan.inputs[0, k] < 0 else row[plan.inputs[0, k]]
        ir = folded[plan.offsets[k] : plan.offsets[k + 1]]
        size_ms = plan.windows[3, window]
        found = dispatch.finalize(
            writes[2, write], ir, plan.params, plan.param_offsets[k], writes[4, write], value, time_ms, size_ms
        )
        out[writes[3, write]] = found if np.isfinite(found) else np.nan
        write += 1
    return write
