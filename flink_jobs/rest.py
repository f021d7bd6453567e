"""A Flink cluster over its REST interface: what runs there, how it is, and how to stop it."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flink_jobs.failures import root_cause
from udfs.core.errors import HeadraceError

ENDED = ("FINISHED", "CANCELED", "FAILED", "SUSPENDED")
POLL_S = 0.25
# Requests to a cluster in reach must not go through a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
RESTARTS_MAX = 2
"""A new job that has restarted more often than this while it is waited for is given up on."""


class FlinkError(HeadraceError):
    """The cluster cannot be reached, refuses, or the job failed."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a cluster."""

    job_id: str
    name: str
    state: str
    duration_ms: int
    tasks_running: int
    tasks: int

    @property
    def ended(self) -> bool:
        """Say whether it will never run again."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Health:
    """How a job fares."""

    restarts: int
    checkpoints_failed: int
    #: newest completed checkpoint: its trigger, how long it took, what was written for it; None before the first
    checkpoint_at_ms: int | None
    checkpoint_took_ms: int | None
    checkpoint_bytes: int | None


class FlinkRest:
    """Client of one cluster.

    Parameters
    ----------
    url : `http://host:port` of the JobManager
    timeout_s : for one request

    Raises
    ------
    FlinkError : by every method, when the cluster is away or refuses.
    """

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        self.url, self._timeout_s = url.rstrip("/"), timeout_s

    def page(self, job_id: str) -> str:
        """Address of the job's page in Flink's web interface."""
        return f"{self.url}/#/job/running/{job_id}/overview"

    def jobs(self) -> tuple[Job, ...]:
        """Return all jobs that the cluster remembers, newest first."""
        found = [_job(one) for one in self._ask("GET", "/jobs/overview")["jobs"]]
        return tuple(sorted(found, key=lambda job: job.duration_ms))

    def job(self, job_id: str) -> Job:
        """Return one job by its full id."""
        found = [job for job in self.jobs() if job.job_id == job_id]
        if not found:
            msg = f"{self.url}: there is no job {job_id}"
            raise FlinkError(msg)
        return found[0]

    def find(self, name: str) -> Job:
        """Return the live job of that name, id or start of an id."""
        live = [job for job in self.jobs() if not job.ended]
        found = [job for job in live if job.name == name or job.job_id.startswith(name)]
        if len(found) != 1:
            known = ", ".join(f"{job.name} {job.job_id}" for job in found or live) or "none"
            what = f"{len(found)} jobs match" if found else "no live job matches"
            msg = f"{self.url}: {what} {name!r}; live jobs: {known}"
            raise FlinkError(msg)
        return found[0]

    def health(self, job_id: str) -> Health:
        """Return restarts and checkpoints of a job."""
        metrics = self._ask("GET", f"/jobs/{job_id}/metrics?get=numRestarts")
        found = self._ask("GET", f"/jobs/{job_id}/checkpoints")
        newest = (found.get("latest") or {}).get("completed") or {}
        return Health(
            restarts=int(metrics[0]["value"]) if metrics else 0,
            checkpoints_failed=int(found.get("counts", {}).get("failed", 0)),
            checkpoint_at_ms=newest.get("trigger_timestamp"),
            checkpoint_took_ms=newest.get("end_to_end_duration"),
            checkpoint_bytes=newest.get("checkpointed_size"),
        )

    def failure(self, job_id: str) -> str | None:
        """Return the cause of the job's newest failure; None if it never failed."""
        found = self._ask("GET", f"/jobs/{job_id}/exceptions")
        entries = (found.get("exceptionHistory") or {}).get("entries") or []
        return root_cause(entries[0]["stacktrace"]) if entries else None

    def wait_running(
        self,
        job_id: str,
        timeout_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Job:
        """Wait until every task of a job runs.

        Raises
        ------
        FlinkError : it ended, restarted again and again, or was not ready in time; says the cause of its last failure.
        """
        deadline_s = clock() + timeout_s
        while True:
            job = self.job(job_id)
            if job.state == "RUNNING" and job.tasks_running == job.tasks:
                return job
            restarts = self.health(job_id).restarts if job.state == "RESTARTING" else 0
            if job.ended or restarts > RESTARTS_MAX or clock() > deadline_s:
                state = f"restarted {restarts} times" if restarts else f"is {job.state}"
                cause = self.failure(job_id) or f"{job.tasks_running} of {job.tasks} tasks run, and no failure is noted"
                msg = f"job {job_id} {state} instead of running: {cause}\nsee {self.page(job_id)}"
                raise FlinkError(msg)
            sleep(POLL_S)

    def cancel(self, job_id: str, timeout_s: float = 60.0) -> None:
        """End a job at once, without a savepoint; its last checkpoint stays."""
        self._ask("PATCH", f"/jobs/{job_id}?mode=cancel")
        deadline_s = time.monotonic() + timeout_s
        while not self.job(job_id).ended:
            if time.monotonic() > deadline_s:
                msg = (
                    f"job {job_id} was asked to cancel and still runs after {timeout_s:.0f} s; see {self.page(job_id)}"
                )
                raise FlinkError(msg)
            time.sleep(POLL_S)

    def stop_with_savepoint(self, job_id: str, folder: str, timeout_s: float = 300.0) -> str:
        """Take a savepoint, commit what is pending, end the job, and return the savepoint's path.

        The sources are not drained: windows stay as they are, for the job that goes on from here.
        """
        body = {"drain": False, "targetDirectory": folder}
        trigger = self._ask("POST", f"/jobs/{job_id}/stop", body)["request-id"]
        deadline_s = time.monotonic() + timeout_s
        while True:
            found = self._ask("GET", f"/jobs/{job_id}/savepoints/{trigger}")
            if found["status"]["id"] == "COMPLETED":
                operation = found.get("operation") or {}
                if "location" in operation:
                    return str(operation["location"])
                cause = root_cause((operation.get("failure-cause") or {}).get("stack-trace", ""))
                msg = f"job {job_id} could not be stopped with a savepoint, and goes on: {cause}"
                raise FlinkError(msg)
            if time.monotonic() > deadline_s:
                msg = f"the savepoint of job {job_id} is not through after {timeout_s:.0f} s; see {self.page(job_id)}"
                raise FlinkError(msg)
            time.sleep(POLL_S)

    def _ask(self, method: str, path: str, body: dict[str, object] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310  scheme as configured
        try:
            with _OPENER.open(request, timeout=self._timeout_s) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            msg = f"{self.url}: Flink refuses {method} {path} with {error.code}: {_reason(error.read())}"
            raise FlinkError(msg) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            msg = f"{self.url}: there is no Flink cluster to reach: {reason}; is it up? `headrace services status`"
            raise FlinkError(msg) from error


def _job(found: dict[str, Any]) -> Job:
    tasks = found["tasks"]
    return Job(found["jid"], found["name"], found["state"], found["duration"], tasks["running"], tasks["total"])


def _reason(answer: bytes) -> str:
    """Return the first meaningful line of an error answer."""
    try:
        return root_cause("\n".join(json.loads(answer)["errors"]))
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace")[:300]
