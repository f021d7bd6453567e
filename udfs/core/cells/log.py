"""The log: keeps a `KeyedCells` durable as segments in a mapping (Flink map state; a dict in tests).

Each batch appends what it changed, one segment per time bucket touched. A bucket is rewritten as one segment when its
small ones have grown as large as its base (so nothing is written more than about twice) and is dropped whole once no
key can read it. Checkpoint cost follows what changed, not what is held.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from udfs.core.cells.keyed import KeyedCells
from udfs.core.cells.segments import Segment, TrackSegment, pack, unpack
from udfs.core.errors import StateFormatError
from udfs.core.kernels.admit import NEVER

I64 = NDArray[np.int64]
BUCKETS_HELD = 8
COMPACT_SEGMENTS = 32


@dataclass(slots=True)
class _Bucket:
    """The segments of one time bucket."""

    base_bytes: int = 0
    small_bytes: int = 0
    numbers: list[int] = field(default_factory=list)


class Log:
    """Writes the changes of one store and reads them back.

    Parameters
    ----------
    store : number of the store within its lane
    cells : the state in memory
    longest_ms : reach of the longest read behind an event: window + slide, or the history kept
    """

    def __init__(self, store: int, cells: KeyedCells, longest_ms: int) -> None:
        self.store, self.cells = store, cells
        tile_ms = max([1, *(track.layout.tile_ms for track in cells.tracks)])
        # One tile more: how far a read from afar reaches is counted in tiles, and a cell is as old as its tile's start.
        self.retention_ms = cells.horizon_ms + cells.lateness_ms + longest_ms + tile_ms
        self.bucket_ms = max(self.retention_ms // BUCKETS_HELD, tile_ms)
        self.buckets: dict[int, _Bucket] = {}
        self._forgotten = self._oldest()

    def restore(self, segments: list[tuple[int, Segment, int]]) -> None:
        """Rebuild the cells from (number, segment, stored bytes), in the order of their numbers."""
        cells = self.cells
        signatures = [track.layout.signature for track in cells.tracks]
        slots_of: list[I64] = []
        for number, segment, size_bytes in segments:
            self._check(number, segment, signatures)
            self._note(segment.bucket, number, size_bytes)
            cells.clock_ms = max(cells.clock_ms, segment.clock_ms)
            slots = cells.add_all(segment.keys)
            cells.newest_ms[slots] = unpack(segment.newest_ms, "<i8")
            cells.born_seq[slots] = unpack(segment.born_seq, "<i8")
            slots_of.append(slots)
        # Only now is the birth of every key known: cells written before it do not count.
        for (_, segment, _), slots in zip(segments, slots_of, strict=True):
            for track, stored in zip(cells.tracks, segment.tracks, strict=True):
                owners = slots[unpack(stored.owners, "<i4")]
                lives = cells.born_seq[owners] < segment.next_seq
                irs = unpack(stored.irs, "<f8").reshape(owners.size, track.layout.width)
                blobs = [stored.sketches[i] for i in np.flatnonzero(lives).tolist()] if stored.sketches else []
                track.restore(owners[lives], unpack(stored.tiles, "<i8")[lives], irs[lives], blobs)
        for track in cells.tracks:
            track.reserve(0, len(cells.names))

    def _check(self, number: int, segment: Segment, signatures: list[str]) -> None:
        """Raise StateFormatError for a segment of other features."""
        if segment.bucket_ms != self.bucket_ms:
            msg = (
                f"stored segment {number} has time buckets of {segment.bucket_ms} ms; the pipeline needs "
                f"{self.bucket_ms} ms: its windows, lateness or kept history changed; start from fresh state or "
                "restore them"
            )
            raise StateFormatError(msg)
        stored_as = [stored.layout for stored in segment.tracks]
        if stored_as != signatures:
            msg = (
                f"stored cells of segment {number} are laid out as {stored_as}; the pipeline's features need "
                f"{signatures}; start from fresh state or restore the old features"
            )
            raise StateFormatError(msg)

    def write(
        self, mapping: MutableMapping[int, bytes], next_number: int, next_seq: int, slots: I64, touched: list[I64]
    ) -> int:
        """Append what a batch changed; `slots` and per track `touched` cells may repeat and hold -1.

        Returns
        -------
        The next free segment number.
        """
        cells = self.cells
        keys = np.unique(slots[slots >= 0])
        changed = []
        for track, rows in zip(cells.tracks, touched, strict=True):
            live = np.unique(rows[rows >= 0])
            changed.append(live[track.owner[live] >= 0])
        key_buckets = cells.newest_ms[keys] // self.bucket_ms
        cell_buckets = [
            cells.times_ms(track, rows) // self.bucket_ms for track, rows in zip(cells.tracks, changed, strict=True)
        ]
        clock_bucket = 0 if cells.clock_ms == NEVER else cells.clock_ms // self.bucket_ms
        # What is too old for any later read is not kept; but the sequence number of the batch must be.
        touched_buckets = set(np.concatenate([key_buckets, *cell_buckets]).tolist())
        buckets = sorted(one for one in touched_buckets if one >= self._oldest()) or [clock_bucket]
        for bucket in buckets:
            parts = [rows[where == bucket] for rows, where in zip(changed, cell_buckets, strict=True)]
            data = self.segment(bucket, next_seq, keys[key_buckets == bucket], parts).encode()
            mapping[next_number] = data
            self._note(bucket, next_number, len(data))
            next_number += 1
            held = self.buckets[bucket]
            if len(held.numbers) >= COMPACT_SEGMENTS and held.small_bytes >= held.base_bytes:
                next_number = self._compact(mapping, next_number, next_seq, bucket)
        self._expire(mapping)
        return next_number

    def segment(self, bucket: int, next_seq: int, keys: I64, cell_rows: list[I64]) -> Segment:
        """Return what memory says of some keys and, per track, of some cells."""
        cells = self.cells
        owners = [track.owner[rows] for track, rows in zip(cells.tracks, cell_rows, strict=True)]
        slots = np.unique(np.concatenate([keys, *owners]))
        return Segment(
            store=self.store,
            bucket=bucket,
            bucket_ms=self.bucket_ms,
            next_seq=next_seq,
            clock_ms=cells.clock_ms,
            keys=[cells.names[slot] or "" for slot in slots.tolist()],
            newest_ms=pack(cells.newest_ms[slots], "<i8"),
            born_seq=pack(cells.born_seq[slots], "<i8"),
            tracks=[
                TrackSegment(
                    layout=track.layout.signature,
                    tiles=pack(track.tile[rows], "<i8"),
                    owners=pack(np.searchsorted(slots, owner), "<i4"),
                    irs=pack(track.irs[rows], "<f8"),
                    sketches=[[one.to_bytes() for one in track.sketches[cell]] for cell in rows.tolist()]
                    if track.layout.sketches
                    else [],
                )
                for track, rows, owner in zip(cells.tracks, cell_rows, owners, strict=True)
            ],
        )

    def rewrite(self, mapping: MutableMapping[int, bytes], next_number: int, next_seq: int) -> int:
        """Write every bucket anew, so that keys that left memory leave the log; return the next free segment number."""
        for bucket in sorted(self.buckets):
            next_number = self._compact(mapping, next_number, next_seq, bucket)
        return next_number

    def _compact(self, mapping: MutableMapping[int, bytes], next_number: int, next_seq: int, bucket: int) -> int:
        """Replace the segments of a bucket by one that says what memory says now."""
        cells = self.cells
        newest = cells.newest_ms[: len(cells.names)]
        keys = np.flatnonzero((newest != NEVER) & (newest // self.bucket_ms == bucket))
        rows = []
        for track in cells.tracks:
            live = np.flatnonzero(track.owner >= 0)
            rows.append(live[cells.times_ms(track, live) // self.bucket_ms == bucket])
        data = self.segment(bucket, next_seq, keys, rows).encode()
        for number in self.buckets[bucket].numbers:
            del mapping[number]
        mapping[next_number] = data
        self.buckets[bucket] = _Bucket(len(data), 0, [next_number])
        return next_number + 1

    def _expire(self, mapping: MutableMapping[int, bytes]) -> None:
        """Drop the buckets that no key can read any more, and the keys that are forgotten."""
        oldest = self._oldest()
        expired = [bucket for bucket in self.buckets if bucket < oldest]
        for bucket in expired:
            for number in self.buckets.pop(bucket).numbers:
                del mapping[number]
        if expired:
            self.cells.forget_idle()

    def forget(self) -> None:
        """Drop the keys that are forgotten, once per bucket of time, where nothing is kept durable."""
        bucket = self._oldest()
        if bucket != self._forgotten:
            self._forgotten = bucket
            self.cells.forget_idle()

    def _oldest(self) -> int:
        """Return the oldest bucket that may still be read."""
        return max(self.cells.clock_ms - self.retention_ms, int(NEVER)) // self.bucket_ms

    def _note(self, bucket: int, number: int, size_bytes: int) -> None:
        held = self.buckets.setdefault(bucket, _Bucket())
        if held.numbers:
            held.small_bytes += size_bytes
        else:
            held.base_bytes = size_bytes
        held.numbers.append(number)
