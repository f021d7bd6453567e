"""The demo on four days of flights: everything is accounted for, and Ctrl-C leaves nothing of it behind."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from flink_jobs.rest import FlinkRest
from models.training import Parameters
from scripts.demo.report import Report, failures
from scripts.demo.run import REPORT_FILE, demo
from scripts.demo.settings import Settings
from scripts.services import services as local
from scripts.services.endpoints import Endpoints
from scripts.services.home import REPOSITORY

pytestmark = pytest.mark.timeout(420)

KEYS = {
    "events", "predictions", "rejects", "late", "duplicates", "missing", "throughput_eps", "latency_ms_p50",
    "latency_ms_p99", "auc", "auc_baseline", "parity_rows", "parity_mismatches", "details",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(services: Endpoints) -> Iterator[Path]:
    """Services of the run, as those that commands find without being told."""
    place = Path(services.flink_conf_dir).parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(place))
        yield place


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        history_start=dt.date(2013, 10, 1),
        train_until=dt.date(2013, 10, 25),
        start=dt.date(2013, 11, 1),
        paced_from=dt.date(2013, 11, 3),
        end=dt.date(2013, 11, 4),
        rate_eps=300.0,
        poison_each=2,
        poison_late=10,
        parameters=Parameters(num_iterations=40),
        folder=tmp_path_factory.mktemp("demo"),
        stop_services=True,
    )


@pytest.fixture(scope="module")
def report(settings: Settings, home: Path) -> Report:
    assert home.exists()
    return demo(settings, Console(stderr=True))


def test_every_event_has_its_one_outcome_and_nothing_differs(report: Report, settings: Settings) -> None:
    assert failures(report) == []
    numbers = json.loads((settings.folder / REPORT_FILE).read_text())
    assert set(numbers) == KEYS
    assert numbers["events"] == numbers["predictions"] + numbers["rejects"] + numbers["late"] > 3_500
    assert numbers["late"] == 10
    assert (numbers["duplicates"], numbers["missing"], numbers["parity_mismatches"]) == (0, 0, 0)
    assert numbers["parity_rows"] == numbers["predictions"]
    assert numbers["details"]["score_mismatches"] == 0


def test_the_numbers_are_those_of_a_model_that_works(report: Report) -> None:
    assert report.quality.model.auc > 0.8
    assert report.quality.baseline.auc > 0.8
    assert report.timing.throughput_eps > 100
    assert 0 < report.timing.latency_ms[50] <= report.timing.latency_ms[99]
    assert report.row["origin_dep_delay_min_count_1h"]


def test_its_job_is_gone_and_services_that_were_up_before_are_up(report: Report, services: Endpoints) -> None:
    assert report.checks.accounting.events
    assert [job.name for job in FlinkRest(services.flink).jobs() if not job.ended] == []
    assert {one.state for one in local.status(Path(services.flink_conf_dir).parents[1])} == {"up"}


def test_ctrl_c_cancels_the_job_and_leaves_no_process(report: Report, settings: Settings, services: Endpoints) -> None:
    options = {
        "--history-from": settings.history_start,
        "--train-until": settings.train_until,
        "--from": settings.start,
        "--paced-from": settings.paced_from,
        "--to": settings.end,
        "--trees": settings.parameters.num_iterations,
        "--rate": 1,
        "--folder": settings.folder,
    }
    command = [sys.executable, "-m", "scripts.demo", *(str(word) for pair in options.items() for word in pair)]
    log = settings.folder / "interrupted.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CI": "false"},
            start_new_session=True,
        )
    try:
        deadline_s = time.monotonic() + 120
        while "1 per second" not in log.read_text():
            assert time.monotonic() < deadline_s, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        assert report.model in log.read_text()  # used again, not trained anew
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    text = log.read_text()
    assert "cancelled job" in text
    assert "Traceback" not in text
    assert [job.name for job in FlinkRest(services.flink).jobs() if not job.ended] == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert {one.state for one in local.status(Path(services.flink_conf_dir).parents[1])} == {"up"}
