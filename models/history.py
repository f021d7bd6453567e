"""A history of raw events: Parquet files with the records of all topics, in the order they are to be replayed.

Columns: topic, key, value, partition, offset, timestamp_ms. It is read piece by piece, so it may exceed memory.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from udfs.core.errors import HeadraceError, did_you_mean
from udfs.core.offline.backfill import Chunk, Part
from udfs.core.rows.batches import RawBatch

SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
    ]
)
ROW_GROUP_ROWS = 65_536


class HistoryError(HeadraceError):
    """A history file is missing, is no history, or lacks what was asked of it."""


class History:
    """The records of some topics as one sequence, in the order of the files.

    Parameters
    ----------
    paths : the Parquet files, one behind the other
    topics : topics to read; the records of others are passed over
    chunk_rows : rows of the files that make a chunk, at least 1

    Raises
    ------
    HistoryError : there is no such file, or it is no history.
    """

    def __init__(self, paths: Sequence[Path], topics: Collection[str], chunk_rows: int = ROW_GROUP_ROWS) -> None:
        self._topics, self._chunk_rows = tuple(topics), chunk_rows
        self._files = [_open(path) for path in paths]
        #: of all topics, and how many of them have been gone through
        self.rows, self.read = sum(file.metadata.num_rows for file in self._files), 0

    def __iter__(self) -> Iterator[Chunk]:
        """Go through the records, once."""
        for file in self._files:
            with file:
                for batch in file.iter_batches(batch_size=self._chunk_rows, columns=SCHEMA.names):
                    parts = [_part(batch, topic) for topic in self._topics]
                    yield [part for part in parts if part.positions.size]
                    self.read += batch.num_rows


def is_history(path: Path) -> bool:
    """Say whether a Parquet file has the columns of a history.

    Raises
    ------
    HistoryError : it cannot be read.
    """
    try:
        return set(SCHEMA.names) <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        msg = f"{path}: cannot be read as Parquet: {error}"
        raise HistoryError(msg) from error


def check_history(path: Path) -> None:
    """Raise HistoryError if there is no such file, or if it is no history."""
    _open(path).close()


def _part(batch: pa.RecordBatch, topic: str) -> Part:
    """Return the records of one topic, with their places in the batch."""
    places = np.flatnonzero(pc.equal(batch["topic"], topic).to_numpy(zero_copy_only=False))
    mine = batch if places.size == batch.num_rows else batch.take(pa.array(places))
    keys, values, partitions, offsets, times_ms = (mine[name].to_pylist() for name in SCHEMA.names[1:])
    return Part(RawBatch(topic, values, keys, partitions, offsets, times_ms), places)


def write_history(
    path: Path,
    topics: Sequence[str],
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    timestamps_ms: Sequence[int] | NDArray[np.int64],
) -> None:
    """Write records in their order as a history, as if each topic had one partition; the file is never half there.

    Parameters
    ----------
    path : the Parquet file; its folder is made, an older file replaced
    topics, keys, values, timestamps_ms : columns of equal length; times are epoch milliseconds

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "history.parquet"
    >>> write_history(path, ["a", "b", "a"], [None, b"k", None], [b"1", b"2", b"3"], [10, 20, 30])
    >>> [
    ...     [(part.batch.topic, part.batch.values, part.batch.offsets) for part in chunk]
    ...     for chunk in History([path], ["a"])
    ... ]
    [[('a', [b'1', b'3'], [0, 1])]]
    """
    topic = pa.array(topics, pa.string())
    offset = np.empty(len(topics), np.int64)
    codes = topic.dictionary_encode().indices.to_numpy()
    for code in np.unique(codes):
        mine = codes == code
        offset[mine] = np.arange(np.count_nonzero(mine))
    columns = [topic, pa.array(keys, pa.binary()), pa.array(values, pa.binary())]
    columns += [pa.array(np.zeros(len(topics), np.int32)), pa.array(offset), pa.array(timestamps_ms, pa.int64())]
    write_pieces(path, [pa.Table.from_arrays(columns, schema=SCHEMA)])


def write_pieces(path: Path, pieces: Iterable[pa.Table]) -> None:
    """Write tables of `SCHEMA` one behind the other as a history; the file is never half there.

    Parameters
    ----------
    path : the Parquet file; its folder is made, an older file replaced
    pieces : in the order in which their records are to be replayed
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    try:
        with pq.ParquetWriter(draft, SCHEMA, compression="zstd") as writer:
            for piece in pieces:
                writer.write_table(piece, row_group_size=ROW_GROUP_ROWS)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        near = did_you_mean(path.name, (file.name for file in path.parent.glob("*.parquet")))
        msg = f"{path}: no such history{near}; write one with: headrace history --pipeline FOLDER --out {path}"
        raise HistoryError(msg)
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        msg = f"{path}: cannot be read as a history: {error}"
        raise HistoryError(msg) from error
    found = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    wrong = [field for field in SCHEMA if found.get(field.name) != field.type]
    if wrong:
        file.close()
        got = found.get(wrong[0].name, "nothing")
        msg = f"{path}: is no history: column {wrong[0].name!r} is {got}; expected {wrong[0].type}"
        raise HistoryError(msg)
    return file
