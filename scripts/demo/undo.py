"""Takes back what a demo has started: its job, and services that were not up before. Ctrl-C is ignored meanwhile."""

import signal

from rich.console import Console

from scripts.demo.job import DemoJob
from scripts.services import services


class Undo:
    """What is to be taken back.

    Parameters
    ----------
    console : where it says what it does
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._down_before: tuple[str, ...] = ()
        #: set before the job is submitted, since an interrupted submission may have succeeded
        self.job: DemoJob | None = None

    def remember_services(self) -> None:
        """Note which services are down now; the others belong to somebody else."""
        self._down_before = tuple(one.name for one in services.status() if one.state == "down")

    def __call__(self) -> None:
        """Cancel the job and stop those services."""
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if self.job is not None and "flink" not in self._down_before:
                for job_id in self.job.running():  # no other job of this name was let in
                    self.job.rest.cancel(job_id)
                    self._console.print(f"cancelled job {job_id}", highlight=False)
            if self._down_before:
                self._console.print(f"stopping {', '.join(self._down_before)}", highlight=False)
                services.down(console=self._console, names=self._down_before)
        finally:
            signal.signal(signal.SIGINT, handler)
