"""What the runs share: a set of services of their own, the model, and topics, files and names for each run."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from flink_jobs.config import Environment, load_environment
from flink_jobs.package import pack
from flink_jobs.project import archive_jars, shown
from flink_jobs.rest import FlinkRest
from flink_jobs.submit import ARCHIVE, SCORE, submission, submit
from models.foreign import Foreign, prepare
from models.registration import publish
from scripts.bench.payments.model import network
from scripts.bench.payments.programs import PAYMENTS
from scripts.chaos.settings import FOLDER, Settings
from scripts.kafka.topics import Topic, create, delete
from scripts.services import services
from scripts.services.home import home_at
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import PIPELINE_FILE, load_pipeline
from udfs.core.plan.features import feature_columns, feature_set_hash

MODEL = "payments-chaos-network"
INTERVAL_S = 2
"""Between checkpoints."""


class Rig:
    """A cluster with all services, started for these tests alone, since they kill it.

    Parameters
    ----------
    folder : of the services and of what the runs write; made anew
    """

    def __init__(self, settings: Settings, folder: Path = FOLDER, console: Console | None = None) -> None:
        self.settings, self.folder = settings, folder
        self.home = home_at(folder / "services")
        self.close()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # Clients of jobs look there for the cluster.
        os.environ["HEADRACE_HOME"] = str(self.home.root)
        self.places = services.up(self.home.root, console=console)
        self.rest = FlinkRest(self.places.flink)
        #: feature set -> version of the model for it
        self._versions: dict[str, str] = {}
        self._runs = 0

    def close(self) -> None:
        """End all services."""
        services.down(self.home.root)

    def up(self, *names: str) -> None:
        """Start services again."""
        services.up(self.home.root, names)

    def down(self, *names: str) -> None:
        """Stop services in an orderly way."""
        services.down(self.home.root, names=names)

    def new_place(self, name: str) -> "Place":
        """Return names and files of a run."""
        self._runs += 1
        return Place(self, f"chaos{self._runs}-{name}")

    def model_version(self, folder: Path, pipeline: Pipeline) -> str:
        """Return the version of the network that fits a pipeline; registered when it is asked for the first time."""
        features = feature_set_hash(pipeline, folder)
        if features not in self._versions:
            file = folder / "network.onnx"
            file.write_bytes(network(len(feature_columns(pipeline))))
            entry = prepare(Foreign(file, folder, MODEL))
            self._versions[features] = publish(entry, self.places.mlflow, "champion").version
        return self._versions[features]


class Place:
    """Names, topics and files of one run, whose job they make.

    Parameters
    ----------
    name : of topics, job and folder
    """

    def __init__(self, rig: Rig, name: str) -> None:
        self.rig, self.name = rig, name
        self.folder = rig.folder / "runs" / name / "payments"
        self.environment_file = self.folder.parent / "environment.yaml"
        self.archive_root = (self.folder.parent / "archive").as_uri()
        self.topics: list[str] = []

    def write(
        self,
        pipeline: Mapping[str, Any] | None = None,
        kafka: Mapping[str, Any] | None = None,
        flink: Mapping[str, Any] | None = None,
        partitions: int = 1,
    ) -> None:
        """Write pipeline and environment, each with some keys replaced, and make the topics.

        Parameters
        ----------
        pipeline, kafka, flink : what differs from `conf/payments`, and from the usual environment
        partitions : of the source topic
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in PAYMENTS.glob("*.py"):
            shutil.copy(file, self.folder)
        declared = yaml.safe_load((PAYMENTS / PIPELINE_FILE).read_text(encoding="utf-8"))
        declared.pop("label")
        declared["model"]["name"] = MODEL
        declared["sinks"]["online_store"] = {"prefix": self.name}
        (self.folder / PIPELINE_FILE).write_text(
            yaml.safe_dump(declared | dict(pipeline or {}), sort_keys=False), encoding="utf-8"
        )
        places = self.rig.places
        said = {
            "kafka": {"bootstrap_servers": places.kafka, "topic_prefix": f"{self.name}.", **(kafka or {})},
            "redis": {"url": places.redis},
            "mlflow": {"tracking_uri": places.mlflow},
            "flink": {
                "rest_url": places.flink,
                "checkpoint_interval": f"{INTERVAL_S}s",
                "checkpoints": places.checkpoints,
                "savepoints": places.savepoints,
                **(flink or {}),
            },
            "archive": {"root": self.archive_root, "checkpoint_interval": "3s"},
        }
        self.environment_file.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
        sinks = self.pipeline.sinks
        self.topics = [self.pipeline.source.topic, sinks.predictions.topic, sinks.rejects.topic, sinks.late.topic]
        self.topics.append(sinks.order.topic)
        create(places.kafka, [Topic(self.topics[0], partitions), *(Topic(name) for name in self.topics[1:])])

    @property
    def declared(self) -> Pipeline:
        """The definition, without topic prefix."""
        return load_pipeline(self.folder)

    @property
    def pipeline(self) -> Pipeline:
        """The definition with the topics as they are."""
        return self.declared.with_topic_prefix(f"{self.name}.")

    @property
    def environment(self) -> Environment:
        """The environment."""
        return load_environment(self.environment_file)

    @property
    def job_name(self) -> str:
        """Name of the scoring job."""
        return self.environment.job_name(self.declared.name)

    def submit(self, savepoint: str | None = None, more: Sequence[str] = ()) -> str:
        """Submit the scoring job; return its id.

        Raises
        ------
        SubmissionError : the client refused.
        """
        version = self.rig.model_version(self.folder, self.declared)
        arguments = (*self._files(), "--model-version", version, *more)
        flink = self.environment.flink
        return submit(submission(SCORE, pack(), arguments, flink, local=True, savepoint=savepoint))

    def submit_archive(self) -> str:
        """Submit the archive job; return its id."""
        arguments = (*self._files(), "--jars", shown(archive_jars()[0].parent))
        return submit(submission(ARCHIVE, pack(), arguments, self.environment.flink, local=True))

    def _files(self) -> tuple[str, ...]:
        return ("--pipeline", str(self.folder), "--environment", str(self.environment_file))

    def close(self) -> None:
        """Delete the topics and the files."""
        delete(self.rig.places.kafka, self.topics)
        shutil.rmtree(self.folder.parent, ignore_errors=True)
