"""Cells of a track: per key a list of tiles, newest first, kept in one pool of rows.

A cell is a row of the pool: `owner[c]` the slot of its key (-1 while unused), `tile[c]` its tile number, `older[c]` the
next older cell of the same key (-1 at the end), `irs[c]` its partial aggregates side by side. `head[slot]` is the
newest cell of a key (-1 for none). `free` is a stack of unused rows whose height is `free_count[0]`.
"""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel
from udfs.core.kernels import dispatch

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@kernel
def drop_from(cell: int, older: I64, owner: I64, free: I64, free_count: I64) -> None:
    """Give back `cell` and all older cells of its key."""
    while cell >= 0:
        free[free_count[0]] = cell
        free_count[0] += 1
        owner[cell] = -1
        cell = older[cell]


@kernel
def find_or_insert(
    slot: int,
    number: int,
    head: I64,
    older: I64,
    owner: I64,
    tile: I64,
    irs: F64,
    free: I64,
    free_count: I64,
    opcodes: I64,
    offsets: I64,
) -> int:
    """Return the cell of tile `number` of a key, made empty if it is new. The pool must have a free row."""
    newer, cell = -1, head[slot]
    while cell >= 0 and tile[cell] > number:
        newer, cell = cell, older[cell]
    if cell >= 0 and tile[cell] == number:
        return int(cell)
    free_count[0] -= 1
    made = free[free_count[0]]
    owner[made] = slot
    tile[made] = number
    older[made] = cell
    if newer < 0:
        head[slot] = made
    else:
        older[newer] = made
    for k in range(opcodes.size):
        dispatch.init(opcodes[k], irs[made, offsets[k] : offsets[k + 1]])
    return int(made)


@kernel
def drop_behind(
    slot: int, oldest: int, head: I64, older: I64, owner: I64, tile: I64, free: I64, free_count: I64
) -> None:
    """Give back the cells of a key with a tile number below `oldest`; its newest cell always stays."""
    cell = head[slot]
    while older[cell] >= 0 and tile[older[cell]] >= oldest:
        cell = older[cell]
    drop_from(older[cell], older, owner, free, free_count)
    older[cell] = -1


@kernel
def drop_keys(slots: I64, head: I64, older: I64, owner: I64, free: I64, free_count: I64) -> None:
    """Give back all cells of the given keys."""
    for slot in slots:
        drop_from(head[slot], older, owner, free, free_count)
        head[slot] = -1


@kernel
def restore_cells(
    slots: I64,
    tiles: I64,
    rows: F64,
    head: I64,
    older: I64,
    owner: I64,
    tile: I64,
    irs: F64,
    free: I64,
    free_count: I64,
) -> None:
    """Put stored cells back: row i of `rows` is the IRs of tile `tiles[i]` of key `slots[i]`; a later one replaces."""
    no_ir = np.empty(0, np.int64)
    for i in range(slots.size):
        cell = find_or_insert(slots[i], tiles[i], head, older, owner, tile, irs, free, free_count, no_ir, no_ir)
        irs[cell] = rows[i]
