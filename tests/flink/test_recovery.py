"""Abort and resume: a killed worker, a lost TaskManager, a stop with a savepoint, another parallelism. Nothing shows."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np

from scripts.flights.replay import replay
from scripts.flights.stream import Events, merge
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.flights import PATIENT, departures, flights_folder, weather
from tests.flink.scoring import Scoring, assert_each_once, assert_gapless, scoring
from udfs.core.definition import Latency

RATE_EPS = 150.0
LINGER_MS = 5_000


def test_a_killed_worker_and_a_lost_task_manager_leave_no_trace_in_the_outputs(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    setting = scoring(
        cluster, services, flights_folder(tmp_path / "flights"), prefix, tmp_path, partitions=2, lanes=2, time=PATIENT
    )
    job = setting.start(parallelism=2)
    sent = merge(weather(prefix), departures(prefix, each=1)[0])
    traffic = threading.Thread(target=replay, args=(sent, setting.kafka), kwargs={"rate_eps": RATE_EPS})
    traffic.start()
    setting.await_outputs(200)  # committed by a checkpoint, which is what the job goes back to

    assert traffic.is_alive()
    os.kill(cluster.python_workers()[0], signal.SIGKILL)
    cluster.await_restart(job, 1)
    before = len(setting.outputs().ends)
    setting.await_outputs(before + 100)

    assert traffic.is_alive()
    restarts = cluster.restarts(job)
    cluster.kill_task_manager()
    cluster.await_restart(job, restarts + 1)
    traffic.join()
    setting.await_outputs(len(sent))
    cluster.stop(job)
    _assert_exact(setting)


def test_a_job_goes_on_from_its_savepoint_with_pending_batches_also_at_another_parallelism(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    setting = scoring(
        cluster, services, flights_folder(tmp_path / "flights"), prefix, tmp_path,
        partitions=2, lanes=2, time=PATIENT, latency=Latency.model_validate({"linger": f"{LINGER_MS}ms"}),
    )  # fmt: skip
    sent = merge(weather(prefix), departures(prefix, each=1)[0])
    first, second, third, fourth = (sent.take(part) for part in np.array_split(np.arange(len(sent)), 4))

    job = setting.start(parallelism=1)
    replay(first, setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(len(first))
    savepoint = _stop_with_pending(setting, job, len(first), second)

    job = setting.start(parallelism=1, savepoint=savepoint)
    setting.await_outputs(len(first) + len(second))
    savepoint = _stop_with_pending(setting, job, 0, third)

    job = setting.start(parallelism=2, savepoint=savepoint)
    setting.await_outputs(len(first) + len(second) + len(third))
    replay(fourth, setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(len(sent))
    assert cluster.failures(job) == []
    cluster.stop(job)
    _assert_exact(setting)


def _stop_with_pending(setting: Scoring, job: str, read_before: int, more: Events) -> str:
    """Send records and stop the job while they wait in micro-batches; return the savepoint."""
    topic, cluster = setting.pipeline.source.topic, setting.cluster
    departing = sum(one == topic for one in more.topics)
    before = sum(origin.topic == topic for origin in setting.outputs().ends) if read_before else 0
    time.sleep((LINGER_MS - time.time() * 1000 % LINGER_MS) / 1000)  # windows of processing time start at the epoch
    replay(more, setting.kafka, as_fast_as_possible=True)
    while cluster.records_read(job, "events") < before + departing:
        time.sleep(0.05)
    savepoint = cluster.stop(job)
    out = setting.outputs().ends
    sent = sum(len(records) for records in setting.inputs().values())
    assert len(out) < sent, "every record had come out already: the savepoint held none"
    return savepoint


def _assert_exact(setting: Scoring) -> None:
    inputs, outputs = setting.inputs(), setting.outputs()
    assert_each_once(inputs, outputs)
    assert_gapless(outputs)
    report = setting.parity(inputs, outputs)
    assert report.rows == len(outputs.predictions) > 1_500
    assert (report.mismatches, report.missing, report.examples) == (0, 0, [])
