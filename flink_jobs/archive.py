"""The archive job: what a pipeline wrote to Kafka, and its labels, become Parquet files by day; SQL in the JVM alone.

Guarantee: exactly once; files appear at each checkpoint, and a restart from the last savepoint or checkpoint neither
loses nor repeats a row.

flink run -d -py flink_jobs/archive.py -pyfs build/headrace.zip -pyexec PYTHON -pyclientexec PYTHON \
        --pipeline conf/flights --environment conf/local.yaml
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from flink_jobs.archive_rows import rows_of, sql_type
from flink_jobs.config import DEFAULT_ENVIRONMENT, Archive, Environment, archive_of, load_environment
from flink_jobs.environment import execution_environment, flink_options, latency_knobs
from flink_jobs.lanes import with_clause
from flink_jobs.project import archive_jars
from flink_jobs.sources import epoch_ms, source_options
from flink_jobs.uids import name_operators
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline, pipeline_folder
from udfs.core.errors import HeadraceError
from udfs.core.offline.archive import ArchiveKind, archive_folder, archive_schema, archived_topics

# A file is open for each day that rows come for, a year of them when a backlog is read. With these its memory follows
# its rows (about 1 MB for a thousand with 60 columns), up to a row group; Parquet's own settings take 3 MB at once.
PARQUET = {
    "parquet.compression": "SNAPPY",
    "parquet.block.size": str(32 * 1024 * 1024),
    "parquet.page.size": str(64 * 1024),
    "parquet.enable.dictionary": "false",
}


def submit(folder: Path, environment_path: Path, jars: Path | None = None) -> str:
    """Build the job and submit it.

    Parameters
    ----------
    jars : folder of the jars that write Parquet; None means `build/jars/archive`

    Returns
    -------
    The Flink job id.

    Raises
    ------
    HeadraceError : definition or environment are not fit to run, or the jars are missing; nothing was submitted.
    """
    environment = load_environment(environment_path)
    declared = load_pipeline(folder)
    archive = archive_of(environment, environment_path)
    pipeline = declared.with_topic_prefix(environment.kafka.topic_prefix)
    flink = execution_environment(archive_options(pipeline, environment, archive))
    # The cluster's own class path, that of the scoring job, stays free of Hadoop.
    flink.add_jars(*(jar.resolve().as_uri() for jar in archive_jars(jars)))
    assemble(flink, pipeline, environment, archive)
    return str(flink.execute_async(environment.archive_job_name(pipeline.name)).get_job_id())


def archive_options(pipeline: Pipeline, environment: Environment, archive: Archive) -> dict[str, str]:
    """Return the Flink options of the job: those of the scoring job, but for checkpoints, parallelism and name."""
    return flink_options(pipeline, environment, latency_knobs(pipeline.latency, 1)) | {
        "execution.checkpointing.interval": f"{archive.checkpoint_interval_ms}ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "parallelism.default": str(archive.parallelism),
        "pipeline.name": environment.archive_job_name(pipeline.name),
        "table.local-time-zone": "UTC",
    }


def assemble(flink: StreamExecutionEnvironment, pipeline: Pipeline, environment: Environment, archive: Archive) -> None:
    """Put the job together: per kind a topic, its rows, and a folder of files.

    Parameters
    ----------
    pipeline : the effective definition, topic names included
    """
    tables = StreamTableEnvironment.create(flink)
    planned = flink._j_stream_execution_environment.getTransformations()
    for kind, topic in archived_topics(pipeline).items():
        before = len(planned)
        tables.execute_sql(_source(kind, topic, pipeline, environment))
        tables.execute_sql(_sink(kind, pipeline, archive))
        statements = tables.create_statement_set()
        statements.add_insert_sql(f"INSERT INTO archive_{kind} {rows_of(f'topic_{kind}', pipeline, kind)}")
        statements.attach_as_datastream()
        for transformation in list(planned)[before:]:
            _source_of(transformation).setUid(f"archive-{kind}-source")
            name_operators(transformation, f"archive-{kind}")


def _source(kind: ArchiveKind, topic: str, pipeline: Pipeline, environment: Environment) -> str:
    group = {"properties.group.id": environment.archive_job_name(pipeline.name)}
    return f"""
        CREATE TABLE topic_{kind} (
          v BYTES, k BYTES,
          part INT METADATA FROM 'partition' VIRTUAL,
          off BIGINT METADATA FROM 'offset' VIRTUAL,
          ts TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
          h MAP<STRING, BYTES> METADATA FROM 'headers' VIRTUAL,
          ms AS {epoch_ms("ts")}
        ) WITH ({with_clause(source_options(topic, pipeline, environment) | group)})"""


def _sink(kind: ArchiveKind, pipeline: Pipeline, archive: Archive) -> str:
    columns = ", ".join(f"`{field.name}` {sql_type(field.type)}" for field in archive_schema(pipeline, kind))
    options = {
        "connector": "filesystem",
        "path": archive_folder(archive.root, pipeline.name, kind),
        "format": "parquet",
        # A Parquet file ends at every checkpoint: their interval, not a compaction behind it, keeps files few.
        "sink.rolling-policy.file-size": f"{archive.file_mb}MB",
    } | PARQUET
    return f"CREATE TABLE archive_{kind} ({columns}, `day` STRING) PARTITIONED BY (`day`) WITH ({with_clause(options)})"


def _source_of(transformation: Any) -> Any:
    while transformation.getInputs():
        transformation = transformation.getInputs()[0]
    return transformation


def main(arguments: list[str]) -> None:
    """Run from `flink run`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pipeline", type=Path, required=True, help="pipeline folder, such as conf/flights")
    parser.add_argument("--environment", type=Path, default=DEFAULT_ENVIRONMENT, help="environment file")
    parser.add_argument("--jars", type=Path, help="folder of the jars that write Parquet; default: build/jars/archive")
    chosen = parser.parse_args(arguments)
    try:
        submit(pipeline_folder(chosen.pipeline), chosen.environment, chosen.jars)  # Flink's client prints the job id
    except HeadraceError as error:
        sys.exit(f"headrace: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
