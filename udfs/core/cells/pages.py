"""Pages: keys that memory has no room for wait in the durable state, one entry each, until a row asks for them.

Paging is slower and never seen in a result: a key comes back as it went, with its clocks. What is in a page is not in
the log, and the other way round.
"""

from collections.abc import Iterable, MutableMapping

import numpy as np
from numpy.typing import NDArray

from udfs.core.cells.keyed import CELL_BYTES, KeyedCells
from udfs.core.cells.log import Log
from udfs.core.cells.segments import Segment, unpack

I64 = NDArray[np.int64]
KEY_BYTES = 250
"""Of a key in memory: its text, its entry in the index, clocks and heads, measured over keys of some ten letters."""
LOW_WATER = 0.7
"""Share of the limit that is left after paging out, so that it is not done for every batch."""


class Pages:
    """The keys of one store that are out of memory.

    Parameters
    ----------
    mapping : durable, `<store>:<key>` -> page; other stores of the lane may share it
    limit_bytes : what keys and cells in memory may take before the coldest keys leave
    """

    def __init__(self, mapping: MutableMapping[str, bytes], cells: KeyedCells, log: Log, limit_bytes: int) -> None:
        self._mapping, self._cells, self._log, self._limit_bytes = mapping, cells, log, limit_bytes
        self._prefix = f"{log.store}:"
        self._out = {name.removeprefix(self._prefix) for name in mapping if name.startswith(self._prefix)}

    def __len__(self) -> int:
        return len(self._out)

    @property
    def memory_bytes(self) -> int:
        """What the keys and cells in memory take, sketches and texts included."""
        taken = KEY_BYTES * len(self._cells.index)
        for track in self._cells.tracks:
            if track.layout.sketches:
                taken += int(track.taken_bytes()[1].sum())
            else:
                taken += track.live * (CELL_BYTES + 8 * track.layout.width)
        return taken

    def bring(self, names: Iterable[str | None]) -> tuple[I64, list[I64]]:
        """Put keys back into memory that are out of it.

        Returns
        -------
        Their slots and per track their cells: what the log has to write with this batch.
        """
        wanted = [name for name in names if name in self._out] if self._out else []
        slots, rows = [], [list[I64]() for _ in self._cells.tracks]
        for name in wanted:
            page = Segment.decode(self._mapping.pop(self._prefix + name))
            self._out.discard(name)
            slot = self._cells.add(page.keys[0])
            self._cells.newest_ms[slot] = unpack(page.newest_ms, "<i8")[0]
            self._cells.born_seq[slot] = unpack(page.born_seq, "<i8")[0]
            slots.append(slot)
            for cells, track, stored in zip(rows, self._cells.tracks, page.tracks, strict=True):
                tiles = unpack(stored.tiles, "<i8").astype(np.int64)
                irs = unpack(stored.irs, "<f8").astype(np.float64).reshape(tiles.size, track.layout.width)
                cells.append(track.restore(np.full(tiles.size, slot), tiles, irs, stored.sketches))
        nothing = np.empty(0, np.int64)
        return np.array(slots, np.int64), [np.concatenate([nothing, *cells]) for cells in rows]

    def make_room(self, log_mapping: MutableMapping[int, bytes], next_number: int, next_seq: int) -> int:
        """Page out the coldest keys if memory is over its limit; return the next free segment number of the log."""
        over = self.memory_bytes - self._limit_bytes
        if over <= 0:
            return next_number
        cells = self._cells
        slots = np.array(list(cells.index.values()), np.int64)
        taken = np.full(len(cells.names), KEY_BYTES)
        orders = [np.argsort(track.owner, kind="stable") for track in cells.tracks]
        owners = [track.owner[order] for track, order in zip(cells.tracks, orders, strict=True)]
        for track in cells.tracks:
            np.add.at(taken, *track.taken_bytes())
        coldest = slots[np.argsort(cells.newest_ms[slots], kind="stable")]
        enough = int(np.searchsorted(np.cumsum(taken[coldest]), over + (1 - LOW_WATER) * self._limit_bytes)) + 1
        leaving = coldest[:enough]
        for slot in leaving.tolist():
            name = cells.names[slot] or ""
            spans = [np.searchsorted(owner, [slot, slot + 1]) for owner in owners]
            rows = [order[first:last] for order, (first, last) in zip(orders, spans, strict=True)]
            self._mapping[self._prefix + name] = self._log.segment(0, next_seq, np.array([slot]), rows).encode()
            self._out.add(name)
        cells.drop(leaving)
        return self._log.rewrite(log_mapping, next_number, next_seq)

    def forget_idle(self) -> None:
        """Drop the pages of keys beyond the horizon; they would start anew."""
        for name in list(self._out):
            page = Segment.decode(self._mapping[self._prefix + name])
            if unpack(page.newest_ms, "<i8")[0] < self._cells.forgotten_before_ms:
                del self._mapping[self._prefix + name]
                self._out.discard(name)
