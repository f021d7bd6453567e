"""Windowed features of a batch, event by event: add the event to its tile, fold the tiles of each window.

A sawtooth window of size n tiles at an event in tile j folds tiles j - n .. j: the newest first, then ever older ones,
so that the value is one fixed sequence of merges, whatever the batch. Nothing is ever subtracted.
The paned form is Li et al., "No Pane, No Gain", SIGMOD Record 34(1), 2005.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel
from udfs.core.kernels import dispatch
from udfs.core.kernels.admit import OK
from udfs.core.kernels.cells import drop_behind, drop_from, find_or_insert

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Flags = NDArray[np.bool_]


@kernel
def fold_windows(  # noqa: C901  numba inlines what is split off only at a cost
    slots: I64,
    times_ms: I64,
    values: F64,
    status: NDArray[np.int8],
    reborn: Flags,
    slide_ms: int,
    lateness_ms: int,
    opcodes: I64,
    inputs: I64,
    offsets: I64,
    sizes: I64,
    feature_window: I64,
    feature_ir: I64,
    head: I64,
    older: I64,
    owner: I64,
    tile: I64,
    irs: F64,
    free: I64,
    free_count: I64,
    touched: I64,
    out: F64,
) -> None:
    """Update the cells of one track with a batch and write its features.

    Parameters
    ----------
    slots, times_ms, status, reborn : per row, as `admit` left them
    values : float64[columns, n], the aggregated columns; NaN for null
    slide_ms : width of a tile; lateness_ms : allowed lateness
    opcodes, inputs : int64[k], per IR its aggregation and its row in `values` (-1: counts events)
    offsets : int64[k + 1], where each IR lies in a cell
    sizes : int64[w], window sizes in tiles, ascending
    feature_window, feature_ir : int64[f], per feature its window and its IR, ordered by window
    head, older, owner, tile, irs, free, free_count : the cells, see `kernels.cells`; updated
    touched : int64[n], out: the cell each row went to, -1 for none
    out : float64[f, n], the features; NaN for null and for what overflowed float64
    """
    folded = np.empty(offsets[-1], np.float64)
    run = np.empty(sizes[-1] + 1, np.int64)
    longest = sizes[-1] + lateness_ms // slide_ms + 1
    for i in range(slots.size):
        if status[i] != OK:
            out[:, i] = np.nan
            touched[i] = -1
            continue
        slot = slots[i]
        if reborn[i]:
            drop_from(head[slot], older, owner, free, free_count)
            head[slot] = -1
        number = times_ms[i] // slide_ms
        before = head[slot]
        cell = find_or_insert(slot, number, head, older, owner, tile, irs, free, free_count, opcodes, offsets)
        touched[i] = cell
        for k in range(opcodes.size):
            value = 0.0 if inputs[k] < 0 else values[inputs[k], i]
            if not np.isnan(value):
                dispatch.update(opcodes[k], irs[cell, offsets[k] : offsets[k + 1]], value)
        if head[slot] != before and before >= 0:
            drop_behind(slot, number - longest, head, older, owner, tile, free, free_count)

        folded[:] = irs[cell]
        cell = older[cell]
        feature = 0
        for window in range(sizes.size):
            count = 0
            while cell >= 0 and tile[cell] >= number - sizes[window]:
                run[count] = cell
                count += 1
                cell = older[cell]
            for k in range(opcodes.size):
                dispatch.merge_run(opcodes[k], folded, irs, run, count, offsets[k], offsets[k + 1])
            while feature < feature_window.size and feature_window[feature] == window:
                k = feature_ir[feature]
                value = dispatch.finalize(opcodes[k], folded[offsets[k] : offsets[k + 1]])
                out[feature, i] = value if np.isfinite(value) else np.nan
                feature += 1
