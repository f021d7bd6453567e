"""Keyed cells: the state of one entity in one lane, held in NumPy arrays that the kernels walk.

A `KeyedCells` has a key index, a clock per key and one pool of cells per track. It knows nothing of how it is stored
(`log`) nor of what its cells mean beyond their layout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.kernels.admit import NEVER, NULL_KEY, UNKNOWN_KEY, admit
from udfs.core.kernels.arrays import Pool
from udfs.core.kernels.cells import drop_keys, restore_cells
from udfs.core.kernels.sessions import END
from udfs.core.rows.batches import objects

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
D = TypeVar("D", bound=np.generic)
INITIAL_CELLS, INITIAL_KEYS = 1024, 256
CELL_BYTES = 4 * 8
"""Of a cell in memory, beside what it holds."""
FEW = 64
"""Keys up to this many are looked up one by one: quicker than making a dictionary of them."""


class SketchMaker(Protocol):
    """Makes one sketch."""

    def __call__(self, data: bytes | None = None) -> Any:
        """Return an empty one, or the one that was stored."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the cells of one track lie in memory and in storage."""

    #: text that must match before stored cells are read
    signature: str
    #: width of a tile; 1 for rows of another stream
    tile_ms: int
    #: float64 values per cell
    width: int
    #: what says how old a cell is: its tile, the end of its session, or the newest event of its key
    age: Literal["tile", "end", "newest"] = "tile"
    #: time that tile 0 begins at
    origin_ms: int = 0
    #: what makes the sketches of a cell, empty or from their bytes; none: its cells are arrays
    sketches: tuple["SketchMaker", ...] = ()


class Track:
    """The pool of cells of one track; see `arrays.Pool`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.head = np.full(INITIAL_KEYS, -1, np.int64)
        self.older = np.full(INITIAL_CELLS, -1, np.int64)
        self.owner = np.full(INITIAL_CELLS, -1, np.int64)
        self.tile = np.zeros(INITIAL_CELLS, np.int64)
        self.irs = np.zeros((INITIAL_CELLS, layout.width), np.float64)
        self.free = np.arange(INITIAL_CELLS - 1, -1, -1, dtype=np.int64)
        self.free_count = np.array([INITIAL_CELLS], np.int64)
        #: cell -> its sketches, of the cells in use; stale ones of others
        self.sketches: dict[int, list[Any]] = {}
        #: int64[cells], what those take in memory, as of their last `weigh`
        self.sketch_bytes = np.zeros(INITIAL_CELLS if layout.sketches else 0, np.int64)

    @property
    def pool(self) -> Pool:
        """The arrays as the kernels take them."""
        return Pool(self.head, self.older, self.owner, self.tile, self.irs, self.free, self.free_count)

    @property
    def live(self) -> int:
        """Number of cells in use."""
        return int(self.owner.size - self.free_count[0])

    def weigh(self, cells: I64) -> None:
        """Note what the sketches of cells take in memory; `cells` may repeat and hold -1."""
        if self.sketch_bytes.size < self.owner.size:
            self.sketch_bytes = _grown(self.sketch_bytes, self.owner.size, 0)
        for cell in np.unique(cells[cells >= 0]).tolist():
            self.sketch_bytes[cell] = sum(one.memory_bytes for one in self.sketches[cell])

    def taken_bytes(self) -> tuple[I64, I64]:
        """Return the owners of the cells in use and what each takes in memory."""
        cells = np.flatnonzero(self.owner >= 0)
        taken = np.full(cells.size, CELL_BYTES + 8 * self.layout.width)
        if self.layout.sketches:
            self.weigh(cells[:0])
            taken += self.sketch_bytes[cells]
        return self.owner[cells], taken

    def reserve(self, cells: int, keys: int) -> None:
        """Make room for that many new cells and for slots below `keys`."""
        if self.head.size < keys:
            self.head = _grown(self.head, keys, -1)
        if self.free_count[0] < cells:
            before = self.owner.size
            size = _doubled(before, self.live + cells)
            self.older, self.owner = _grown(self.older, size, -1), _grown(self.owner, size, -1)
            self.tile, self.irs = _grown(self.tile, size, 0), _grown(self.irs, size, 0)
            free = np.empty(self.owner.size, np.int64)
            count = int(self.free_count[0])
            free[:count] = self.free[:count]
            added = self.owner.size - before
            free[count : count + added] = np.arange(self.owner.size - 1, before - 1, -1)
            self.free, self.free_count[0] = free, count + added

    def restore(self, slots: I64, tiles: I64, rows: F64, blobs: Sequence[Sequence[bytes]] = ()) -> I64:
        """Put stored cells back, later ones replacing earlier ones, `blobs` their sketches; return the cells."""
        self.reserve(slots.size, int(slots.max(initial=-1)) + 1)
        cells = restore_cells(slots, tiles, rows, self.pool)
        for cell, stored in zip(cells.tolist(), blobs, strict=bool(blobs)):
            self.sketches[cell] = [make(data) for make, data in zip(self.layout.sketches, stored, strict=True)]
        if blobs:
            self.weigh(cells)
        return cells

    def drop(self, slots: I64) -> None:
        """Forget all cells of the given keys, and the sketches of all that are not in use."""
        drop_keys(slots, self.pool)
        self.sketches = {cell: held for cell, held in self.sketches.items() if self.owner[cell] >= 0}


class KeyedCells:
    """Key index, clocks and tracks of one entity in one lane.

    Parameters
    ----------
    layouts : one per track
    lateness_ms : how far behind the newest event of its key a row may be
    horizon_ms : a key that the lane's clock has left this far behind is forgotten; beyond every window
    """

    def __init__(self, layouts: Sequence[Layout], lateness_ms: int, horizon_ms: int) -> None:
        self.lateness_ms, self.horizon_ms = lateness_ms, horizon_ms
        self.tracks = tuple(Track(layout) for layout in layouts)
        self.index: dict[str, int] = {}
        self.names: list[str | None] = []
        self.vacant: list[int] = []
        self.newest_ms = np.full(INITIAL_KEYS, NEVER, np.int64)
        self.born_seq = np.zeros(INITIAL_KEYS, np.int64)
        self.clock_ms = int(NEVER)
        #: how often idle keys were looked for
        self.sweeps = 0

    @property
    def forgotten_before_ms(self) -> int:
        """A key whose newest row is older than this is forgotten, whether or not its memory is free already."""
        return max(self.clock_ms - self.horizon_ms, int(NEVER))

    def find(self, keys: pa.StringArray) -> I64:
        """Return the slot of each key, int64[n]; NULL_KEY for null, UNKNOWN_KEY for unknown ones."""
        return self._slots(keys, lambda name: self.index.get(name, UNKNOWN_KEY))

    def find_or_add(self, keys: pa.StringArray) -> I64:
        """Return the slot of each key, int64[n]; NULL_KEY for null; unknown keys get one."""
        return self._slots(keys, self.add)

    def add(self, name: str) -> int:
        """Return the slot of a key, a fresh one if it is unknown."""
        slot = self.index.get(name)
        if slot is None:
            slot = self.vacant.pop() if self.vacant else len(self.names)
            if slot == len(self.names):
                self.names.append(name)
            self.names[slot] = name
            self.index[name] = slot
            if slot >= self.newest_ms.size:
                self.newest_ms = _grown(self.newest_ms, slot + 1, NEVER)
                self.born_seq = _grown(self.born_seq, slot + 1, 0)
        return slot

    def add_all(self, names: Sequence[str]) -> I64:
        """Return the slot of each key, int64[n], fresh ones for the unknown: `add`, fast for very many."""
        fresh = [name for name in dict.fromkeys(names) if name not in self.index]
        reused = len(self.vacant)
        for name in fresh[:reused]:
            self.add(name)
        self.index.update(zip(fresh[reused:], range(len(self.names), len(self.names) + len(fresh)), strict=False))
        self.names.extend(fresh[reused:])
        if len(self.names) > self.newest_ms.size:
            self.newest_ms = _grown(self.newest_ms, len(self.names), NEVER)
            self.born_seq = _grown(self.born_seq, len(self.names), 0)
        return np.fromiter(map(self.index.__getitem__, names), np.int64, len(names))

    def admit(
        self, slots: I64, times_ms: I64, seqs: I64, flags: NDArray[np.int8]
    ) -> tuple[NDArray[np.int8], NDArray[np.bool_], I64]:
        """Judge the rows of a batch and advance the clocks; return status, reborn and behind_ms of `kernels.admit`."""
        status, reborn = np.empty(slots.size, np.int8), np.empty(slots.size, np.bool_)
        behind_ms = np.empty(slots.size, np.int64)
        self.clock_ms = int(
            admit(
                slots,
                times_ms,
                seqs,
                flags,
                self.newest_ms,
                self.born_seq,
                self.clock_ms,
                self.lateness_ms,
                self.horizon_ms,
                status,
                reborn,
                behind_ms,
            )
        )
        for track in self.tracks:
            track.reserve(slots.size, len(self.names))
        return status, reborn, behind_ms

    def times_ms(self, track: Track, rows: I64) -> I64:
        """Return how old cells are, as epoch ms: see `Layout.age`."""
        times_ms: I64 = track.tile[rows] * track.layout.tile_ms + track.layout.origin_ms
        if track.layout.age == "newest":
            times_ms = self.newest_ms[track.owner[rows]]
        elif track.layout.age == "end":
            times_ms = track.irs[rows, END].astype(np.int64)
        return times_ms

    def forget_idle(self) -> None:
        """Free the memory of keys beyond the horizon. No output changes: `admit` treats them as new already."""
        self.sweeps += 1
        newest = self.newest_ms[: len(self.names)]
        self.drop(np.flatnonzero((newest != NEVER) & (newest < self.forgotten_before_ms)))

    def drop(self, slots: I64) -> None:
        """Take keys out of memory."""
        for track in self.tracks:
            track.reserve(0, len(self.names))
            track.drop(slots)
        for slot in slots.tolist():
            del self.index[self.names[slot] or ""]
            self.names[slot] = None
            self.vacant.append(slot)
        self.newest_ms[slots] = NEVER

    def _slots(self, keys: pa.StringArray, slot_of: Callable[[str], int]) -> I64:
        if len(keys) <= FEW:
            return np.array([NULL_KEY if name is None else slot_of(name) for name in objects(keys)], np.int64)
        encoded = keys.dictionary_encode()
        slots = np.array([*map(slot_of, objects(encoded.dictionary)), NULL_KEY], np.int64)
        found: I64 = slots[encoded.indices.fill_null(slots.size - 1).to_numpy()]
        return found


def _doubled(size: int, needed: int) -> int:
    while size < needed:
        size *= 2
    return size


def _grown(array: NDArray[D], needed: int, fill: int) -> NDArray[D]:
    """Return `array` at a doubled length of at least `needed` rows, new rows set to `fill`."""
    grown = np.full((_doubled(array.shape[0], needed), *array.shape[1:]), fill, array.dtype)
    grown[: array.shape[0]] = array
    return grown
