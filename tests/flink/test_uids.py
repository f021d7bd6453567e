"""Uids of the scoring job: every operator has one, and it stays whatever else is in the job or was planned before."""

from pathlib import Path
from typing import Any

from flink_jobs.config import Environment
from flink_jobs.environment import flink_options, latency_knobs
from flink_jobs.score import assemble
from tests.flink.cluster import Cluster
from tests.flink.flights import FLIGHTS
from udfs.core.declare.declarations import Enrichment
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.plan.features import plan_operators

ENVIRONMENT = Environment.model_validate(
    {
        "kafka": {"bootstrap_servers": "nowhere:9092"},
        "redis": {"url": "redis://nowhere"},
        "mlflow": {"tracking_uri": "http://nowhere"},
        "flink": {"rest_url": "http://nowhere", "checkpoints": Path("/c").as_uri(), "savepoints": Path("/s").as_uri()},
    }
)


def uids(cluster: Cluster, pipeline: Pipeline) -> list[str | None]:
    """Return the uids of all operators of the planned job; nothing is submitted."""
    knobs = latency_knobs(pipeline.latency, len(plan_operators(pipeline)))
    execution: Any = cluster.environment(flink_options(pipeline, ENVIRONMENT, knobs))
    assemble(execution, pipeline, ENVIRONMENT, knobs)
    return [node.getTransformationUID() for node in execution._generate_stream_graph(False).getStreamNodes().toArray()]


def test_every_operator_has_a_uid_that_another_enrichment_does_not_move(cluster: Cluster) -> None:
    plain = load_pipeline(FLIGHTS)
    declared = plain.enrichments[0].model_dump(mode="json", by_alias=True)
    another = Enrichment.model_validate(
        declared | {"name": "aloft", "topic": "flights.aloft", "entity": "tailnum", "take": {"gust_mph": "wind_gust"}}
    )
    extended = plain.model_copy(update={"enrichments": (another, *plain.enrichments)})

    before, after = uids(cluster, plain), uids(cluster, extended)

    assert None not in after
    assert len(set(after)) == len(after)
    assert set(before) < set(after)
    assert {uid for uid in set(after) - set(before) if uid and "aloft" not in uid} == set()


def test_with_another_number_of_lanes_no_state_is_found(cluster: Cluster) -> None:
    """Flink then refuses the savepoint, rather than let keys find the state of other lanes."""
    one = load_pipeline(FLIGHTS)
    two, four = (one.model_copy(update={"lanes": lanes}) for lanes in (2, 4))
    with_state = [
        {uid for uid in uids(cluster, pipeline) if uid and uid.startswith(("events", "enrichment", "featurize"))}
        for pipeline in (one, two, four)
    ]
    assert all(with_state)
    assert not with_state[0] & with_state[1]
    assert not with_state[1] & with_state[2]
