"""Environments: where a job runs, as data. One file in `conf/` each; secrets stand in it by reference only."""

import json
import os
from pathlib import Path

from pydantic import Field

from udfs.core.contract import Declared
from udfs.core.durations import DurationMs
from udfs.core.home import services_home
from udfs.core.loading import load_yaml
from udfs.core.references import resolve

DEFAULT_ENVIRONMENT = Path(__file__).parent.parent / "conf" / "local.yaml"


class Kafka(Declared):
    """The broker and how the job reads and writes it."""

    bootstrap_servers: str = Field(description="`host:port` of brokers, comma-separated")
    topic_prefix: str = Field("", description="put before every topic name, where one cluster serves several uses")
    start: str = Field(
        "earliest-offset",
        description="where a job without a savepoint starts reading",
        pattern="^(earliest-offset|latest-offset|group-offsets)$",
    )
    transaction_timeout_ms: DurationMs = Field(
        600_000,
        alias="transaction_timeout",
        description="must exceed the longest checkpoint plus restart, and not exceed the broker's maximum",
    )
    properties: dict[str, str] = Field({}, description="further Kafka client properties, for source and sink")


class Redis(Declared):
    """The online store."""

    url: str = Field(
        description="`redis://` or `rediss://`; its `env` and `file` references are resolved by the worker"
    )


class MLflow(Declared):
    """The model registry."""

    tracking_uri: str = Field(description="address of the tracking server with its registry")


class Flink(Declared):
    """The cluster, and how jobs run on it."""

    rest_url: str = Field(description="REST address of the cluster that `headrace run` submits to")
    parallelism: int = Field(1, ge=1, description="subtasks per operator; lanes are dealt out to them")
    max_parallelism: int = Field(128, ge=1, le=32768, description="fixed for the life of the state")
    checkpoint_interval_ms: DurationMs = Field(
        5_000, alias="checkpoint_interval", description="also how long results stay unseen by read_committed readers"
    )
    checkpoints: str = Field(description="folder for checkpoints, as a URI the cluster can write")
    savepoints: str = Field(description="folder for savepoints, as a URI the cluster can write")
    exactly_once: bool = Field(True, description="false: at least once, results visible at once")
    options: dict[str, str] = Field({}, description="further Flink options; they win over what Headrace derives")


class Environment(Declared):
    """Everything a job must know of its surroundings."""

    kafka: Kafka
    redis: Redis | None = None
    mlflow: MLflow
    flink: Flink

    def job_name(self, pipeline: str) -> str:
        """Return the name of a pipeline's job: also its consumer group and the prefix of its transactions."""
        return self.flink.options.get("pipeline.name", f"headrace-{self.kafka.topic_prefix}{pipeline}")


def load_environment(path: Path = DEFAULT_ENVIRONMENT) -> Environment:
    """Read an environment file and resolve its references; those to secrets only where the client needs them.

    The Redis URL keeps its `env` and `file` references: the worker resolves them, so that no password enters the job.

    Raises
    ------
    DefinitionError : the file is wrong, or a reference leads nowhere.
    """
    environment = load_yaml(path, Environment)
    # Under `flink run` this code lies in an unpacked archive: the project is then the one the file belongs to.
    beside = path.resolve().parent.parent
    home = services_home(beside) if (beside / "build" / "local").is_dir() else services_home()
    endpoints = home / "endpoints.json"
    services = json.loads(endpoints.read_text(encoding="utf-8")) if endpoints.exists() else None
    variables = dict(os.environ)

    def resolved(declared: object, *, secrets: bool) -> object:
        if isinstance(declared, dict):
            return {key: resolved(one, secrets=secrets and key != "redis") for key, one in declared.items()}
        return resolve(declared, variables, services, secrets=secrets) if isinstance(declared, str) else declared

    return Environment.model_validate(resolved(environment.model_dump(mode="json", by_alias=True), secrets=True))
