"""Ports, pid files and processes of the local services, with plain shells as the services."""

import fcntl
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from scripts.services import endpoints, probe, proc, processes, services
from scripts.services.errors import ServiceError
from scripts.services.home import Home
from scripts.services.ports import LOOPBACK, is_free, remembered_ports, require_free
from scripts.services.processes import Command


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "sleeper.json"


def started(pid_file: Path, script: str) -> int:
    command = Command("sleeper", ("sh", "-c", script))
    return processes.start(command, log=pid_file.with_name("sleeper.log"), pid_file=pid_file)


def wait_until_logged(pid_file: Path, text: str) -> None:
    log = pid_file.with_name("sleeper.log")
    deadline_s = time.monotonic() + 5
    while text not in log.read_text():
        assert time.monotonic() < deadline_s, f"{text!r} never appeared in {log}"
        time.sleep(0.01)


def test_ports_differ_and_are_remembered(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = remembered_ports(file, ["a", "b"])
    assert len(set(first.values())) == 2
    assert remembered_ports(file, ["b", "a"]) == first


def test_a_new_name_gets_a_port_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = remembered_ports(file, ["a"])
    both = remembered_ports(file, ["a", "b"])
    assert both["a"] == first["a"]
    assert both["a"] != both["b"]


def test_a_taken_port_is_not_chosen(tmp_path: Path) -> None:
    port = remembered_ports(tmp_path / "ports.json", ["a"])["a"]
    with socket.socket() as stranger:
        stranger.bind((LOOPBACK, port))
        stranger.listen()
        assert not is_free(port)
        (tmp_path / "ports.json").unlink()
        assert remembered_ports(tmp_path / "ports.json", ["a"])["a"] != port


def test_a_port_taken_by_another_program_is_named(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind((LOOPBACK, 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(
            ServiceError, match=rf"redis: port {port} is taken by another program .* remove .*ports\.json"
        ):
            require_free("redis", port, tmp_path / "ports.json")


@pytest.mark.parametrize("content", ["[]", "{", '{"a": "80"}'])
def test_a_broken_ports_file_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ports.json"
    file.write_text(content)
    with pytest.raises(ServiceError, match=r"ports\.json: expected a JSON object of name to port"):
        remembered_ports(file, ["a"])


def test_a_started_process_is_found_and_stopped(pid_file: Path) -> None:
    pid = started(pid_file, "exec sleep 60")
    assert processes.running_pid(pid_file) == pid
    assert processes.stop(pid_file, grace_s=5)
    assert proc.find(pid) is None
    assert not pid_file.exists()


def test_output_goes_to_the_log_and_the_caller_keeps_its_own(pid_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started(pid_file, "echo out; echo err >&2")
    wait_until_logged(pid_file, "err")
    assert pid_file.with_name("sleeper.log").read_text() == "out\nerr\n"
    assert capfd.readouterr() == ("", "")


def test_grandchildren_end_with_their_service(pid_file: Path) -> None:
    pid = started(pid_file, "sh -c 'sleep 60 & sleep 60 & wait' & echo ready; wait")
    wait_until_logged(pid_file, "ready")
    assert len(proc.session_members(pid)) >= 2
    processes.stop(pid_file, grace_s=5)
    assert proc.session_members(pid) == []


def test_orphans_of_a_dead_service_are_ended(pid_file: Path) -> None:
    pid = started(pid_file, "sleep 60 & echo ready; exit 0")
    wait_until_logged(pid_file, "ready")
    os.waitpid(pid, 0)
    assert processes.running_pid(pid_file) is None
    assert len(proc.session_members(pid)) == 1
    assert processes.stop(pid_file, grace_s=5)
    assert proc.session_members(pid) == []


def test_a_process_that_ignores_the_request_is_killed(pid_file: Path) -> None:
    pid = started(pid_file, "trap '' TERM; echo ready; while true; do sleep 1; done")
    wait_until_logged(pid_file, "ready")
    assert processes.stop(pid_file, grace_s=0.2)
    assert proc.session_members(pid) == []


@pytest.mark.parametrize("change", [{"started_ticks": 1}, {"boot": "another"}, {"pid": 2**22 + 1}])
def test_a_stale_pid_file_never_hits_a_stranger(pid_file: Path, change: dict[str, object]) -> None:
    pid = started(pid_file, "exec sleep 60")
    record = json.loads(pid_file.read_text())
    stale = pid_file.with_name("stale.json")
    stale.write_text(json.dumps({**record, **change}))
    assert processes.running_pid(stale) is None
    assert not processes.stop(stale, grace_s=1)
    assert not stale.exists()
    assert processes.running_pid(pid_file) == pid
    processes.stop(pid_file, grace_s=5)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": "x"}'])
def test_an_unreadable_pid_file_counts_as_none(pid_file: Path, content: str) -> None:
    pid_file.write_text(content)
    assert processes.running_pid(pid_file) is None
    assert not processes.stop(pid_file, grace_s=1)


def test_a_zombie_is_not_running(pid_file: Path) -> None:
    pid = started(pid_file, "exec sleep 60")
    os.kill(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 5
    while processes.running_pid(pid_file) is not None and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert processes.running_pid(pid_file) is None
    os.waitpid(pid, 0)


def test_an_unknown_service_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ServiceError, match="no service is named 'kafak'; did you mean one of kafka, redis, mlflow, flink"
    ):
        services.up(tmp_path, ["kafak"])


def test_asking_for_the_status_of_a_home_that_never_was_writes_nothing(tmp_path: Path) -> None:
    found = services.status(tmp_path / "nowhere")
    assert [(one.name, one.state, one.address, one.pids) for one in found] == [
        (name, "down", "", ()) for name in services.ALL
    ]
    assert not (tmp_path / "nowhere").exists()


def test_status_does_not_wait_for_who_changes_the_home(tmp_path: Path) -> None:
    place = Home(tmp_path)
    place.create()
    with (place.run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert {one.state for one in services.status(tmp_path)} == {"down"}
    assert not place.ports_file.exists()


def test_endpoints_before_the_first_start_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"endpoints\.json: no endpoints to read .* make services-up"):
        services.endpoints(tmp_path)


def test_endpoints_are_read_as_written(tmp_path: Path) -> None:
    written = endpoints.Endpoints(*[f"value {n}" for n in range(8)])
    endpoints.save(Home(tmp_path), written)
    assert services.endpoints(tmp_path) == written


def test_down_of_a_home_that_never_was_does_nothing(tmp_path: Path) -> None:
    services.down(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("says", "got"),
    [
        ('openjdk version "11.0.2" 2019-01-15', "is version 11;"),
        ('java version "1.8.0_412"', "is version 8;"),
        ("hm", "is one that does not say its version;"),
    ],
)
def test_an_old_java_is_refused(says: str, got: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ServiceError, match=f"{got} Flink and Kafka need Java 17 or newer; .* point JAVA_HOME at one"):
        probe.java()
    newer = tmp_path / "newer" / "bin" / "java"
    newer.parent.mkdir(parents=True)
    newer.write_text("#!/bin/sh\necho 'openjdk version \"21\" 2023-09-19' >&2\n")
    newer.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "newer"))
    assert probe.java() == str(newer)


def test_a_missing_program_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match="no redis-server on PATH; install it with: make setup"):
        services.up(tmp_path, ["redis"])
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ServiceError, match="java: none found on PATH; install it with: make setup"):
        services.up(tmp_path, ["kafka"])
