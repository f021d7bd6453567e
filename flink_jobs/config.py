"""Environments: where a job runs, as data. One file in `conf/` each; secrets stand in it by reference only."""

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from models.cache import ModelCache
from udfs.core.declare.contract import Declared
from udfs.core.declare.durations import DurationMs
from udfs.core.declare.loading import load_yaml
from udfs.core.errors import DefinitionError
from udfs.core.home import services_home
from udfs.core.references import resolve

_LATER = ("redis", "webhook")
"""Sections whose secrets are resolved where they are used, not by every client."""
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
    when_down: Literal["refuse", "last_known_good"] = Field(
        "refuse",
        description="at submission, when it cannot be reached: start no job, or take the version that this machine "
        "resolved and checked last",
    )

    @property
    def cache(self) -> ModelCache | None:
        """The models to fall back on while it is down, if that is allowed."""
        return ModelCache.default() if self.when_down == "last_known_good" else None


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
    lane_memory_mb: int = Field(
        512,
        ge=1,
        description="what the windows of one entity in one lane may take in a Python worker; beyond it the keys that "
        "have waited longest are paged out to RocksDB",
    )
    exactly_once: bool = Field(True, description="false: at least once, results visible at once")
    options: dict[str, str] = Field({}, description="further Flink options; they win over what Headrace derives")


class Archive(Declared):
    """Where and how the archive job writes Parquet."""

    root: str = Field(
        description="folder or URI the cluster can write, of this environment alone; a relative path is one below the "
        "project of this file"
    )
    checkpoint_interval_ms: DurationMs = Field(
        300_000,
        alias="checkpoint_interval",
        description="files are finished, and seen, at each checkpoint: a longer one gives fewer and larger files",
    )
    file_mb: int = Field(128, ge=1, description="a file that is larger is finished before its checkpoint")
    parallelism: int = Field(1, ge=1, description="writers per topic; each has a file per day and checkpoint")


class Webhook(Declared):
    """Where MLflow's notices of moved aliases come in, on loopback; they only make the next look come sooner."""

    port: int = Field(ge=1, le=65535, description="on 127.0.0.1; a reverse proxy with TLS goes in front of it")
    secret: str = Field(
        description="that MLflow signs with; a reference to a variable or a file",
        pattern=r"^\$\{(env|file):[^}]+\}$",
    )
    window_ms: DurationMs = Field(
        300_000, alias="window", description="how far the time of a notice may be from now; others are refused"
    )


class Deploy(Declared):
    """How a controller replaces the model of a running job when its alias moves: `headrace deploy`."""

    folder: str = Field(
        "build/deploy",
        description="where ledgers are kept; a relative path is one below the project of this file",
    )
    poll_interval_ms: DurationMs = Field(5_000, alias="poll_interval", description="how often MLflow is asked")
    approve: Literal["auto", "manual"] = Field(
        "auto", description="manual: each version waits for `headrace deploy approve`"
    )
    cooldown_ms: DurationMs = Field(30_000, alias="cooldown", description="shortest time between two redeploys")
    healthy_within_ms: DurationMs = Field(
        120_000, alias="healthy_within", description="a new job that is not healthy by then is rolled back"
    )
    max_restarts: int = Field(0, ge=0, description="a new job that restarts more often is rolled back")
    max_reject_share: float = Field(
        0.5, ge=0, le=1, description="of the rows of the new job; beyond it, it is rolled back"
    )
    webhook: Webhook | None = None


class Environment(Declared):
    """Everything a job must know of its surroundings."""

    kafka: Kafka
    redis: Redis | None = None
    mlflow: MLflow
    flink: Flink
    archive: Archive | None = None
    deploy: Deploy = Field(Deploy(), description="how promotions reach running jobs")

    def job_name(self, pipeline: str) -> str:
        """Return the name of a pipeline's job: also its consumer group and the prefix of its transactions."""
        return self.flink.options.get("pipeline.name", f"headrace-{self.kafka.topic_prefix}{pipeline}")

    def archive_job_name(self, pipeline: str) -> str:
        """Return the name of a pipeline's archive job, also its consumer group."""
        return f"{self.job_name(pipeline)}-archive"


def archive_of(environment: Environment, path: Path) -> Archive:
    """Return the archive settings of an environment; only the archive job needs them.

    Raises
    ------
    DefinitionError : the file that it was read from has none.
    """
    if environment.archive is None:
        msg = f"{path}: archive: missing; say where Parquet files go: archive: {{root: FOLDER or URI}}"
        raise DefinitionError(msg)
    return environment.archive


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
            return {key: resolved(one, secrets=secrets and key not in _LATER) for key, one in declared.items()}
        return resolve(declared, variables, services, secrets=secrets) if isinstance(declared, str) else declared

    found = Environment.model_validate(resolved(environment.model_dump(mode="json", by_alias=True), secrets=True))
    if found.archive is None or "://" in found.archive.root:
        return found
    archive = found.archive.model_copy(update={"root": (beside / found.archive.root).resolve().as_uri()})
    return found.model_copy(update={"archive": archive})
