"""Departures that wait for their weather: released by its rows, over a restart, or by a timer when no row comes."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scripts.flights import events
from scripts.flights.replay import replay
from scripts.flights.stream import Events
from scripts.kafka.batches import raw_batch
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.flights import DAYS, FLIGHTS, PATIENT, weather
from tests.flink.scoring import Outputs, Scoring, assert_exact, scoring
from udfs.core.declare.loading import load_pipeline
from udfs.core.offline.backfill import Part
from udfs.core.offline.state import build_state
from udfs.core.plan.features import plan_stages
from udfs.core.stage.lane import Lane
from udfs.core.state.header import log_name
from udfs.core.state.snapshot import Snapshot, write_snapshot

NO_WEATHER = {"temp_f": -999, "wind_speed_mph": 0, "precip_in": 0.5, "visib_mi": None}
COUNT = 150


def waiting(
    cluster: Cluster, services: Endpoints, prefix: str, scratch: Path, wait_ms: int, **changes: Any
) -> tuple[Scoring, Events]:
    """Set up the flights pipeline so that a departure waits for its weather; return departures, too."""
    (declared,) = load_pipeline(FLIGHTS).enrichments
    changed = {"wait_ms": wait_ms, "on_missing": "default", "default": NO_WEATHER}
    changes |= {"time": PATIENT, "enrichments": (declared.model_copy(update=changed),)}
    setting = scoring(cluster, services, FLIGHTS, prefix, scratch, **changes)
    sent = events.departures(*DAYS).prefixed(prefix)
    return setting, sent.take(np.arange(COUNT))


def await_read(setting: Scoring, job: str, count: int) -> None:
    """Wait until a job has read that many departures, and its micro-batches have gone on."""
    deadline_s = time.monotonic() + 120
    while setting.cluster.records_read(job, "events") < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    time.sleep(1.0)


def features(outputs: Outputs) -> list[Mapping[str, float | None]]:
    return [value["features"] for value in outputs.predicted.values()]


def stopped(setting: Scoring, job: str) -> Outputs:
    """Stop a job; everything that it wrote must be exact."""
    assert setting.cluster.failures(job) == []
    setting.cluster.stop(job)
    return assert_exact(setting, least=int(0.9 * COUNT))  # a few were cancelled


def test_departures_wait_for_their_weather_also_over_a_restart(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    setting, sent = waiting(cluster, services, prefix, tmp_path, wait_ms=3_600_000, lanes=2)
    job = setting.start()
    replay(sent, setting.kafka, as_fast_as_possible=True)
    await_read(setting, job, COUNT)
    savepoint = cluster.stop(job)
    assert setting.outputs().predictions == [], "nothing may come out before its weather"

    job = setting.start(savepoint=savepoint)
    sky = weather(prefix)
    replay(sky, setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(COUNT + len(sky))
    found = features(stopped(setting, job))
    assert len([one for one in found if one["temp_f"] not in (None, -999)]) > COUNT // 2
    assert [one for one in found if one["temp_f"] == -999] == []


def test_departures_go_on_without_weather_when_none_comes(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    setting, sent = waiting(cluster, services, prefix, tmp_path, wait_ms=4_000)
    first, second = (sent.take(part) for part in np.array_split(np.arange(COUNT), 2))
    job = setting.start()
    replay(first, setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(len(first))

    # Timers are restored, too: nothing comes behind these.
    replay(second, setting.kafka, as_fast_as_possible=True)
    await_read(setting, job, COUNT)
    job = setting.start(savepoint=cluster.stop(job))
    setting.await_outputs(COUNT)
    outputs = stopped(setting, job)
    assert {tuple(one[name] for name in NO_WEATHER) for one in features(outputs)} == {(*NO_WEATHER.values(),)}
    assert all(value["order"]["wait_weather"][1] > value["order"]["origin"][1] for value in outputs.predicted.values())


def test_departures_of_a_state_that_a_job_starts_with_go_on_though_no_record_comes(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    setting, sent = waiting(cluster, services, prefix, tmp_path, wait_ms=4_000, lanes=2)
    replay(sent, setting.kafka, as_fast_as_possible=True)
    batches = [raw_batch(topic, records) for topic, records in setting.inputs().items()]
    parts = [Part(batch, np.arange(len(batch.values))) for batch in batches if batch.values]
    built = build_state(setting.pipeline, setting.folder, [parts])
    held = waiting_events(setting, built)
    assert held > 0.9 * COUNT
    write_snapshot(tmp_path / "built", built)

    job = setting.start(bootstrap=tmp_path / "built")
    setting.await_outputs(held)
    assert cluster.failures(job) == []
    cluster.stop(job)
    outputs = setting.outputs()
    assert len(outputs.predictions) == len(outputs.ends) == held
    assert {tuple(one[name] for name in NO_WEATHER) for one in features(outputs)} == {(*NO_WEATHER.values(),)}


def waiting_events(setting: Scoring, state: Snapshot) -> int:
    """Return how many events wait in a state."""
    count = 0
    for stage in plan_stages(setting.pipeline):
        for number in range(setting.pipeline.lanes):
            log = dict(enumerate(state.logs.get((log_name(stage.entity), number), ())))
            held = Lane(setting.pipeline, stage, number, log).waiting
            count += len(held) if held is not None else 0
    return count
