"""Batches on their way: raw records as Kafka gave them, decoded rows with their origin, and pieces between operators.

Every row carries its origin and its original bytes in reserved columns (a name with a leading underscore), because any
stage may still have to send it to the rejects or the late output as it came.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import pyarrow as pa

from udfs.core.rows.letters import LETTERS, no_letters

PARTITION, OFFSET, TIMESTAMP_MS, VALUE = "_partition", "_offset", "_timestamp_ms", "_value"
ORIGIN_FIELDS = (
    pa.field(PARTITION, pa.int32(), nullable=False),
    pa.field(OFFSET, pa.int64(), nullable=False),
    pa.field(TIMESTAMP_MS, pa.int64(), nullable=False),
    pa.field(VALUE, pa.binary(), nullable=False),
)


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Records of one topic, in the order in which they came; all sequences have the same length."""

    topic: str
    #: record values; None is a tombstone
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    partitions: Sequence[int]
    offsets: Sequence[int]
    #: Kafka timestamps, epoch milliseconds
    timestamps_ms: Sequence[int]

    def select(self, rows: Sequence[int]) -> "RawBatch":
        """Return some of the records."""
        return RawBatch(
            self.topic,
            [self.values[i] for i in rows],
            [self.keys[i] for i in rows],
            [self.partitions[i] for i in rows],
            [self.offsets[i] for i in rows],
            [self.timestamps_ms[i] for i in rows],
        )


def lane_column(entity: str) -> str:
    """Name of the reserved column that holds the lane in which a stage saw the row, int32."""
    return f"_lane_{entity}"


def seq_column(entity: str) -> str:
    """Name of the reserved column that holds the row's sequence number in that lane, int64."""
    return f"_seq_{entity}"


@dataclass(frozen=True, slots=True)
class Piece:
    """What travels from one operator to the next: good rows of one topic, and the letters of their batch."""

    topic: str
    rows: pa.RecordBatch
    letters: pa.RecordBatch

    def encode(self) -> bytes:
        """Return one Arrow IPC stream for the rows and, only if there are any, a second one for the letters."""
        sink = pa.BufferOutputStream()
        schema = self.rows.schema.with_metadata({"topic": self.topic})
        with pa.ipc.new_stream(sink, schema) as stream:
            stream.write_batch(self.rows)
        if self.letters.num_rows:
            with pa.ipc.new_stream(sink, LETTERS) as stream:
                stream.write_batch(self.letters)
        return bytes(sink.getvalue())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote."""
        source = pa.BufferReader(data)
        with pa.ipc.open_stream(source) as stream:
            rows = stream.read_next_batch()
            list(stream)  # reads the end-of-stream mark, so that the letters' stream follows
        letters = no_letters()
        if source.tell() < len(data):
            with pa.ipc.open_stream(source) as stream:
                letters = stream.read_next_batch()
        topic = (rows.schema.metadata or {})[b"topic"].decode()
        return cls(topic, rows.replace_schema_metadata(None), letters)

    def with_rows(self, rows: pa.RecordBatch, *letters: pa.RecordBatch) -> "Piece":
        """Return the piece with other rows and with more letters."""
        return replace(self, rows=rows, letters=join_batches([self.letters, *letters]))


def add_columns(rows: pa.RecordBatch, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """Return `rows` with columns appended."""
    return pa.RecordBatch.from_arrays([*rows.columns, *columns.values()], names=[*rows.schema.names, *columns])


def objects(column: pa.Array) -> list[Any]:
    """Return the strings or bytes of a column, None for null; `to_pylist`, scalar by scalar, takes 20 times as long."""
    found: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    return found


def join_batches(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return the rows of several batches of one schema as one batch; at least one must be given."""
    filled = [batch for batch in batches if batch.num_rows] or [batches[0]]
    if len(filled) == 1:
        return filled[0]
    merged = pa.Table.from_batches(filled).combine_chunks().to_batches()
    return merged[0]
