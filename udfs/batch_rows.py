"""The rows in which batches cross between the JVM and Python: their Flink types, and how a micro-batch is read.

Every row that crosses has the Flink key of its lane in front. Arrays cross without nulls: a flag beside the partition
says what is null (see `flink_jobs.lanes`).
"""

from pyflink.common import Row, Types

from udfs.core.rows.batches import RawBatch

NULL_VALUE, NULL_KEY, FLAG_BITS = 1, 2, 2

RAW_TYPE = Types.ROW(
    [
        Types.STRING(),  # topic
        Types.OBJECT_ARRAY(Types.PRIMITIVE_ARRAY(Types.BYTE())),  # values
        Types.OBJECT_ARRAY(Types.PRIMITIVE_ARRAY(Types.BYTE())),  # keys
        Types.OBJECT_ARRAY(Types.INT()),  # partition * 4 + flags
        Types.OBJECT_ARRAY(Types.LONG()),  # offsets
        Types.OBJECT_ARRAY(Types.LONG()),  # Kafka timestamps, epoch ms
    ]
)


PIECE_TYPE = Types.ROW([Types.INT(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
"""(Flink key of the lane, encoded `Piece`): what featurize operators send."""


def raw_batch(row: Row) -> RawBatch:
    """Return the records of a micro-batch row."""
    topic, values, keys, flagged, offsets, timestamps_ms = row
    if any(mark & (NULL_VALUE | NULL_KEY) for mark in flagged):
        values = [None if mark & NULL_VALUE else value for value, mark in zip(values, flagged, strict=True)]
        keys = [None if mark & NULL_KEY else key for key, mark in zip(keys, flagged, strict=True)]
    return RawBatch(topic, values, keys, [mark >> FLAG_BITS for mark in flagged], offsets, timestamps_ms)
