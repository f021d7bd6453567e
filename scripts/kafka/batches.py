"""Records read back from Kafka, as the batch that the job gets of them."""

from collections.abc import Sequence

from scripts.kafka.consume import Record
from udfs.core.rows.batches import RawBatch


def raw_batch(topic: str, records: Sequence[Record]) -> RawBatch:
    """Return records of one topic, there may be none, with Kafka's own origins."""
    return RawBatch(
        topic,
        [one.value for one in records],
        [one.key for one in records],
        [one.partition for one in records],
        [one.offset for one in records],
        [one.timestamp_ms for one in records],
    )
