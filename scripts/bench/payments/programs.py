"""The programs under measurement, each started over a topic and measured until it has scored it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flink_jobs.config import load_environment
from flink_jobs.package import pack
from flink_jobs.rest import FlinkRest
from flink_jobs.submit import SCORE, submission, submit
from models.foreign import Foreign, prepare
from models.registration import publish
from scripts.bench.payments.meter import BenchError, Cost, Meter, Sample, cost, follow
from scripts.bench.payments.model import network
from scripts.bench.payments.outputs import Progress
from scripts.bench.report import FOLDER
from scripts.kafka.topics import Topic, create, delete
from scripts.services.endpoints import Endpoints
from scripts.services.home import home_at
from udfs.core.declare.loading import PIPELINE_FILE, load_pipeline
from udfs.core.plan.features import feature_columns, feature_set_hash

REPOSITORY = Path(__file__).parents[3]
PAYMENTS = REPOSITORY / "conf" / "payments"
PLAIN = Path(__file__).with_name("plain_pyflink.py")
MODEL = "payments-bench-network"


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a job promises, and how often it makes good on it."""

    exactly_once: bool = True
    interval: str = "10s"

    @property
    def text(self) -> str:
        """For reports."""
        return f"{'exactly' if self.exactly_once else 'at least'} once, checkpoint each {self.interval}"


@dataclass
class Bench:
    """Topics, model and folders of one benchmark; `close` removes its topics."""

    places: Endpoints
    name: str
    topics: list[str] = field(default_factory=list)
    runs: int = 0

    def __post_init__(self) -> None:
        self.folder = FOLDER / "work" / self.name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.model = self.folder / "network.onnx"
        plain = load_pipeline(PAYMENTS)
        self.inputs = len(feature_columns(plain))
        self.model.write_bytes(network(self.inputs))
        self._version = ""

    def close(self) -> None:
        """Delete topics."""
        delete(self.places.kafka, self.topics)

    def topic(self, name: str) -> str:
        """Make a topic of one partition."""
        full = f"bench.{self.name}.{os.getpid()}.{name}"
        create(self.places.kafka, [Topic(full)])
        self.topics.append(full)
        return full

    def sink(self) -> str:
        """Make the next output topic."""
        self.runs += 1
        return self.topic(f"scores-{self.runs}")

    @property
    def evidence(self) -> str:
        """What each record says besides id, time, score and origin: as much as the job's predictions say."""
        said = {
            "model": {"name": MODEL, "version": "1", "sha256": "0" * 64},
            "arm": "champion",
            "feature_set": feature_set_hash(load_pipeline(PAYMENTS), PAYMENTS),
            "order": {"user": [0, 1234567], "merchant": [0, 1234567], "user_merchant": [0, 1234567]},
        }
        return json.dumps(said, separators=(",", ":"))[1:-1]

    def pipeline(self, source: str, sink: str, **more: Any) -> Path:
        """Write the payments pipeline over these topics, without the online store; return its folder."""
        folder = self.folder / sink
        folder.mkdir(exist_ok=True)
        for file in PAYMENTS.glob("*.py"):
            shutil.copy(file, folder)
        declared = yaml.safe_load((PAYMENTS / PIPELINE_FILE).read_text(encoding="utf-8"))
        declared["name"] = sink.replace(".", "-")
        declared["source"]["topic"] = source
        declared["model"]["name"] = MODEL
        declared["sinks"] = {name: {"topic": f"{sink}.{name}"} for name in ("rejects", "late", "order")}
        declared["sinks"]["predictions"] = {"topic": sink, "features": False}
        names = [f"{sink}.{name}" for name in ("rejects", "late", "order")]
        create(self.places.kafka, [Topic(name) for name in names])
        self.topics += names
        (folder / PIPELINE_FILE).write_text(yaml.safe_dump(declared | more, sort_keys=False), encoding="utf-8")
        return folder

    def environment(self, sink: str, guarantee: Guarantee, options: dict[str, str]) -> Path:
        """Write the environment of a job."""
        said = {
            "kafka": {"bootstrap_servers": self.places.kafka},
            "mlflow": {"tracking_uri": self.places.mlflow},
            "flink": {
                "rest_url": self.places.flink,
                "checkpoint_interval": guarantee.interval,
                "checkpoints": self.places.checkpoints,
                "savepoints": self.places.savepoints,
                "exactly_once": guarantee.exactly_once,
                "lane_memory_mb": 1024,
                "options": options,
            },
        }
        file = self.folder / sink / "environment.yaml"
        file.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
        return file

    @contextmanager
    def headrace(
        self, source: str, sink: str, guarantee: Guarantee, options: dict[str, str] | None = None, **more: Any
    ) -> Iterator[str]:
        """Run Headrace's scoring job; yields its id."""
        folder = self.pipeline(source, sink, **more)
        if not self._version:
            entry = prepare(Foreign(self.model, folder, MODEL))
            self._version = publish(entry, self.places.mlflow, "champion").version
        file = self.environment(sink, guarantee, options or {})
        flink = load_environment(file).flink
        arguments = ("--pipeline", str(folder), "--environment", str(file), "--model-version", self._version)
        with self._running(submit(submission(SCORE, pack(), arguments, flink, local=True))) as job_id:
            yield job_id

    @contextmanager
    def plain(self, source: str, sink: str, guarantee: Guarantee) -> Iterator[str]:
        """Run the plain PyFlink job; yields its id."""
        (self.folder / sink).mkdir(exist_ok=True)
        flink = load_environment(self.environment(sink, guarantee, {})).flink
        kind = "EXACTLY_ONCE" if guarantee.exactly_once else "AT_LEAST_ONCE"
        arguments = (
            *(self.places.kafka, source, sink, str(self.model), guarantee.interval, self.places.checkpoints),
            *(kind, self.evidence),
        )
        with self._running(submit(submission(PLAIN, pack(), arguments, flink, local=True))) as job_id:
            yield job_id

    @contextmanager
    def _running(self, job_id: str) -> Iterator[str]:
        rest = FlinkRest(self.places.flink)
        try:
            rest.wait_running(job_id)
            yield job_id
        finally:
            rest.cancel(job_id)

    def alive(self, job_id: str) -> Callable[[], None]:
        """Return what raises once the job has failed; it asks every few seconds."""
        rest, asked = FlinkRest(self.places.flink), [0.0]

        def check() -> None:
            if time.monotonic() - asked[0] > 5.0:
                asked[0] = time.monotonic()
                if rest.job(job_id).ended:
                    msg = f"job {job_id} has ended: {rest.failure(job_id)}"
                    raise BenchError(msg)

        return check

    def follow_job(self, job_id: str, sink: str, count: int) -> list[Sample]:
        """Sample a job until it has scored so many events."""
        return follow(Meter(home_at()), Progress(self.places.kafka, sink), count, self.alive(job_id))

    def limit(self, source: str, sink: str, count: int) -> list[Sample]:
        """Run the limit program, sampled."""
        command = [sys.executable, "-m", "scripts.bench.payments.limit", "--pipeline", str(PAYMENTS)]
        command += ["--model", str(self.model), "--bootstrap", self.places.kafka, "--source", source, "--sink", sink]
        command += ["--count", str(count), "--evidence", self.evidence]
        with subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True) as process:

            def is_alive() -> None:
                if process.poll():
                    msg = f"the limit program ended with code {process.returncode}"
                    raise BenchError(msg)

            try:
                meter = Meter(home_at(), process.pid)
                return follow(meter, Progress(self.places.kafka, sink), count, is_alive)
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)


def figures(name: str, found: Cost, guarantee: str) -> dict[str, float | str]:
    """Return what a report says of a run."""
    said: dict[str, float | str] = {
        f"{name}: guarantee": guarantee,
        f"{name}: events measured": float(found.events),
        f"{name}: events/s": found.rate_eps,
        f"{name}: events per CPU second": found.per_cpu_s,
    }
    return said | {f"{name}: CPU of {group}, us per event": spent for group, spent in found.cpu_us.items()}


__all__ = ["Bench", "Guarantee", "cost", "figures"]
