"""What a redeploy asks of a cluster over REST, beside what every command does: calls may be repeated after a crash."""

import time
from dataclasses import dataclass
from typing import Any

from flink_jobs.deploy.gate import CONFIG, VERSION
from flink_jobs.failures import root_cause
from flink_jobs.rest import POLL_S, FlinkError, FlinkRest, Job

STOP_TIMEOUT_S = 300.0
CACHE_SLACK_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What a job has completed, also one that ended."""

    #: checkpoints and savepoints since its start, not the one that it was restored from
    completed: int
    #: newest completed checkpoint, none before the first
    checkpoint: str | None
    checkpoint_at_ms: int
    savepoint: str | None
    savepoint_at_ms: int

    @property
    def newest(self) -> str | None:
        """Return where the job got to; whatever it committed is in it."""
        return self.savepoint if self.savepoint_at_ms >= self.checkpoint_at_ms else self.checkpoint


class Cluster(FlinkRest):
    """Client of one cluster, for redeploys."""

    def live(self, name: str) -> tuple[Job, ...]:
        """Return the jobs of that name that may still run."""
        return tuple(job for job in self.jobs() if job.name == name and not job.ended)

    def known(self, job_id: str) -> Job | None:
        """Return a job by its id, ended or not; None if the cluster knows none."""
        return next((job for job in self.jobs() if job.job_id == job_id), None)

    def is_taken(self, job_id: str) -> bool:
        """Say whether a job was submitted and can be asked about: while it initializes, the cluster answers nothing."""
        job = self.known(job_id)
        return job is not None and job.state != "INITIALIZING"

    def version(self, job_id: str) -> str | None:
        """Return the model version that a job was started with; None if a controller did not start it."""
        return self._parameters(job_id).get(VERSION)

    def config(self, job_id: str) -> str | None:
        """Return the digest of the definition that a job was started with; None if a controller did not start it."""
        return self._parameters(job_id).get(CONFIG)

    def _parameters(self, job_id: str) -> dict[str, str]:
        found = self._ask("GET", f"/jobs/{job_id}/config")
        return (found.get("execution-config") or {}).get("user-config") or {}

    def checkpoint(self, job_id: str) -> None:
        """Have a job make a checkpoint now, without waiting for it."""
        self._ask("POST", f"/jobs/{job_id}/checkpoints", {"checkpointType": "CONFIGURED"})

    def progress(self, job_id: str) -> Progress:
        """Return what a job has completed."""
        found = self._ask("GET", f"/jobs/{job_id}/checkpoints")
        latest = found.get("latest") or {}
        checkpoint, savepoint = latest.get("completed") or {}, latest.get("savepoint") or {}
        return Progress(
            int((found.get("counts") or {}).get("completed", 0)),
            checkpoint.get("external_path"),
            int(checkpoint.get("trigger_timestamp", -1)),
            savepoint.get("external_path"),
            int(savepoint.get("trigger_timestamp", -1)),
        )

    def stop_as(
        self, trigger: str, job_id: str, folder: str, *, is_native: bool, timeout_s: float = STOP_TIMEOUT_S
    ) -> str:
        """Stop a job with a savepoint under a trigger id of one's own, and return the savepoint's path.

        Asked again with the same id, after a crash, it answers for the first time's savepoint.

        Parameters
        ----------
        is_native : in the format of the state backend, which is written and read sooner; nobody but a job can read it

        Raises
        ------
        FlinkError : there is no savepoint; says whether the job goes on.
        """
        deadline_s = time.monotonic() + timeout_s
        if (job := self.known(job_id)) is not None and not job.ended:
            body: dict[str, object] = {"drain": False, "targetDirectory": folder, "triggerId": trigger}
            body["formatType"] = "NATIVE" if is_native else "CANONICAL"
            self._ask("POST", f"/jobs/{job_id}/stop", body)
        while (job := self.known(job_id)) is not None:
            operation = self._operation(job_id, trigger)
            if job.ended:
                if "location" in operation:
                    return str(operation["location"])
                # The operation is forgotten after a while; what the job completed is not.
                path = self.final_progress(job_id).savepoint
                if job.state == "FINISHED" and path is not None:
                    return path
                msg = f"job {job_id} is {job.state} without a savepoint"
                raise FlinkError(msg)
            if "failure-cause" in operation:
                cause = root_cause(operation["failure-cause"].get("stack-trace", ""))
                msg = f"job {job_id} could not be stopped with a savepoint, and goes on: {cause}"
                raise FlinkError(msg)
            if time.monotonic() > deadline_s:
                msg = f"job {job_id} has no savepoint after {timeout_s:.0f} s; see {self.page(job_id)}"
                raise FlinkError(msg)
            time.sleep(POLL_S / 5)
        msg = f"{self.url}: knows no job {job_id} any more"
        raise FlinkError(msg)

    def final_progress(self, job_id: str) -> Progress:
        """Return what a job that has ended completed in all.

        The cluster answers from a cache that is seconds old: a checkpoint that was completed just before the end is not
        in it yet, and would be committed twice.
        """
        time.sleep(self._ask("GET", "/config")["refresh-interval"] / 1000 + CACHE_SLACK_S)
        return self.progress(job_id)

    def _operation(self, job_id: str, trigger: str) -> dict[str, Any]:
        try:
            return self._ask("GET", f"/jobs/{job_id}/savepoints/{trigger}").get("operation") or {}
        except FlinkError:
            self.jobs()  # it is the operation that is not known, and not the cluster that is away
            return {}
