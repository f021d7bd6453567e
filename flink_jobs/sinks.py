"""The Kafka sink: one sink for all topics of a job, so that a batch's predictions, rejects, late rows and order notes
are committed in the same transaction. Guarantee: exactly once, visible to read_committed readers at each checkpoint.
"""

from pyflink.datastream import DataStream
from pyflink.table import StreamTableEnvironment

from flink_jobs.config import Environment
from flink_jobs.lanes import with_clause
from flink_jobs.uids import name_operators
from udfs.core.declare.definition import Pipeline
from udfs.core.model.predictions import KEY_SEPARATOR, RECORD_SEPARATOR

SINK = "headrace_sink"


def sink_options(pipeline: Pipeline, environment: Environment) -> dict[str, str]:
    """Return the connector options of the sink table."""
    kafka, sinks = environment.kafka, pipeline.sinks
    topics = [sinks.predictions.topic, sinks.rejects.topic, sinks.late.topic, sinks.order.topic]
    options = {
        "connector": "kafka",
        "topic": ";".join(dict.fromkeys(topics)),
        "properties.bootstrap.servers": kafka.bootstrap_servers,
        "properties.linger.ms": "20",
        "properties.batch.size": "131072",
        "key.format": "raw",
        "key.fields": "k",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }
    if environment.flink.exactly_once:
        options |= {
            "sink.delivery-guarantee": "exactly-once",
            "sink.transactional-id-prefix": environment.job_name(pipeline.name),
            "properties.transaction.timeout.ms": str(kafka.transaction_timeout_ms),
        }
    return options | {f"properties.{name}": value for name, value in kafka.properties.items()}


def write_outputs(
    tables: StreamTableEnvironment, outputs: DataStream, pipeline: Pipeline, environment: Environment
) -> None:
    """Explode the rows of `udfs.write` in the JVM into single records, and send each to its topic."""
    tables.create_temporary_view("outputs", tables.from_data_stream(outputs))
    tables.execute_sql(f"""
        CREATE TABLE {SINK} (
          k BYTES, v BYTES, topic STRING NOT NULL METADATA FROM 'topic', h MAP<STRING, BYTES> METADATA FROM 'headers'
        ) WITH ({with_clause(sink_options(pipeline, environment))})""")
    statements = tables.create_statement_set()
    statements.add_insert_sql(f"""
        INSERT INTO {SINK}
        SELECT CAST(SPLIT_INDEX(record, {_character(KEY_SEPARATOR)}, 0) AS BYTES),
               CAST(SPLIT_INDEX(record, {_character(KEY_SEPARATOR)}, 1) AS BYTES),
               '{pipeline.sinks.predictions.topic}', CAST(NULL AS MAP<STRING, BYTES>)
        FROM outputs CROSS JOIN UNNEST(SPLIT(predictions, {_character(RECORD_SEPARATOR)})) AS T(record)
        WHERE predictions <> ''
        UNION ALL
        SELECT letter_k, letter_v, letter_topic, letter_h
        FROM outputs CROSS JOIN UNNEST(letters) AS L(letter_topic, letter_k, letter_v, letter_h)""")
    statements.attach_as_datastream()
    for transformation in outputs.get_execution_environment()._j_stream_execution_environment.getTransformations():
        name_operators(transformation, SINK)


def _character(separator: str) -> str:
    return f"U&'\\{ord(separator):04X}'"
