"""A history from Kafka: every committed record of a pipeline's topics -> one Parquet file, for training and backfill.

Kafka keeps no order between partitions and topics, so records are put in the order of their Kafka timestamps. That is
the order of arrival for a LogAppendTime topic, and about that of event time for a CreateTime one.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from flink_jobs.config import Kafka
from flink_jobs.project import shown
from models.history import ROW_GROUP_ROWS, SCHEMA, HistoryError, write_pieces
from scripts.kafka.consume import Record, iterate
from udfs.core.definition import Pipeline

_RANK = "rank"
_ORDER = [(name, "ascending") for name in ("timestamp_ms", _RANK, "partition", "offset")]
# All values of a topic in one Arrow array may exceed the 2 GiB of `binary`.
_LARGE = pa.schema(
    [field.with_type(pa.large_binary()) if field.type == pa.binary() else field for field in SCHEMA]
).append(pa.field(_RANK, pa.int32()))
_SECURITY = ("security.", "sasl.", "ssl.")


def topics_to_read(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the topics of a history, each once: enrichments, source, label; the order of records of one time."""
    topics = [*(enrichment.topic for enrichment in pipeline.enrichments), pipeline.source.topic]
    return tuple(dict.fromkeys([*topics, *([pipeline.label.topic] if pipeline.label else [])]))


def export_history(pipeline: Pipeline, kafka: Kafka, out: Path, console: Console) -> None:
    """Read the topics of a pipeline to their present ends and write what they hold, see `models.history`.

    All records are held in memory. The topics of the file have no prefix, as in the pipeline's own definition.

    Parameters
    ----------
    kafka : where the topics are, and the prefix of their names there
    out : the Parquet file

    Raises
    ------
    HistoryError : the source has no record, or the brokers want security settings.
    TopicError, ReadTimeoutError : a topic is missing or cannot be read to its end.
    """
    _refuse_security(kafka)
    read = []
    for rank, topic in enumerate(topics_to_read(pipeline)):
        with console.status(f"reading {kafka.topic_prefix}{topic}"):
            rows = _columns(topic, rank, iterate(kafka.bootstrap_servers, kafka.topic_prefix + topic))
        console.print(f"{rows.num_rows:>12,}  {kafka.topic_prefix}{topic}", highlight=False, soft_wrap=True)
        if rows.num_rows == 0 and topic == pipeline.source.topic:
            msg = f"topic {kafka.topic_prefix + topic!r}: holds no committed record; there is no history to write"
            raise HistoryError(msg)
        read.append(rows)
    write_pieces(out, in_order(pa.concat_tables(read)))
    console.print(f"{sum(rows.num_rows for rows in read):>12,}  {shown(out)}", highlight=False, soft_wrap=True)


def in_order(records: pa.Table) -> Iterator[pa.Table]:
    """Yield the records in the order of a history, in pieces of its schema."""
    records = records.combine_chunks()
    order = records.sort_by(_ORDER) if records.num_rows else records
    for start in range(0, order.num_rows, ROW_GROUP_ROWS):
        yield order.slice(start, ROW_GROUP_ROWS).select(SCHEMA.names).cast(SCHEMA)


def _columns(topic: str, rank: int, records: Iterator[Record]) -> pa.Table:
    """Collect records as columns, piece by piece: Python objects would take several times the memory."""
    pieces = []
    while piece := list(islice(records, ROW_GROUP_ROWS)):
        columns = [
            [topic] * len(piece),
            [record.key for record in piece],
            [record.value for record in piece],
            [record.partition for record in piece],
            [record.offset for record in piece],
            [record.timestamp_ms for record in piece],
            [rank] * len(piece),
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _LARGE, strict=True)]
        pieces.append(pa.RecordBatch.from_arrays(arrays, schema=_LARGE))
    return pa.Table.from_batches(pieces, schema=_LARGE)


def _refuse_security(kafka: Kafka) -> None:
    found = next((name for name in kafka.properties if name.startswith(_SECURITY)), None)
    if found is not None:
        msg = (
            f"kafka.properties: got {found}; `headrace history` reads brokers without security settings only;"
            f" write the Parquet file by other means, with columns {', '.join(SCHEMA.names)} in the order of replay"
        )
        raise HistoryError(msg)
