"""Cells of a track: find, insert and drop the tiles of a key; see `arrays.Pool`."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import inlined, kernel
from udfs.core.kernels.arrays import Pool

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


@inlined
def find_or_insert(
    slot: int, number: int, head: I64, older: I64, owner: I64, tile: I64, free: I64, free_count: I64
) -> tuple[int, bool]:
    """Return the cell of tile `number` of a key, and whether it is new. The pool must have a free row."""
    newer, cell = -1, head[slot]
    while cell >= 0 and tile[cell] > number:
        newer, cell = cell, older[cell]
    is_new = cell < 0 or tile[cell] != number
    if is_new:
        free_count[0] -= 1
        made = free[free_count[0]]
        owner[made] = slot
        tile[made] = number
        older[made] = cell
        if newer < 0:
            head[slot] = made
        else:
            older[newer] = made
        cell = made
    return cell, is_new


@inlined
def drop_behind(
    slot: int, oldest: int, head: I64, older: I64, owner: I64, tile: I64, free: I64, free_count: I64
) -> None:
    """Give back the cells of a key with a tile number below `oldest`; its newest cell always stays."""
    kept = head[slot]
    while older[kept] >= 0 and tile[older[kept]] >= oldest:
        kept = older[kept]
    if older[kept] >= 0:
        drop_from(older[kept], older, owner, free, free_count)
        older[kept] = -1


@kernel
def put_tile(slot: int, number: int, kept: int, pool: Pool) -> tuple[int, bool]:
    """Return the cell of a tile and whether it is new; tiles more than `kept` behind a new newest one are dropped."""
    head, older, owner, tile, _, free, free_count = pool
    before = head[slot]
    cell, is_new = find_or_insert(slot, number, head, older, owner, tile, free, free_count)
    if head[slot] != before and before >= 0:
        drop_behind(slot, number - kept, head, older, owner, tile, free, free_count)
    return cell, is_new


@kernel
def cells_between(cell: int, oldest: int, newest: int, run: I64, pool: Pool) -> int:
    """Write the cells of a key with tile numbers from `oldest` to `newest` into `run`, newest first; return how many.

    `cell` is the newest of the key, -1 for none.
    """
    tile, older = pool.tile, pool.older
    count = 0
    while cell >= 0 and tile[cell] >= oldest:
        if tile[cell] <= newest:
            run[count] = cell
            count += 1
        cell = older[cell]
    return count


@kernel
def drop_keys(slots: I64, pool: Pool) -> None:
    """Give back all cells of the given keys."""
    for slot in slots:
        drop_from(pool.head[slot], pool.older, pool.owner, pool.free, pool.free_count)
        pool.head[slot] = -1


@kernel
def restore_cells(slots: I64, tiles: I64, rows: F64, pool: Pool) -> I64:
    """Put stored cells back: row i of `rows` is the IRs of tile `tiles[i]` of key `slots[i]`; a later one replaces.

    Returns
    -------
    int64[n], the cell of each.
    """
    head, older, owner, tile, irs, free, free_count = pool
    cells = np.empty(slots.size, np.int64)
    for i in range(slots.size):
        cell, _ = find_or_insert(slots[i], tiles[i], head, older, owner, tile, free, free_count)
        irs[cell] = rows[i]
        cells[i] = cell
    return cells
