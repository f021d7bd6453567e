"""The Flink settings of a job, derived from the environment and the pipeline's latency target."""

from dataclasses import dataclass

from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment

from flink_jobs.config import Environment
from udfs.core.declare.declarations import Latency
from udfs.core.declare.definition import Pipeline


@dataclass(frozen=True, slots=True)
class LatencyKnobs:
    """The three knobs that belong together, in milliseconds."""

    #: micro-batch window in the JVM
    linger_ms: int
    #: longest time a Python bundle stays open; each un-chained Python operator adds up to one
    bundle_ms: int
    #: longest time a record waits in a network buffer
    buffer_timeout_ms: int


def latency_knobs(latency: Latency, operators: int) -> LatencyKnobs:
    """Split a latency target over the path; a knob set by hand keeps its value.

    A record waits for one linger, then for at most one bundle per featurize operator. Half of the target is left for
    the work itself and for the broker. Smaller batches cost more CPU per event: the knobs are as large as can be.
    """
    share_ms = latency.target_ms / 2 / (operators + 1)
    return LatencyKnobs(
        linger_ms=latency.linger_ms or min(max(int(share_ms), 5), 200),
        bundle_ms=latency.bundle_ms or min(max(int(share_ms / 2), 2), 100),
        buffer_timeout_ms=latency.buffer_timeout_ms or min(max(int(share_ms / 4), 1), 20),
    )


def flink_options(pipeline: Pipeline, environment: Environment, knobs: LatencyKnobs) -> dict[str, str]:
    """Return the Flink options of a job."""
    flink = environment.flink
    return {
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": "true",
        "execution.checkpointing.interval": f"{flink.checkpoint_interval_ms}ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE" if flink.exactly_once else "AT_LEAST_ONCE",
        # Without it, local mode keeps checkpoints in the JobManager's 5 MB and fails for ever.
        "execution.checkpointing.dir": flink.checkpoints,
        "execution.checkpointing.savepoint-dir": flink.savepoints,
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        # Without it, the explode behind the last operator copies the whole batch for each record.
        "pipeline.object-reuse": "true",
        "pipeline.max-parallelism": str(flink.max_parallelism),
        "parallelism.default": str(flink.parallelism),
        "python.fn-execution.bundle.time": str(knobs.bundle_ms),
        "execution.buffer-timeout": f"{knobs.buffer_timeout_ms}ms",
        # Pending micro-batches live in the SQL windows: their uids must survive a redeploy, so `uids` gives them.
        "table.exec.uid.generation": "DISABLED",
        "pipeline.name": environment.job_name(pipeline.name),
        **flink.options,
    }


def execution_environment(options: dict[str, str]) -> StreamExecutionEnvironment:
    """Return the environment that the job is built in: the cluster's under `flink run`, a local one otherwise."""
    configuration = Configuration()
    for name, value in options.items():
        configuration.set_string(name, value)
    return StreamExecutionEnvironment.get_execution_environment(configuration)
