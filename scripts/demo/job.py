"""The demo's job: an earlier one is cancelled, the new one is submitted by the line that the README gives."""

from dataclasses import dataclass
from pathlib import Path

from flink_jobs.config import load_environment
from flink_jobs.package import pack
from flink_jobs.project import shown
from flink_jobs.rest import FlinkRest
from flink_jobs.submit import SCORE, Submission, submission, submit
from scripts.demo.settings import ENVIRONMENT, PIPELINE, DemoError
from scripts.services.home import Home


@dataclass(frozen=True, slots=True)
class DemoJob:
    """The one job that the demo runs on the services of a home."""

    home: Home
    rest: FlinkRest
    name: str

    @property
    def _note(self) -> Path:
        """Where the id of the last job is kept: beside its services, which outlive the demo."""
        return self.home.root / "demo-job"

    def cancel_earlier(self) -> str | None:
        """Cancel the job of an earlier demo; return its id.

        Raises
        ------
        DemoError : a job of the same name runs that no demo has submitted.
        """
        earlier = self._note.read_text().strip() if self._note.exists() else ""
        running = self.running()
        others = [job_id for job_id in running if job_id != earlier]
        if others:
            msg = (
                f"job {others[0]} of the same name, {self.name}, runs already and was not started by the demo, which "
                f"would empty its topics; end it first: headrace stop {others[0][:8]}"
            )
            raise DemoError(msg)
        if earlier not in running:
            return None
        self.rest.cancel(earlier)
        return earlier

    def submit(self, what: Submission) -> str:
        """Submit, wait until every task runs, and return the job id.

        Raises
        ------
        SubmissionError, FlinkError : no job came of it, or it does not run.
        """
        job_id = submit(what)
        self._note.write_text(job_id + "\n")
        self.rest.wait_running(job_id)
        return job_id

    def running(self) -> list[str]:
        """Return the ids of the jobs of this name that have not ended."""
        return [job.job_id for job in self.rest.jobs() if job.name == self.name and not job.ended]


def planned() -> Submission:
    """Pack the code and return its `flink run`, for the local services."""
    arguments = ("--pipeline", shown(PIPELINE), "--environment", shown(ENVIRONMENT))
    return submission(SCORE, pack(), arguments, load_environment(ENVIRONMENT).flink, local=True)
