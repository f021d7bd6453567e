"""`headrace run score`: the model version that was checked runs, also when its alias moves in the meantime."""

import datetime as dt
import io
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kafka import KafkaProducer
from rich.console import Console

from flink_jobs.launch import Launch, launch_score, topics_of
from flink_jobs.rest import FlinkRest
from models.lifecycle import train_and_register
from models.tracking import connect
from scripts.kafka.consume import read_until
from scripts.kafka.topics import delete
from scripts.services.endpoints import Endpoints
from tests import synthetic
from udfs.core.declare.loading import load_pipeline
from udfs.core.errors import ModelError

TRAIN_UNTIL, TEST_UNTIL = dt.date(2023, 11, 19), dt.date(2023, 11, 21)
ENVIRONMENT = """
kafka: {bootstrap_servers: "${services:kafka}", topic_prefix: "PREFIX"}
mlflow: {tracking_uri: "${services:mlflow}"}
flink:
  rest_url: "${services:flink}"
  checkpoint_interval: 1s
  checkpoints: "${services:checkpoints}"
  savepoints: "${services:savepoints}"
"""
EVENT = b'{"order_id":"o1","at_ms":1700006400000,"user":"u","amount":20.0,"discount":null}'


@pytest.fixture
def prefix() -> str:
    return f"test-launch-{time.time_ns()}."


@pytest.fixture
def folder(services: Endpoints, prefix: str, tmp_path: Path) -> Iterator[Path]:
    """A pipeline of its own with an environment file beside it; its job, topics and model are gone afterwards."""
    place = synthetic.write_pipeline(tmp_path / "shop")
    name = prefix.rstrip(".")
    file = place / "pipeline.yaml"
    file.write_text(file.read_text().replace("shop-refund", name))
    (place / "environment.yaml").write_text(ENVIRONMENT.replace("PREFIX", prefix))
    synthetic.write_orders(place / "history.parquet")
    yield place
    rest = FlinkRest(services.flink)
    for job in rest.jobs():
        if prefix in job.name and not job.ended:
            rest.cancel(job.job_id)
    delete(services.kafka, topics_of(load_pipeline(place).with_topic_prefix(prefix)))
    with connect(services.mlflow) as client:
        client.delete_registered_model(name)


def test_the_version_that_was_checked_runs_though_its_alias_moves(
    services: Endpoints, folder: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(Path(services.flink_conf_dir).parents[1]))

    def train() -> str:
        history = folder / "history.parquet"
        outcome = train_and_register(
            folder, history, TRAIN_UNTIL, TEST_UNTIL, services.mlflow, "champion", synthetic.QUICK
        )
        return outcome.registered.version

    checked = train()
    said = io.StringIO()
    launch_score(Launch(folder, folder / "environment.yaml", dry_run=True), Console(file=said))
    moved = train()
    assert moved != checked
    line = next(line for line in said.getvalue().splitlines() if " run -d " in line)
    subprocess.run(line, shell=True, check=True, capture_output=True, timeout=120)  # noqa: S602  as a person would

    producer = KafkaProducer(bootstrap_servers=services.kafka)
    producer.send(f"{prefix}orders", key=b"u", value=EVENT)
    producer.flush()
    producer.close()
    [record] = read_until(services.kafka, f"{prefix}p", lambda records: len(records) == 1, timeout_s=90)
    assert json.loads(record.value or b"")["model"]["version"] == checked


def test_every_arm_runs_the_version_that_was_checked(
    services: Endpoints, folder: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(Path(services.flink_conf_dir).parents[1]))
    file, name = folder / "pipeline.yaml", prefix.rstrip(".")
    declared = yaml.safe_load(file.read_text())
    declared["model"] |= {"canary": {"share": "100%"}, "shadows": [{"name": "next"}]}
    file.write_text(yaml.safe_dump(declared, sort_keys=False))

    def train(alias: str) -> str:
        history = folder / "history.parquet"
        outcome = train_and_register(folder, history, TRAIN_UNTIL, TEST_UNTIL, services.mlflow, alias, synthetic.QUICK)
        return outcome.registered.version

    said = io.StringIO()
    launch = Launch(folder, folder / "environment.yaml", dry_run=True)
    versions = {alias: train(alias) for alias in ("champion", "canary")}
    with pytest.raises(ModelError, match=rf"model {name}: has no alias 'next'"):
        launch_score(launch, Console(file=said))
    versions["next"] = train("next")
    launch_score(launch, Console(file=said, width=200))
    assert f"arm canary: model {name}@canary is version {versions['canary']}" in said.getvalue()
    line = next(line for line in said.getvalue().splitlines() if " run -d " in line)
    moved = train("canary")
    assert moved not in versions.values()
    subprocess.run(line, shell=True, check=True, capture_output=True, timeout=120)  # noqa: S602  as a person would

    producer = KafkaProducer(bootstrap_servers=services.kafka)
    producer.send(f"{prefix}orders", key=b"u", value=EVENT)
    producer.flush()
    producer.close()
    [record] = read_until(services.kafka, f"{prefix}p", lambda records: len(records) == 1, timeout_s=90)
    found = json.loads(record.value or b"")
    assert (found["arm"], found["model"]["version"]) == ("canary", versions["canary"])
    assert found["shadow"]["next"]["version"] == versions["next"]
    assert found["routing"] == load_pipeline(folder).model.routing_epoch("user")
