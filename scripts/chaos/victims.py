"""The processes of a cluster that may be killed, and those that must be gone afterwards."""

import os
import signal
import time
from collections.abc import Callable

import psutil

from scripts.chaos.settings import ChaosError
from scripts.services import proc
from scripts.services.home import Home
from scripts.services.processes import running_pid

_WORKER = "pyflink.fn_execution"


def service(home: Home, name: str) -> psutil.Process:
    """Return a process of its own that the services started: `kafka`, `redis`, `mlflow`, `jobmanager`."""
    pid = running_pid(home.pid_file(name))
    if pid is None:
        msg = f"{name} does not run in {home.root}"
        raise ChaosError(msg)
    return psutil.Process(pid)


def taskmanager(home: Home) -> psutil.Process:
    """Return the TaskManager's JVM, a child of the shell that starts it again."""
    found = [one for one in service(home, "taskmanager").children() if "java" in _name(one)]
    if not found:
        msg = f"there is no TaskManager in {home.root} now"
        raise ChaosError(msg)
    return found[0]


def workers(home: Home) -> list[psutil.Process]:
    """Return every Python worker of the TaskManagers of a home, living or left over, the busiest first."""
    supervisor = service(home, "taskmanager").pid
    found = [psutil.Process(one.pid) for one in proc.session_members(supervisor) if psutil.pid_exists(one.pid)]
    mine = [one for one in found if _WORKER in _line(one)]
    return sorted(mine, key=_cpu_s, reverse=True)


def orphans(home: Home) -> list[psutil.Process]:
    """Return the workers that do not belong to the TaskManager that runs now."""
    owned = {one.pid for one in taskmanager(home).children(recursive=True)}
    return [one for one in workers(home) if one.pid not in owned]


def kill(process: psutil.Process, number: signal.Signals = signal.SIGKILL) -> float:
    """Send a signal; return when, on the monotonic clock."""
    os.kill(process.pid, number)
    return time.monotonic()


def wait_for(what: str, holds: Callable[[], bool], timeout_s: float, step_s: float = 0.1) -> float:
    """Wait until something holds; return how long it took.

    Raises
    ------
    ChaosError : it does not, in time.
    """
    begun_s = time.monotonic()
    while True:
        try:
            if holds():
                return time.monotonic() - begun_s
        except (psutil.Error, ChaosError):
            pass
        if time.monotonic() - begun_s > timeout_s:
            msg = f"{what}: not after {timeout_s:.0f} s"
            raise ChaosError(msg)
        time.sleep(step_s)


def rss_mb(processes: list[psutil.Process]) -> float:
    """Return the memory of processes, MB."""
    total = 0
    for one in processes:
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
