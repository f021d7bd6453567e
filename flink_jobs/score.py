"""The scoring job: events from Kafka are validated, turned into windowed features, scored, and written exactly once.

flink run -d -py flink_jobs/score.py -pyfs build/headrace.zip -pyexec PYTHON -pyclientexec PYTHON \
        --pipeline conf/flights --environment conf/local.yaml
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pyflink.common import Time, Types
from pyflink.datastream import AsyncDataStream, DataStream, StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from flink_jobs.bootstrap import Bootstrap, bootstrap_from
from flink_jobs.bundle import MODEL_FOLDER, PIPELINE_FOLDER, STATE_FOLDER, ship
from flink_jobs.config import DEFAULT_ENVIRONMENT, Environment, load_environment
from flink_jobs.environment import LatencyKnobs, execution_environment, flink_options, latency_knobs
from flink_jobs.lanes import by_lane, first_batches, lanes_of_topic
from flink_jobs.savepoint import refuse_savepoint
from flink_jobs.sinks import write_outputs
from flink_jobs.sources import source_options, watermark
from models.arms import resolve_arms
from udfs.batch_rows import PIECE_TYPE, RAW_TYPE
from udfs.core.declare.arms import CHAMPION
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import pipeline_folder
from udfs.core.errors import DefinitionError, HeadraceError
from udfs.core.plan.checking import check_pipeline
from udfs.core.plan.features import plan_operators
from udfs.core.rows.lanes import lane_keys
from udfs.core.stage.stamps import stage_name
from udfs.core.state.header import StateHeader
from udfs.featurize import Featurize
from udfs.publish import Publish
from udfs.score import Score
from udfs.write import OUTPUT_TYPE, Write

IN_FLIGHT_PIECES = 32
PIECE = Types.PRIMITIVE_ARRAY(Types.BYTE())
OBJECT = Types.PICKLED_BYTE_ARRAY()
"""Type between operators of one chain, where objects are handed over as they are."""


def submit(
    pipeline_folder: Path,
    environment_path: Path,
    model_version: str | None = None,
    bootstrap: str | None = None,
    arm_versions: Mapping[str, str] | None = None,
    before: Callable[[StreamExecutionEnvironment, StateHeader], None] | None = None,
) -> str:
    """Resolve the models, build the job and submit it.

    Parameters
    ----------
    model_version : of the champion; default: the one that the pipeline's alias points at now
    bootstrap : place of the state snapshot to start from
    arm_versions : arm -> version; default: the one that its alias points at now
    before : called once the job is built, before it is submitted

    Returns
    -------
    The Flink job id.

    Raises
    ------
    HeadraceError : definition, environment or model are not fit to run; nothing was submitted, no offset committed.
    """
    checked = check_pipeline(pipeline_folder)
    declared = checked.pipeline
    environment = load_environment(environment_path)
    if declared.sinks.online_store is not None and environment.redis is None:
        msg = f"{environment_path}: redis: missing; the pipeline has an online store (sinks.online_store)"
        raise DefinitionError(msg)
    pipeline = declared.with_topic_prefix(environment.kafka.topic_prefix)
    knobs = latency_knobs(pipeline.latency, len(plan_operators(pipeline)))
    flink = execution_environment(flink_options(pipeline, environment, knobs))
    header = StateHeader.of(pipeline, pipeline_folder)
    refuse_savepoint(flink, header)
    start = bootstrap_from(bootstrap, header) if bootstrap else None
    with tempfile.TemporaryDirectory(prefix="headrace-") as scratch:
        models = resolve_arms(
            declared.model,
            environment.mlflow.tracking_uri,
            checked.feature_set,
            checked.columns,
            versions={CHAMPION: model_version} | dict(arm_versions or {}),
            into=Path(scratch),
            cache=environment.mlflow.cache,
        )
        folders = {name: model.folder for name, model in models.items()}
        state = Path(start.place) if start is not None and start.is_shipped else None
        ship(flink, pipeline, pipeline_folder, folders[CHAMPION], Path(scratch), state, folders)
        assemble(flink, pipeline, environment, knobs, start)
        if before is not None:
            before(flink, header)
        return str(flink.execute_async(environment.job_name(pipeline.name)).get_job_id())


def assemble(
    flink: StreamExecutionEnvironment,
    pipeline: Pipeline,
    environment: Environment,
    knobs: LatencyKnobs,
    start: Bootstrap | None = None,
) -> None:
    """Put the job together, from source to sink, for `flink` to execute; its files are attached by `bundle.ship`.

    Parameters
    ----------
    pipeline : the effective definition, topic names included
    start : state snapshot to start from
    """
    tables = StreamTableEnvironment.create(flink)
    write_outputs(tables, build(flink, tables, pipeline, environment, knobs, start), pipeline, environment)


def build(
    flink: StreamExecutionEnvironment,
    tables: StreamTableEnvironment,
    pipeline: Pipeline,
    environment: Environment,
    knobs: LatencyKnobs,
    start: Bootstrap | None,
) -> DataStream:
    """Return the stream of outputs: the list of the job's stages."""
    keys = lane_keys(pipeline.lanes, environment.flink.max_parallelism)

    def lanes(table: str, topic: str) -> DataStream:
        offsets = start.offsets.get(topic) if start else None
        options = source_options(topic, pipeline, environment, align=True, offsets=offsets)
        return lanes_of_topic(tables, table, options, knobs.linger_ms, keys, watermark(topic, pipeline))

    stream = lanes("events", pipeline.source.topic)
    if pipeline.enrichments:
        stream = stream.union(*(lanes(f"enrichment_{one.name}", one.topic) for one in pipeline.enrichments))
    snapshot = None
    if start is not None:
        snapshot = STATE_FOLDER if start.is_shipped else start.place
        stream = stream.union(first_batches(flink, pipeline.source.topic, keys))
    stream_type = RAW_TYPE
    for position, stages in enumerate(plan_operators(pipeline)):
        name = stage_name(stages[0]) if len(stages) == 1 else "featurize"
        featurize = Featurize(PIPELINE_FOLDER, position, keys, environment.flink.lane_memory_mb * 2**20, snapshot)
        stream = (
            by_lane(stream, stream_type).process(featurize, PIECE_TYPE).uid(f"{name}-of-{pipeline.lanes}").name(name)
        )
        stream_type = PIECE
    scored = _asynchronously(stream, Score(PIPELINE_FOLDER, MODEL_FOLDER), "score")
    if pipeline.sinks.online_store is not None and environment.redis is not None:
        scored = _asynchronously(scored, Publish(PIPELINE_FOLDER, environment.redis.url), "publish")
    return scored.process(Write(PIPELINE_FOLDER, MODEL_FOLDER), OUTPUT_TYPE).uid("write").name("write")


def _asynchronously(stream: DataStream, function: Score | Publish, name: str) -> DataStream:
    # Ordered, so that the predictions of a key are written in the order of its events.
    # Timeout 0: a positive one costs a thread per record in flight; the functions keep their own deadlines.
    done = AsyncDataStream.ordered_wait(stream, function, Time.milliseconds(0), IN_FLIGHT_PIECES, OBJECT)
    return done.uid(name).name(name)


def arm_version(text: str) -> tuple[str, str]:
    """Read `ARM=VERSION`."""
    arm, separator, version = text.partition("=")
    if not (arm and separator and version):
        msg = f"got {text!r}; ARM=VERSION is expected, such as canary=7"
        raise argparse.ArgumentTypeError(msg)
    return arm, version


def main(arguments: list[str]) -> None:
    """Run from `flink run`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pipeline", type=Path, required=True, help="pipeline folder, such as conf/flights")
    parser.add_argument("--environment", type=Path, default=DEFAULT_ENVIRONMENT, help="environment file")
    parser.add_argument("--model-version", help="of the champion; default: the one that the pipeline's alias points at")
    parser.add_argument(
        "--arm-version", action="append", default=[], type=arm_version, metavar="ARM=VERSION", help="of another arm"
    )
    parser.add_argument("--bootstrap", help="state snapshot to start from: a folder, or a URI that workers can read")
    chosen = parser.parse_args(arguments)
    try:
        # Flink's client prints the job id
        folder, arms = pipeline_folder(chosen.pipeline), dict(chosen.arm_version)
        submit(folder, chosen.environment, chosen.model_version, chosen.bootstrap, arms)
    except HeadraceError as error:
        sys.exit(f"headrace: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
