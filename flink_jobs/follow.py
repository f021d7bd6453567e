"""Continuous parity: follows the topics of a running job; what it finds is exported as metrics."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flink_jobs.config import Kafka
from flink_jobs.logged import LogReader
from scripts.kafka.batches import raw_batch
from scripts.kafka.consume import consumer_of, record_of
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import HeadraceError
from udfs.core.offline.follow import Follower
from udfs.core.plan.features import feature_set_hash

_POLL_MS, _MAX_POLL_RECORDS = 200, 5_000


def follow_job(
    pipeline: Pipeline,
    folder: Path,
    kafka: Kafka,
    share: float,
    is_over: Callable[[], bool],
    report: Callable[[Follower], None],
) -> Follower:
    """Read the topics of a job from their beginning, and then what comes, until it is over.

    Parameters
    ----------
    pipeline, folder : the definition, without topic prefix, and the folder its files are relative to
    kafka : where the topics are
    share : of the keys of each entity that is compared
    is_over : asked after each look at the topics; Ctrl-C ends it, too
    report : gets what was found so far

    Returns
    -------
    What was found.

    Raises
    ------
    TopicError, LoggedError : a topic is missing, or holds what the job does not write.
    """
    follower, prefix = Follower(pipeline, folder, share), kafka.topic_prefix
    reader, sinks = LogReader(pipeline, feature_set_hash(pipeline, folder), prefix), pipeline.sinks
    read = [prefix + topic for topic in (pipeline.source.topic, *(one.topic for one in pipeline.enrichments))]
    written = dict.fromkeys(prefix + one.topic for one in (sinks.predictions, sinks.rejects, sinks.late, sinks.order))
    inputs, _ = consumer_of(kafka.bootstrap_servers, *read)
    outputs, _ = consumer_of(kafka.bootstrap_servers, *written)
    try:
        while True:
            logged = outputs.poll(_POLL_MS, _MAX_POLL_RECORDS)
            found = reader.read(record_of(raw) for fetched in logged.values() for raw in fetched)
            follower.add_logged(found.logged)
            follower.others += found.others
            came = inputs.poll(_POLL_MS, _MAX_POLL_RECORDS)
            for place, fetched in came.items():
                follower.add_inputs(raw_batch(place.topic.removeprefix(prefix), [record_of(raw) for raw in fetched]))
            follower.advance(is_settled=not logged and not came, now_s=time.monotonic())
            report(follower)
            if is_over():
                return follower
    except KeyboardInterrupt:
        return follower
    finally:
        inputs.close()
        outputs.close()


@contextmanager
def metrics(pipeline: str, port: int) -> Iterator[Callable[[Follower], None]]:
    """Serve metrics on loopback while the block runs; yields what sets them.

    `headrace_parity_rows{pipeline,feature,outcome}` counts compared values, outcome `equal`, `different` or `missing`;
    `headrace_parity_waiting_rows{pipeline}` are rows that wait for others before them.

    Raises
    ------
    HeadraceError : the port is taken, or the library is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, Gauge, start_http_server
    except ModuleNotFoundError as error:
        msg = "metrics need prometheus_client; install it with: pip install 'headrace[metrics]'"
        raise HeadraceError(msg) from error
    registry = CollectorRegistry()
    rows = Gauge(
        "headrace_parity_rows",
        "Values compared with a recomputation.",
        ["pipeline", "feature", "outcome"],
        registry=registry,
    )
    waiting = Gauge("headrace_parity_waiting_rows", "Rows that wait for others.", ["pipeline"], registry=registry)
    try:
        server, thread = start_http_server(port, "127.0.0.1", registry)
    except OSError as error:
        msg = f"port {port}: cannot be listened on ({error.strerror}); choose another with --port"
        raise HeadraceError(msg) from error

    def show(follower: Follower) -> None:
        waiting.labels(pipeline).set(follower.waiting)
        for name, one in follower.features.items():
            for outcome in ("equal", "different", "missing"):
                rows.labels(pipeline, name, outcome).set(getattr(one, outcome))

    try:
        yield show
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
