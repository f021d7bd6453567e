"""Abort and resume: a killed worker, a lost TaskManager, stops with savepoints, another parallelism. Nothing shows."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from scripts.flights.replay import replay
from scripts.flights.stream import Events, merge
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.flights import PATIENT, departures, flights_folder, weather
from tests.flink.pending import LINGER_MS, departing, stop_with_pending
from tests.flink.scoring import Scoring, assert_exact, scoring
from udfs.core.declare.declarations import Latency

RATE_EPS = 150.0


def test_a_killed_worker_and_a_lost_task_manager_leave_no_trace_in_the_outputs(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    setting = scoring(
        cluster, services, flights_folder(tmp_path / "flights"), prefix, tmp_path, partitions=2, lanes=2, time=PATIENT
    )
    job = setting.start()
    sent = merge(weather(prefix), departures(prefix, each=1)[0])
    first, second, third = (sent.take(part) for part in np.array_split(np.arange(len(sent)), 3))
    replay(first, setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(len(first))  # committed by a checkpoint, which is what the job goes back to

    with _traffic(setting, second):
        os.kill(cluster.python_workers()[0], signal.SIGKILL)
    cluster.await_restart(job, 1)
    restarts = cluster.restarts(job)
    with _traffic(setting, third):
        cluster.kill_task_manager()
    cluster.await_restart(job, restarts + 1)
    setting.await_outputs(len(sent))
    cluster.stop(job)
    assert_exact(setting, least=1_000)


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
    savepoint = stop_with_pending(setting, job, departing(setting, first), second)

    job = setting.start(parallelism=1, savepoint=savepoint)
    setting.await_outputs(len(first) + len(second))
    savepoint = stop_with_pending(setting, job, 0, third)

    job = setting.start(parallelism=2, savepoint=savepoint)
    setting.await_outputs(len(first) + len(second) + len(third))
    replay(fourth, setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(len(sent))
    assert cluster.failures(job) == []
    cluster.stop(job)
    assert_exact(setting, least=1_000)


@contextmanager
def _traffic(setting: Scoring, events: Events) -> Iterator[None]:
    """Send events at a pace; what is done inside begins while they flow."""
    sending = threading.Thread(target=replay, args=(events, setting.kafka), kwargs={"rate_eps": RATE_EPS})
    sending.start()
    time.sleep(1.0)
    assert sending.is_alive()
    yield
    sending.join()
