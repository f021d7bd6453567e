"""Held rows: events that wait in a stage for rows of enrichments, in memory and as entries of the lane's log.

An entry holds the rows that began to wait with one batch, or whose joins changed, and the numbers of those that went
on. Entries are read in their order; once they say much more than is held they are replaced by one.
"""

from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.cells.segments import pack, unpack
from udfs.core.declare.declarations import Enrichment
from udfs.core.errors import StateFormatError
from udfs.core.rows.batches import add_columns, join_batches, seq_column

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
VERSION = 1
MARK = b"\xabheld_events"
"""The first field of an entry, which tells it from a segment of cells."""
SINCE = "_since_ms"
COMPACT_ROWS = 256


class Held(NamedTuple):
    """Rows, and what is known of the joins of each; the joins are side by side, in the order of the stage."""

    #: parts of one schema, none for no rows
    parts: tuple[pa.RecordBatch, ...]
    #: int64[n], places in the lane's sequence, ascending
    seqs: I64
    #: int64[n], processing time at which they came, -1 for none
    since_ms: I64
    #: int64[n, joins], rows that the lane had seen when they were joined, -1 while they wait
    until: I64
    #: bool[n, joins], no fitting row had come
    is_missing: NDArray[np.bool_]
    #: float64[n, columns of all joins]
    values: F64
    #: int64[n, joins], `until` in a run that is repeated, -1 otherwise
    told: I64

    @classmethod
    def of(cls, parts: tuple[pa.RecordBatch, ...], arrays: Iterable[Any]) -> Self:
        """Return rows of their parts and arrays, in the order of the fields."""
        return cls(parts, *arrays)

    @classmethod
    def waiting(cls, seqs: I64, since_ms: int, told: I64, columns: int) -> Self:
        """Return rows, without their columns, none of which is joined yet."""
        since, until, missing = np.full(seqs.size, since_ms), np.full(told.shape, -1), np.zeros(told.shape, np.bool_)
        return cls((), seqs, since, until, missing, np.empty((seqs.size, columns)), told)

    def take(self, at: I64) -> "Held":
        """Return some rows, in the order given."""
        if at.size == self.seqs.size and (np.diff(at) > 0).all():
            return self
        parts = (join_batches(self.parts).take(pa.array(at)),) if at.size else ()
        return Held.of(parts, (array[at] for array in self[1:]))

    @staticmethod
    def joined(several: Sequence["Held"]) -> "Held":
        """Return the rows of several, one after the other."""
        parts = tuple(part for one in several for part in one.parts)
        return Held.of(parts, (np.concatenate(arrays) for arrays in zip(*(one[1:] for one in several), strict=True)))


class Entry(msgspec.Struct, frozen=True):
    """What one batch changed of the rows that are held."""

    #: rows with `SINCE` and, per join, `_until_<name>`, `_missing_<name>` and its columns: Arrow IPC stream, or empty
    held_events: bytes
    #: int64[n] little-endian, places of rows that went on
    gone: bytes
    version: int = VERSION


def is_entry(data: bytes) -> bool:
    """Say whether the bytes of a log are an entry of held rows."""
    return data[1 : 1 + len(MARK)] == MARK


class HeldLog:
    """The entries of one lane of a stage.

    Parameters
    ----------
    joins : enrichments that the rows may wait for
    entity : of the stage
    """

    def __init__(self, joins: Sequence[Enrichment], entity: str) -> None:
        self._joins, self._seq = joins, seq_column(entity)
        self._columns = [column for join in joins for column in join.take]
        self._numbers: list[int] = []
        self._logged = 0

    def restore(self, entries: Sequence[tuple[int, bytes]]) -> Held:
        """Return what is held, from (number, bytes), in the order of their numbers.

        Raises
        ------
        StateFormatError : the bytes are of another version, or rows wait for enrichments that are no longer awaited.
        """
        found, gone = [self._nothing()], [np.empty(0, np.int64)]
        for number, data in entries:
            entry = _decoded(data)
            gone.append(unpack(entry.gone, "<i8").astype(np.int64))
            found.append(self._of_arrow(entry.held_events) if entry.held_events else self._nothing())
            self._numbers.append(number)
            self._logged += found[-1].seqs.size + gone[-1].size
        held = Held.joined(found)
        # Of a row that stands there twice the later one counts.
        seqs, at = np.unique(held.seqs[::-1], return_index=True)
        return held.take((held.seqs.size - 1 - at)[~np.isin(seqs, np.concatenate(gone))])

    def write(self, mapping: MutableMapping[int, bytes], next_number: int, held: Held, changed: Held, gone: I64) -> int:
        """Append what a batch changed, `held` being all that is held now; return the next free number."""
        if not changed.seqs.size and not gone.size:
            return next_number
        self._logged += changed.seqs.size + gone.size
        if self._logged > 2 * held.seqs.size + COMPACT_ROWS or not held.seqs.size:
            for number in self._numbers:
                del mapping[number]
            self._numbers, self._logged = [], held.seqs.size
            changed, gone = held, gone[:0]
            if not held.seqs.size:
                return next_number
        mapping[next_number] = msgspec.msgpack.encode(Entry(self._to_arrow(changed), pack(gone, "<i8")))
        self._numbers.append(next_number)
        return next_number + 1

    def _nothing(self) -> Held:
        return Held.waiting(np.empty(0, np.int64), -1, np.empty((0, len(self._joins)), np.int64), len(self._columns))

    def _to_arrow(self, held: Held) -> bytes:
        if not held.seqs.size:
            return b""
        columns = {SINCE: pa.array(held.since_ms)}
        columns |= {name: pa.array(held.values[:, i]) for i, name in enumerate(self._columns)}
        for i, join in enumerate(self._joins):
            columns |= {f"_until_{join.name}": pa.array(held.until[:, i])}
            columns |= {f"_missing_{join.name}": pa.array(held.is_missing[:, i])}
        rows = add_columns(join_batches(held.parts), columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_batch(rows)
        return bytes(sink.getvalue())

    def _of_arrow(self, data: bytes) -> Held:
        with pa.ipc.open_stream(data) as stream:
            rows = stream.read_next_batch()
        names = rows.schema.names
        stored = [name.removeprefix("_until_") for name in names if name.startswith("_until_")]
        wanted = [join.name for join in self._joins]
        if stored != wanted or not {self._seq, SINCE, *self._columns} <= set(names):
            msg = (
                f"stored events wait for {', '.join(stored)} with the columns {', '.join(names)}; the pipeline waits "
                f"for {', '.join(wanted) or 'nothing'} ({', '.join(self._columns)}); start from fresh state "
                "or restore the old enrichments"
            )
            raise StateFormatError(msg)
        until, missing = ([f"{prefix}{name}" for name in wanted] for prefix in ("_until_", "_missing_"))
        return Held(
            (rows.drop_columns([SINCE, *self._columns, *until, *missing]),),
            rows[self._seq].to_numpy(),
            rows[SINCE].to_numpy(),
            _side_by_side(rows, until, np.int64),
            _side_by_side(rows, missing, np.bool_),
            _side_by_side(rows, self._columns, np.float64),
            np.full((rows.num_rows, len(wanted)), -1),
        )


def _side_by_side(rows: pa.RecordBatch, names: Sequence[str], kind: type) -> Any:
    """Return columns as one array [rows, names]."""
    arrays = [rows[name].to_numpy(zero_copy_only=False) for name in names]
    return np.array(arrays, kind).reshape(len(names), rows.num_rows).T.copy()


def _decoded(data: bytes) -> Entry:
    try:
        entry = msgspec.msgpack.decode(data, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"stored events of {len(data)} bytes cannot be read: {error}; were they written by another program?"
        raise StateFormatError(msg) from error
    if entry.version != VERSION:
        got = f"stored events have version {entry.version}; this code reads {VERSION}"
        msg = f"{got}; restore with the code that wrote it"
        raise StateFormatError(msg)
    return entry
