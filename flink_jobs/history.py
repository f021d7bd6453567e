"""A history from Kafka: every committed record of a pipeline's topics -> one Parquet file, for training and backfill.

Kafka keeps no order between partitions and topics, so records are put in the order of their Kafka timestamps. That is
the order of arrival for a LogAppendTime topic, and about that of event time for a CreateTime one.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from flink_jobs.config import Kafka
from flink_jobs.kafka_records import KafkaRecords, full_pieces
from models.history import ROW_GROUP_ROWS, SCHEMA, HistoryError, write_pieces
from scripts.kafka.consume import Record
from udfs.core.declare.definition import Pipeline


def topics_to_read(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the topics of a history, each once: enrichments, source, label; the order of records of one time."""
    topics = [*(enrichment.topic for enrichment in pipeline.enrichments), pipeline.source.topic]
    return tuple(dict.fromkeys([*topics, *([pipeline.label.topic] if pipeline.label else [])]))


def export_history(
    pipeline: Pipeline, kafka: Kafka, out: Path, progress: Callable[[int, int], None] = lambda _read, _rows: None
) -> Counter[str]:
    """Read the topics of a pipeline to their present ends and write what they hold, see `models.history`.

    The topics of the file have no prefix, as in the pipeline's own definition.

    Parameters
    ----------
    kafka : where the topics are, and the prefix of their names there
    out : the Parquet file
    progress : gets the number of records read, and of all

    Returns
    -------
    Topic -> records.

    Raises
    ------
    HistoryError : the source has no record.
    InputError : the brokers want security settings.
    TopicError, ReadTimeoutError : a topic is missing or cannot be read to its end.
    """
    topics = topics_to_read(pipeline)
    records, counts = KafkaRecords(kafka, topics), Counter(dict.fromkeys(topics, 0))

    def pieces() -> Iterator[pa.Table]:
        for piece in full_pieces(records.pieces(), ROW_GROUP_ROWS):
            rows = _columns(piece, kafka.topic_prefix)
            counts.update(rows["topic"].to_pylist())
            yield rows
            progress(records.read, records.rows)
        if counts[pipeline.source.topic] == 0:
            name = kafka.topic_prefix + pipeline.source.topic
            msg = f"topic {name!r}: holds no committed record; there is no history to write"
            raise HistoryError(msg)

    write_pieces(out, pieces())
    return counts


def _columns(records: list[Record], prefix: str) -> pa.Table:
    columns = [
        [record.topic.removeprefix(prefix) for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [record.partition for record in records],
        [record.offset for record in records],
        [record.timestamp_ms for record in records],
    ]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
