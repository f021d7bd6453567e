"""A history of raw events: one Parquet file with the records of all topics, in the order they are to be replayed.

Columns: topic, key, value, partition, offset, timestamp_ms. It is read piece by piece, so it may exceed memory.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from udfs.core.batches import RawBatch
from udfs.core.errors import HeadraceError, did_you_mean

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
BATCH_ROWS = 8192
ROW_GROUP_ROWS = 65_536


class HistoryError(HeadraceError):
    """A history file is missing, is no history, or lacks what was asked of it."""


def read_history(path: Path, topics: Collection[str], batch_rows: int = BATCH_ROWS) -> Iterator[RawBatch]:
    """Read the records of some topics in the order of the file, cut wherever the topic changes.

    Parameters
    ----------
    path : the Parquet file
    topics : topics to read; the records of others are passed over, and cut nothing
    batch_rows : rows read at a time, at least 1; no batch is larger

    Raises
    ------
    HistoryError : there is no such file, or it is no history.
    """
    with _open(path) as file:
        for batch in file.iter_batches(batch_size=batch_rows, columns=SCHEMA.names):
            rows = batch.filter(pc.is_in(batch["topic"], value_set=pa.array(sorted(topics), pa.string())))
            yield from _runs(rows)


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
    >>> [(batch.topic, list(batch.values), list(batch.offsets)) for batch in read_history(path, ["a"])]
    [('a', [b'1', b'3'], [0, 1])]
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


def _runs(rows: pa.RecordBatch) -> Iterator[RawBatch]:
    """Cut a batch into runs of one topic; the columns become lists once, not once per run."""
    if rows.num_rows == 0:
        return
    encoded = rows["topic"].dictionary_encode()
    codes = encoded.indices.to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), rows.num_rows]
    names = encoded.dictionary.to_pylist()
    keys, values, partitions, offsets, times_ms = (rows[name].to_pylist() for name in SCHEMA.names[1:])
    for start, end in itertools.pairwise(starts):
        yield RawBatch(
            names[codes[start]],
            values[start:end],
            keys[start:end],
            partitions[start:end],
            offsets[start:end],
            times_ms[start:end],
        )
