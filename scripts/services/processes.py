"""Start a program detached in a session of its own, find it again by its pid file, and stop all that it started.

A pid file holds pid, start time and boot; no signal is sent to a process that does not match all three.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.services import proc
from scripts.services.errors import ServiceError

_ROTATE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run."""

    #: Names the log file and the pid file.
    name: str
    argv: tuple[str, ...]
    #: Added to the environment of the caller.
    env: Mapping[str, str] = field(default_factory=dict)


def start(command: Command, *, log: Path, pid_file: Path) -> int:
    """Run a command detached from the caller, with its output appended to `log`.

    Returns
    -------
    its pid, which is also its session.
    """
    if log.exists() and log.stat().st_size > _ROTATE_BYTES:
        log.replace(log.with_suffix(".old.log"))
    # `env -C` moves to the working folder and then becomes the program, under the same pid.
    argv = ["env", "-C", str(pid_file.parent), *command.argv]
    pid = os.posix_spawnp(
        argv[0],
        argv,
        {**os.environ, **command.env},
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    process = proc.find(pid)
    ticks = process.started_ticks if process else 0
    pid_file.write_text(json.dumps({"pid": pid, "started_ticks": ticks, "boot": proc.boot_id()}))
    return pid


def running_pid(pid_file: Path) -> int | None:
    """Return the pid of the process behind a pid file, or None when it has ended or the file is from another boot."""
    record = _read(pid_file)
    if record is None:
        return None
    process = proc.find(record.pid)
    return record.pid if process and process.started_ticks == record.started_ticks else None


def stop(pid_file: Path, *, grace_s: float) -> bool:
    """End a process with its whole session: asked first, killed when it is still there after `grace_s`.

    Returns
    -------
    whether there was anything to end. The pid file is gone afterwards.

    Raises
    ------
    ServiceError : a process survived SIGKILL.
    """
    record = _read(pid_file)
    members = _members(record) if record else []
    if record and members:
        for signal_number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
            _send(signal_number, _members(record))
            if _gone(record, wait_s):
                break
        else:
            left = [process.pid for process in _members(record)]
            msg = (
                f"{pid_file.stem}: processes {left} survived SIGKILL; look at them with: ps -o pid,stat,args {left[0]}"
            )
            raise ServiceError(msg)
    pid_file.unlink(missing_ok=True)
    return bool(members)


@dataclass(frozen=True, slots=True)
class _Record:
    pid: int
    started_ticks: int


def _read(pid_file: Path) -> _Record | None:
    try:
        content = json.loads(pid_file.read_text())
        record = _Record(int(content["pid"]), int(content["started_ticks"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return record if content.get("boot") == proc.boot_id() else None


def _members(record: _Record) -> list[proc.Process]:
    leader = proc.find(record.pid)
    if leader and leader.started_ticks != record.started_ticks:
        return []  # the pid was given to a stranger
    # A leader may have died before its children: the session still names them, and none is older than it was.
    return [member for member in proc.session_members(record.pid) if member.started_ticks >= record.started_ticks]


def _send(signal_number: signal.Signals, members: list[proc.Process]) -> None:
    for member in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member.pid, signal_number)


def _gone(record: _Record, wait_s: float) -> bool:
    deadline_s = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(ChildProcessError):  # a child of this very program would stay as a zombie
            os.waitpid(record.pid, os.WNOHANG)
        if not _members(record):
            return True
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
