"""The little of Linux's /proc that tells one process from another; nothing here sends a signal.

A pid alone is no identity, because pids are reused: a pid with its start time within one boot is.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """One entry of the process table."""

    pid: int
    #: Process id of the session leader; the children of a detached service keep it.
    session: int
    #: Clock ticks between boot and the start of the process.
    started_ticks: int


def boot_id() -> str:
    """Return the identity of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def find(pid: int) -> Process | None:
    """Return the live process with that pid, or None; a zombie is not alive."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in parentheses and may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Process(pid=pid, session=int(fields[3]), started_ticks=int(fields[19]))


def session_members(session: int) -> list[Process]:
    """Return every live process of a session: its leader, children and orphaned grandchildren."""
    found = (find(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208 (a pid may vanish)
    return [process for process in found if process and process.session == session]
