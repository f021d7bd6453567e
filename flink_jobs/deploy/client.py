"""The client of a submission, a process of its own: it builds the job while the old one runs, and waits at the gate."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from flink_jobs.config import Flink
from flink_jobs.deploy.gate import GO, HELD, READY, write
from flink_jobs.failures import submission_cause
from flink_jobs.package import pack
from flink_jobs.project import shown
from flink_jobs.submit import CLIENT_TIMEOUT_S, SubmissionError, submission
from scripts.services.proc import find, session_members

SCRIPT = Path(__file__).with_name("job.py")
_CLIENT, _OUTPUT = "client.json", "output.txt"
_POLL_S, _ASK_S = 0.02, 0.1


class Client:
    """One `flink run` at the gate.

    Parameters
    ----------
    folder : of this submission alone
    """

    def __init__(self, folder: Path, arguments: Sequence[str], flink: Flink, *, local: bool) -> None:
        clear(folder)
        folder.mkdir(parents=True)
        self._folder = folder
        self._held = (folder / HELD).open("wb")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        planned = submission(SCRIPT, pack(), (*arguments, "--gate", shown(folder)), flink, local=local)
        with (folder / _OUTPUT).open("wb") as output:
            self._process = subprocess.Popen(
                planned.command,
                env={**os.environ, **planned.variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = find(self._process.pid)
        write(folder / _CLIENT, json.dumps([self._process.pid, started.started_ticks if started else 0]))

    def wait_ready(self, timeout_s: float = CLIENT_TIMEOUT_S) -> None:
        """Wait until the job is built.

        Raises
        ------
        SubmissionError : it cannot be; nothing was submitted.
        """
        deadline_s = time.monotonic() + timeout_s
        while not (self._folder / READY).exists():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.close()
                msg = f"the job was not built: {self._said()}"
                raise SubmissionError(msg)
            time.sleep(_POLL_S)

    def go(
        self,
        job_id: str,
        savepoint: str | None,
        is_known: Callable[[], bool],
        *,
        is_checked: bool,
        timeout_s: float = CLIENT_TIMEOUT_S,
    ) -> None:
        """Open the gate, and wait until the cluster knows the job; the client takes seconds more to end by itself.

        Parameters
        ----------
        is_known : asks the cluster
        is_checked : somebody held the savepoint to the definition already

        Raises
        ------
        SubmissionError : the cluster did not take it.
        """
        write(self._folder / GO, json.dumps({"job": job_id, "savepoint": savepoint, "is_checked": is_checked}))
        deadline_s = time.monotonic() + timeout_s
        while not is_known():
            code = self._process.poll()
            if code:
                msg = f"the job was not submitted: {self._said()}"
                raise SubmissionError(msg)
            if code == 0 and not is_known():
                msg = f"flink run ended well, and the cluster knows no job {job_id}"
                raise SubmissionError(msg)
            if time.monotonic() > deadline_s:
                self.close()
                msg = f"flink run took more than {timeout_s:.0f} s"
                raise SubmissionError(msg)
            time.sleep(_ASK_S)

    def close(self) -> None:
        """End the client, if it still runs."""
        _end(self._process.pid)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._held.close()

    def _said(self) -> str:
        return submission_cause((self._folder / _OUTPUT).read_text(encoding="utf-8", errors="replace"))


def clear(folder: Path) -> None:
    """End the client that a controller left behind in a folder when it died, and remove the folder."""
    if (folder / _CLIENT).exists():
        pid, started_ticks = json.loads((folder / _CLIENT).read_text(encoding="utf-8"))
        found = find(pid)
        if found is None or found.started_ticks == started_ticks:
            _end(pid)
    shutil.rmtree(folder, ignore_errors=True)


def _end(session: int) -> None:
    """End a client and all that it started, and see them gone."""
    for signal_ in (signal.SIGTERM, signal.SIGKILL):
        for process in session_members(session):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal_)
        deadline_s = time.monotonic() + 3
        while session_members(session):
            if time.monotonic() > deadline_s:
                break
            time.sleep(_POLL_S)
        else:
            return
