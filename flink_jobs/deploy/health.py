"""Is a new job healthy: it runs, completed a checkpoint, and what it committed is of its version and mostly scores."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flink_jobs.config import Deploy, Environment
from flink_jobs.deploy.cluster import Cluster
from flink_jobs.rest import FlinkError
from scripts.kafka.consume import consumer_of
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import HeadraceError

POLL_S = 0.1
ROWS_MIN = 100
"""Fewer rows than this say nothing of the share of rejects."""
_TAIL = 20

Ends = dict[str, dict[str, int]]
"""Topic -> partition -> offset; partitions as text, as JSON has them."""


class UnhealthyError(HeadraceError):
    """The new job is not fit to stay; says why."""


@dataclass(frozen=True, slots=True)
class Topics:
    """What is looked at, with prefix."""

    source: str
    predictions: str
    rejects: str

    @classmethod
    def of(cls, pipeline: Pipeline, environment: Environment) -> "Topics":
        """Return those of a pipeline."""
        prefix, sinks = environment.kafka.topic_prefix, pipeline.sinks
        return cls(*(prefix + one.topic for one in (pipeline.source, sinks.predictions, sinks.rejects)))


def ends(bootstrap: str, topics: Topics) -> Ends:
    """Return where the committed records of the topics end."""
    consumer, places = consumer_of(bootstrap, topics.source, topics.predictions, topics.rejects)
    found: Ends = {}
    try:
        for place, offset in consumer.end_offsets(places).items():
            found.setdefault(place.topic, {})[str(place.partition)] = offset
    finally:
        consumer.close()
    return found


def last_version(bootstrap: str, topic: str) -> str | None:
    """Return the version of the newest committed prediction; None if there is none."""
    consumer, places = consumer_of(bootstrap, topic)
    try:
        last = consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, max(last[place] - _TAIL, 0))
        newest: tuple[int, str] | None = None
        deadline_s = time.monotonic() + 5
        while any(consumer.position(place) < last[place] for place in places) and time.monotonic() < deadline_s:
            for fetched in consumer.poll(200).values():
                for raw in fetched:
                    newest = max(newest or (0, ""), (raw.timestamp, _version(raw.value) or ""))
        return newest[1] or None if newest else None
    finally:
        consumer.close()


def watch(
    cluster: Cluster,
    job_id: str,
    version: str,
    since: Ends,
    topics: Topics,
    kafka: str,
    rules: Deploy,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Wait until a new job is healthy, and return what was seen.

    Parameters
    ----------
    version : that its predictions must carry
    since : where the topics ended when it was submitted
    rules : time limit and bounds

    Raises
    ------
    UnhealthyError : it is not, or not in time.
    FlinkError : the cluster is away; nothing is known.
    """
    deadline_s = clock() + rules.healthy_within_ms / 1000
    try:
        cluster.wait_running(job_id, rules.healthy_within_ms / 1000)
    except FlinkError as error:
        cluster.jobs()  # away, or is it the job?
        raise UnhealthyError(str(error)) from error
    consumer, _ = consumer_of(kafka, topics.predictions, topics.rejects)
    written, places = consumer_of(kafka, topics.predictions, topics.source, committed=False)
    is_asked = False
    try:
        for place in consumer.assignment():
            consumer.seek(place, since[place.topic].get(str(place.partition), 0))
        seen = _Seen(version)
        while True:
            for place, fetched in consumer.poll(int(POLL_S * 1000), 5_000).items():
                seen.add([] if place.topic == topics.rejects else fetched, len(fetched))
            _refuse_failures(cluster, job_id, rules)
            seen.refuse_rejects(rules.max_reject_share)
            ends = written.end_offsets(places)
            grown = {place.topic for place in places if ends[place] > since[place.topic].get(str(place.partition), 0)}
            if topics.predictions in grown and not is_asked:
                # Readers of committed records see nothing before the first checkpoint; why wait for its turn?
                cluster.checkpoint(job_id)
                is_asked = True
            completed = cluster.progress(job_id).completed
            # Where no event comes, none can be seen.
            is_idle = not seen.rows and topics.source not in grown
            if completed and (seen.predictions or is_idle):
                return {**asdict(seen), "checkpoints": completed}
            if clock() > deadline_s:
                msg = (
                    f"not healthy after {rules.healthy_within_ms / 1000:g} s: {completed} checkpoints completed, "
                    f"{seen.predictions} predictions of version {version} among {seen.rows} rows"
                )
                raise UnhealthyError(msg)
    finally:
        consumer.close()
        written.close()


@dataclass(slots=True)
class _Seen:
    """What was committed since the start."""

    version: str
    rows: int = 0
    predictions: int = 0
    rejects: int = 0
    first_prediction_ms: int | None = None

    def add(self, predicted: Sequence[Any], rows: int) -> None:
        self.rows += rows
        self.rejects += rows - len(predicted)
        for raw in predicted:
            if _version(raw.value) == self.version:
                self.predictions += 1
                self.first_prediction_ms = self.first_prediction_ms or raw.timestamp

    def refuse_rejects(self, max_share: float) -> None:
        if self.rows >= ROWS_MIN and self.rejects / self.rows > max_share:
            msg = f"{self.rejects} of {self.rows} rows since its start are rejects; a share of {max_share:g} is allowed"
            raise UnhealthyError(msg)


def _refuse_failures(cluster: Cluster, job_id: str, rules: Deploy) -> None:
    job = cluster.known(job_id)
    restarts = cluster.health(job_id).restarts if job else 0
    if job is None or job.ended or restarts > rules.max_restarts:
        state = "unknown to the cluster" if job is None else f"{job.state}, restarted {restarts} times"
        cause = cluster.failure(job_id) if job else None
        msg = f"the new job is {state}: {cause or 'no failure is noted'}"
        raise UnhealthyError(msg)


def _version(value: bytes | None) -> str | None:
    try:
        return str(json.loads(value or b"")["model"]["version"])
    except (ValueError, KeyError, TypeError):
        return None
