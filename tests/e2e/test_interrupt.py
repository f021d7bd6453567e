"""Ctrl-C while services start: what was started is stopped and said, what ran before runs on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.services import proc, services
from scripts.services.home import Home
from scripts.services.processes import running_pid

WAIT_S = 60.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    services.down(tmp_path)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_start_leaves_only_what_ran_before(home: Path, signal_number: signal.Signals) -> None:
    services.up(home, ["redis"])
    [redis] = [one.pids for one in services.status(home) if one.name == "redis"]
    arguments = ["services", "up", "redis", "kafka", "flink", "--home", str(home)]
    code = f"from flink_jobs.cli import app; app({arguments!r})"
    start = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    begun = [Home(home).pid_file(name) for name in ("kafka", "taskmanager")]
    deadline_s = time.monotonic() + WAIT_S
    while not all(file.exists() for file in begun):
        assert time.monotonic() < deadline_s, "the services were never started"
        assert start.poll() is None, "the start was over before it could be interrupted"
        time.sleep(0.02)
    sessions = [running_pid(file) or 0 for file in begun]
    assert all(sessions)
    for _ in range(2):  # people press it more than once
        os.kill(start.pid, signal_number)
        time.sleep(0.01)
    said, _ = start.communicate(timeout=WAIT_S)
    assert start.returncode == 130
    assert said.splitlines()[-1] == "interrupted; stopped again: kafka, flink"
    left = {"kafka": (), "redis": redis, "mlflow": (), "flink": ()}
    assert {one.name: one.pids for one in services.status(home)} == left
    assert [proc.session_members(session) for session in sessions] == [[], []]
