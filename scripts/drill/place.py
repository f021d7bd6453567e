"""Where a drill takes place: services, pipeline, environment and topics of its own, all below one folder."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from rich.console import Console

from flink_jobs.deploy.ledger import Ledger
from flink_jobs.deploy.target import Target
from flink_jobs.launch import topics_of
from scripts.drill.settings import Settings
from scripts.kafka.topics import Topic, create
from scripts.services import services
from scripts.services.endpoints import Endpoints
from scripts.services.home import REPOSITORY
from udfs.core.declare.loading import PIPELINE_FILE, load_pipeline

PAYMENTS = REPOSITORY / "conf" / "payments"
POLL_INTERVAL = "500ms"
ENVIRONMENT = """\
kafka: {{bootstrap_servers: "${{services:kafka}}"}}
redis: {{url: "${{services:redis}}"}}
mlflow: {{tracking_uri: "${{services:mlflow}}"}}
flink:
  rest_url: "${{services:flink}}"
  checkpoint_interval: {interval_ms}ms
  checkpoints: "${{services:checkpoints}}"
  savepoints: "${{services:savepoints}}"
deploy: {{folder: ledgers, poll_interval: {poll}, cooldown: 1ms, healthy_within: 90s}}
"""


class Place:
    """The payments pipeline on services of its own.

    Parameters
    ----------
    places : addresses of the services
    """

    def __init__(self, settings: Settings, places: Endpoints) -> None:
        self.folder, self.places = settings.folder, places
        self.pipeline, self.environment = self.folder / "payments", self.folder / "conf" / "drill.yaml"
        for folder in (self.pipeline, self.environment.parent):
            folder.mkdir()
        for file in PAYMENTS.glob("*.py"):
            shutil.copy(file, self.pipeline)
        declared = yaml.safe_load((PAYMENTS / PIPELINE_FILE).read_text(encoding="utf-8"))
        # Every prediction is kept until the end: without its features it takes a quarter of the room.
        declared["sinks"]["predictions"]["features"] = False
        (self.pipeline / PIPELINE_FILE).write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")
        text = ENVIRONMENT.format(interval_ms=settings.checkpoint_interval_ms, poll=POLL_INTERVAL)
        self.environment.write_text(text, encoding="utf-8")
        self.target = Target(self.pipeline, self.environment)
        self.declared = load_pipeline(self.pipeline)
        self.ledger = Ledger(self.target.folder)
        create(places.kafka, [Topic(topic) for topic in topics_of(self.declared)])

    @property
    def model(self) -> str:
        """The registered model."""
        return self.declared.model.name

    def deploy(self, command: str, *arguments: str) -> list[str]:
        """Return a `headrace deploy` command line."""
        headrace = str(Path(sys.executable).with_name("headrace"))
        common = ["--pipeline", str(self.pipeline), "--environment", str(self.environment)]
        return [headrace, "deploy", command, *common, *arguments]

    @contextmanager
    def program(self, command: list[str], log: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a program beside the block; it is ended with it, and has written to a log in the folder."""
        with (self.folder / log).open("wb") as output:
            process = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def held_at(settings: Settings, console: Console) -> Iterator[Place]:
    """Start services in a fresh folder for as long as the block runs."""
    home = settings.folder / "services"
    services.down(home)
    shutil.rmtree(settings.folder, ignore_errors=True)
    settings.folder.mkdir(parents=True)
    before = os.environ.get("HEADRACE_HOME")
    os.environ["HEADRACE_HOME"] = str(home)
    try:
        yield Place(settings, services.up(home, console=console))
    finally:
        if not settings.keep_services:
            services.down(home)
        if before is None:
            del os.environ["HEADRACE_HOME"]
        else:
            os.environ["HEADRACE_HOME"] = before
