"""Four lanes on two subtasks, from three partitions: nothing missing or doubled, exact in the order stamped."""

import socket
import time
from urllib.request import urlopen

import pytest

from flink_jobs.compare import compare_logged, of_follower
from flink_jobs.follow import follow_job, metrics
from scripts.flights.replay import replay
from scripts.flights.stream import merge
from scripts.kafka.consume import Record
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.flights import PATIENT, departures, flights_folder, weather
from tests.flink.names import fresh_prefix
from tests.flink.scoring import Outputs, Scoring, assert_each_once, assert_gapless, scoring
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.offline.follow import Follower
from udfs.core.plan.features import plan_stages
from udfs.core.rows.lanes import lane_of

LANES = 4


@pytest.fixture(scope="module")
def run(
    cluster: Cluster, services: Endpoints, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Scoring, dict[str, list[Record]], Outputs]:
    """Return the setting, all that was read and all that came out."""
    folder, prefix = tmp_path_factory.mktemp("parallel"), fresh_prefix("parallel")
    setting = scoring(
        cluster, services, flights_folder(folder / "flights"), prefix, folder,
        partitions=3, lanes=LANES, time=PATIENT,
    )  # fmt: skip
    job = setting.start(parallelism=2)
    sent, _ = departures(prefix, each=1)
    replay(merge(weather(prefix), sent), setting.kafka, rate_eps=400.0)
    setting.await_outputs(len(sent) + len(weather(prefix)))
    assert cluster.failures(job) == []
    cluster.stop(job)
    return setting, setting.inputs(), setting.outputs()


def test_every_record_ends_exactly_once(run: tuple[Scoring, dict[str, list[Record]], Outputs]) -> None:
    setting, inputs, outputs = run
    assert {record.partition for record in inputs[setting.pipeline.source.topic]} == {0, 1, 2}
    assert_each_once(inputs, outputs)
    assert min(len(outputs.rejects), len(outputs.late)) > 0


def test_every_lane_of_every_stage_numbers_its_rows_without_a_gap(
    run: tuple[Scoring, dict[str, list[Record]], Outputs],
) -> None:
    setting, _, outputs = run
    assert_gapless(outputs)
    lanes_of_entity = {
        stage.entity: {lane for entity, lane in outputs.stamps() if entity == stage.entity}
        for stage in plan_stages(setting.pipeline)
    }
    assert lanes_of_entity["tailnum"] == set(range(LANES))
    assert lanes_of_entity["origin"] == {lane_of(origin, LANES) for origin in ("EWR", "JFK", "LGA")}


def test_every_row_was_numbered_in_the_lane_of_its_entity(
    run: tuple[Scoring, dict[str, list[Record]], Outputs],
) -> None:
    _, inputs, outputs = run
    keys = {(topic, one.partition, one.offset): one.key for topic, records in inputs.items() for one in records}
    for origin, seen in outputs.observed.items():
        for entity in seen.order.keys() & {"tailnum"}:
            assert seen.order[entity][0] == lane_of((keys[origin] or b"").decode(), LANES)


def test_features_equal_those_of_each_lane_run_alone_in_the_stamped_order(
    run: tuple[Scoring, dict[str, list[Record]], Outputs],
) -> None:
    setting, inputs, outputs = run
    report = setting.parity(inputs, outputs)
    assert report.rows == len(outputs.predictions) > 1_000
    assert (report.mismatches, report.missing, report.examples) == (0, 0, [])


def declared(setting: Scoring) -> Pipeline:
    """Return the pipeline as a user has it, without the prefix of the topics."""
    return load_pipeline(setting.folder).model_copy(update={"lanes": LANES, "time": PATIENT})


def test_parity_reads_the_same_from_the_topics(run: tuple[Scoring, dict[str, list[Record]], Outputs]) -> None:
    setting, _, outputs = run
    found = compare_logged(declared(setting), setting.folder, setting.environment, None, archive=False)
    assert found.is_equal, found.report.examples
    assert (found.report.rows, found.report.gaps, found.others) == (len(outputs.predictions), 0, 0)


def test_parity_beside_the_job_finds_the_same_and_serves_it(
    run: tuple[Scoring, dict[str, list[Record]], Outputs],
) -> None:
    setting, _, outputs = run
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with metrics("flights", port) as publish:
        deadline_s, counts = time.monotonic() + 60, [0]

        def report(follower: Follower) -> None:
            publish(follower)
            counts.append(follower.features["origin_dep_delay_min_mean_1h"].rows)

        def is_over() -> bool:
            return counts[-1] == len(outputs.predictions) or time.monotonic() > deadline_s

        kafka = setting.environment.kafka
        follower = follow_job(declared(setting), setting.folder, kafka, 1.0, is_over, report)
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            served = answer.read().decode()
    assert of_follower(follower).is_equal, follower.examples
    assert counts[-1] == len(outputs.predictions)
    line = 'headrace_parity_rows{feature="origin_dep_delay_min_mean_1h",outcome="equal",pipeline="flights"}'
    assert f"{line} {counts[-1]:.1f}" in served
    assert 'headrace_parity_waiting_rows{pipeline="flights"} 0.0' in served
