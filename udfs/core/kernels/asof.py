"""As-of join: keep the rows of another stream per key, and find the latest at or before an event.

Rows live in the same cells as window tiles: a row's event time in ms is the tile number and its values are the IR. A
later arrival with the same time replaces the earlier one.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel
from udfs.core.kernels.admit import OK
from udfs.core.kernels.cells import drop_behind, drop_from, find_or_insert

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Flags = NDArray[np.bool_]


@kernel
def keep_rows(
    slots: I64,
    times_ms: I64,
    values: F64,
    status: NDArray[np.int8],
    reborn: Flags,
    keep_ms: int,
    head: I64,
    older: I64,
    owner: I64,
    tile: I64,
    irs: F64,
    free: I64,
    free_count: I64,
    touched: I64,
) -> None:
    """Store a batch of rows: `values` is float64[columns, n], NaN for null; the rest as in `fold_windows`."""
    no_ir = np.empty(0, np.int64)
    for i in range(slots.size):
        if status[i] != OK:
            touched[i] = -1
            continue
        slot = slots[i]
        if reborn[i]:
            drop_from(head[slot], older, owner, free, free_count)
            head[slot] = -1
        before = head[slot]
        cell = find_or_insert(slot, times_ms[i], head, older, owner, tile, irs, free, free_count, no_ir, no_ir)
        touched[i] = cell
        irs[cell] = values[:, i]
        if head[slot] != before and before >= 0:
            drop_behind(slot, times_ms[i] - keep_ms, head, older, owner, tile, free, free_count)


@kernel
def latest_rows(
    slots: I64,
    times_ms: I64,
    max_age_ms: int,
    keep_ms: int,
    forgotten_before_ms: int,
    head: I64,
    older: I64,
    tile: I64,
    irs: F64,
    out: F64,
) -> None:
    """Write into `out`, float64[columns, n], the latest row at or before each event; NaN where none is.

    Rows behind the kept history and keys beyond the horizon count as gone even where memory still holds them: when
    they are freed depends on where batches were cut, and a restored log may bring them back.
    """
    for i in range(slots.size):
        out[:, i] = np.nan
        if slots[i] < 0:
            continue
        cell = head[slots[i]]
        if cell < 0 or tile[cell] < forgotten_before_ms:
            continue
        oldest_ms = max(tile[cell] - keep_ms, times_ms[i] - max_age_ms)
        while cell >= 0 and tile[cell] > times_ms[i]:
            cell = older[cell]
        if cell >= 0 and tile[cell] >= oldest_ms:
            out[:, i] = irs[cell]
