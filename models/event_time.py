"""Files of columns -> chunks in the order of event time, or of another time column. They may exceed memory.

Row groups are read in the order of their earliest row, and rows wait until no later row group can hold an earlier one.
Where the files have so little order in time that too many rows would wait, they are first cut by time into scratch
files. Rows of one time come in the order of the tables, then by partition and offset: file and row, if none are named.
"""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from udfs.core.declare.contract import Contract
from udfs.core.offline.backfill import Chunk, Part
from udfs.core.rows.batches import OFFSET, PARTITION, TIMESTAMP_MS, Piece, join_batches
from udfs.core.rows.columns import from_columns, time_column
from udfs.core.rows.letters import no_letters

I64 = NDArray[np.int64]
CHUNK_ROWS = 131_072
MOST_WAITING_ROWS = 4_000_000
SCRATCH_FILES, SCRATCH_ROWS = 200, 500_000
_SAMPLES = 256  #: times of each row group that decide where scratch files are cut
_SCRATCH = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one topic, as Parquet files."""

    topic: str
    contract: Contract
    paths: tuple[Path, ...]
    #: column that orders the rows: int64 epoch milliseconds, or a timestamp
    order_by: str
    #: for what is not in the files because it was refused before
    letters: tuple[pa.RecordBatch, ...] = ()


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group of a file."""

    first_ms: int
    last_ms: int
    #: places of the table, of the file in the table, and of the row group in the file
    table: int
    file: int
    number: int
    #: number of its first row in the file
    start: int
    rows: int
    #: some of its times, ascending
    sample: I64


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one table in their order, with the times that order them."""

    rows: pa.RecordBatch
    times_ms: I64


class TimeOrder:
    """The rows of several tables as one sequence, to be gone through once.

    Parameters
    ----------
    tables : rows of one time have their order: enrichments go first
    scratch : folder for scratch files
    chunk_rows : rows of a chunk
    most_waiting_rows : how many may wait in memory

    Raises
    ------
    ColumnError : while it is gone through: a column is missing or of another type.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        scratch: Path,
        chunk_rows: int = CHUNK_ROWS,
        most_waiting_rows: int = MOST_WAITING_ROWS,
    ) -> None:
        self._tables, self._scratch = tables, scratch
        self._chunk_rows, self._most_waiting_rows = chunk_rows, most_waiting_rows
        self._files = [[pq.ParquetFile(path) for path in table.paths] for table in tables]
        for table, files in zip(tables, self._files, strict=True):
            for path, file in zip(table.paths, files, strict=True):
                _check(table, file, path)
        #: of all files, and how many of them have been gone through
        self.rows = sum(file.metadata.num_rows for files in self._files for file in files)
        self.read = 0
        self._letters = [list(table.letters) for table in tables]

    def __iter__(self) -> Iterator[Chunk]:
        """Yield the chunks: rows that the contract accepts, letters for the others."""
        groups = sorted(self._groups(), key=lambda one: (one.first_ms, one.table, one.file, one.number))
        in_order = self._waiting if _most_waiting(groups) <= self._most_waiting_rows else self._by_scratch
        for pieces in in_order(groups):
            yield from self._cut(pieces)
        if any(self._letters):
            yield from self._cut([])

    def _groups(self) -> Iterator[_Group]:
        for number, table in enumerate(self._tables):
            for file_number, file in enumerate(self._files[number]):
                start = 0
                for i in range(file.num_row_groups):
                    columns = _one_batch(file.read_row_group(i, [table.order_by]))
                    # Rows without a time will be refused, wherever they stand.
                    times = time_column(columns, table.order_by, str(table.paths[file_number])).fill_null(0)
                    ordered = np.sort(times.to_numpy())
                    if ordered.size:
                        sample = ordered[:: max(1, ordered.size // _SAMPLES)]
                        first_ms, last_ms = int(ordered[0]), int(ordered[-1])
                        yield _Group(first_ms, last_ms, number, file_number, i, start, ordered.size, sample)
                    start += ordered.size

    def _read(self, group: _Group) -> _Rows:
        table, file = self._tables[group.table], self._files[group.table][group.file]
        known = file.schema_arrow.names
        columns = [name for name in (*table.contract.fields, PARTITION, OFFSET, TIMESTAMP_MS) if name in known]
        batch = _one_batch(file.read_row_group(group.number, columns))
        if PARTITION not in known or OFFSET not in known:
            numbers = pa.array(np.arange(group.start, group.start + group.rows))
            batch = _with_origin(batch, pa.array(np.full(group.rows, group.file, np.int32)), numbers)
        piece = from_columns(table.topic, table.contract, batch, str(table.paths[group.file]))
        if piece.letters.num_rows:
            self._letters[group.table].append(piece.letters)
        return _sorted(piece.rows, table.order_by)

    def _waiting(self, groups: list[_Group]) -> Iterator[list[_Rows | None]]:
        """Yield, per table, rows that no later ones can come before."""
        waiting: list[list[_Rows]] = [[] for _ in self._tables]
        for group, following in zip(groups, [*groups[1:], None], strict=True):
            waiting[group.table].append(self._read(group))
            ends = [
                [one.times_ms.size if following is None else _end(one, following.first_ms) for one in held]
                for held in waiting
            ]
            if following is not None and sum(map(sum, ends)) < self._chunk_rows:
                continue
            yield [
                self._merged(table, [_part(one, 0, end) for one, end in zip(held, stop, strict=True)])
                for table, held, stop in zip(self._tables, waiting, ends, strict=True)
            ]
            waiting = [
                [_part(one, end) for one, end in zip(held, stop, strict=True) if end < one.times_ms.size]
                for held, stop in zip(waiting, ends, strict=True)
            ]

    def _by_scratch(self, groups: list[_Group]) -> Iterator[list[_Rows | None]]:
        """Cut all rows by time into scratch files; yield, per table, the rows of one after the other."""
        bounds = _bounds(groups, max(SCRATCH_ROWS, self.rows // SCRATCH_FILES))
        with ExitStack() as stack:
            writers: dict[tuple[int, int], pa.RecordBatchStreamWriter] = {}
            for group in groups:
                read = self._read(group)
                ends = np.searchsorted(read.times_ms, bounds).tolist()
                for share, (start, end) in enumerate(zip([0, *ends], [*ends, read.times_ms.size], strict=True)):
                    if end > start:
                        at = (share, group.table)
                        if at not in writers:
                            path, schema = str(self._scratch / f"{share}-{group.table}"), read.rows.schema
                            writers[at] = stack.enter_context(pa.ipc.new_stream(path, schema, options=_SCRATCH))
                        writers[at].write_batch(read.rows.slice(start, end - start))
        for share in range(len(bounds) + 1):
            yield [self._read_scratch(self._scratch / f"{share}-{n}", table) for n, table in enumerate(self._tables)]

    def _read_scratch(self, path: Path, table: Table) -> _Rows | None:
        if not path.exists():
            return None
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            found = _sorted(join_batches(list(stream)), table.order_by)
        path.unlink()
        return found

    def _merged(self, table: Table, parts: list[_Rows]) -> _Rows | None:
        filled = [part for part in parts if part.times_ms.size]
        if len(filled) <= 1:
            return filled[0] if filled else None
        return _sorted(join_batches([part.rows for part in filled]), table.order_by)

    def _cut(self, found: Sequence[_Rows | None]) -> Iterator[Chunk]:
        """Put the rows of all tables into one order and cut it into chunks; what broke the contract goes along."""
        held = [(table, rows) for table, rows in zip(self._tables, found, strict=False) if rows is not None]
        times = np.concatenate([np.zeros(0, np.int64), *(rows.times_ms for _, rows in held)])
        # A stable sort: at equal times, tables keep their order, and so do the rows of a table.
        place = np.empty(times.size, np.int64)
        place[np.argsort(times, kind="stable")] = np.arange(times.size)
        places = np.split(place, np.cumsum([rows.times_ms.size for _, rows in held])[:-1])
        for table, files, letters in zip(self._tables, self._files, self._letters, strict=True):
            if letters:
                nothing = _check(table, files[0], table.paths[0])
                yield [Part(Piece(table.topic, nothing, join_batches(letters)), np.zeros(0, np.int64))]
                letters.clear()
        for start in range(0, times.size, self._chunk_rows):
            chunk = []
            for (table, rows), mine in zip(held, places, strict=True):
                low, high = np.searchsorted(mine, [start, start + self._chunk_rows]).tolist()
                if high > low:
                    piece = Piece(table.topic, rows.rows.slice(low, high - low), no_letters())
                    chunk.append(Part(piece, mine[low:high] - start))
            yield chunk
            self.read += sum(part.positions.size for part in chunk)


def _sorted(rows: pa.RecordBatch, order_by: str) -> _Rows:
    times = rows[order_by].to_numpy()
    partitions, offsets = rows[PARTITION].to_numpy(), rows[OFFSET].to_numpy()
    order = np.lexsort((offsets, partitions, times))
    if (np.diff(order) == 1).all():
        return _Rows(rows, times)
    return _Rows(rows.take(pa.array(order)), times[order])


def _part(rows: _Rows, start: int, end: int | None = None) -> _Rows:
    times_ms = rows.times_ms[start:end]
    return _Rows(rows.rows.slice(start, times_ms.size), times_ms)


def _end(rows: _Rows, before_ms: int) -> int:
    return int(np.searchsorted(rows.times_ms, before_ms))


def _most_waiting(groups: list[_Group]) -> int:
    """Return how many rows would be held at most if the groups were read in their order."""
    held: list[tuple[int, int]] = []
    now = most = 0
    for group in groups:
        while held and held[0][0] < group.first_ms:
            now -= heapq.heappop(held)[1]
        heapq.heappush(held, (group.last_ms, group.rows))
        now += group.rows
        most = max(most, now)
    return most


def _bounds(groups: list[_Group], rows: int) -> I64:
    """Return times between which lie about that many rows."""
    times = np.concatenate([group.sample for group in groups])
    weights = np.concatenate([np.full(group.sample.size, group.rows / group.sample.size) for group in groups])
    order = np.argsort(times, kind="stable")
    share = (np.cumsum(weights[order]) // rows).astype(np.int64)
    cuts: I64 = np.unique(times[order][np.flatnonzero(np.diff(share)) + 1])
    return cuts


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)


def _with_origin(batch: pa.RecordBatch, partitions: pa.Array, offsets: pa.Array) -> pa.RecordBatch:
    kept = [name for name in batch.schema.names if name not in (PARTITION, OFFSET)]
    arrays = [*(batch[name] for name in kept), partitions, offsets]
    return pa.RecordBatch.from_arrays(arrays, names=[*kept, PARTITION, OFFSET])


def _check(table: Table, file: pq.ParquetFile, path: Path) -> pa.RecordBatch:
    """Raise an error if columns are missing or of another kind; return no rows of the file."""
    nothing = pa.RecordBatch.from_pylist([], file.schema_arrow)
    time_column(nothing, table.order_by, str(path))
    nothing = _with_origin(nothing, pa.array([], pa.int32()), pa.array([], pa.int64()))
    return from_columns(table.topic, table.contract, nothing, str(path)).rows
