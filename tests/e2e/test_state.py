"""`headrace state`: a job starts from the state of past records, another goes on with other features and lanes."""

import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from kafka import KafkaProducer
from rich.console import Console
from typer.testing import CliRunner

from flink_jobs.cli import app
from flink_jobs.launch import Launch, launch_score, topics_of
from flink_jobs.rest import FlinkRest
from models.history import History
from models.lifecycle import train_and_register
from models.tracking import connect
from scripts.kafka.consume import Record, read_until
from scripts.kafka.topics import Topic, create, delete
from scripts.services.endpoints import Endpoints
from tests import synthetic
from tests.e2e.test_launch import ENVIRONMENT, TEST_UNTIL, TRAIN_UNTIL
from udfs.core.declare.loading import load_pipeline
from udfs.core.offline.backfill import Backfill
from udfs.core.plan.features import plan_stages
from udfs.core.state.snapshot import SnapshotReader

Sent = list[dict[str, Any]]


@pytest.fixture
def prefix() -> str:
    return f"test-state-{time.time_ns()}."


@pytest.fixture
def folder(services: Endpoints, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A pipeline with an environment file; its jobs, topics and model are gone afterwards."""
    monkeypatch.setenv("HEADRACE_HOME", str(Path(services.flink_conf_dir).parents[1]))
    place, name = synthetic.write_pipeline(tmp_path / "shop"), prefix.rstrip(".")
    file = place / "pipeline.yaml"
    file.write_text(file.read_text().replace("shop-refund", name))
    (place / "environment.yaml").write_text(ENVIRONMENT.replace("PREFIX", prefix))
    synthetic.write_orders(place / "records.parquet")
    topics = topics_of(load_pipeline(place).with_topic_prefix(prefix))
    create(services.kafka, [Topic(topic) for topic in topics])
    yield place
    rest = FlinkRest(services.flink)
    for job in rest.jobs():
        if prefix in job.name and not job.ended:
            rest.cancel(job.job_id)
    delete(services.kafka, topics)
    with connect(services.mlflow) as client:
        client.delete_registered_model(name)


@pytest.mark.timeout(900)
def test_a_job_is_right_from_its_first_event_and_so_is_the_next_one_with_other_features_and_lanes(
    services: Endpoints, folder: Path, prefix: str, tmp_path: Path
) -> None:
    records = pq.read_table(folder / "records.parquet").to_pylist()
    past, present, future = records[:900], records[900:1300], records[1300:1700]
    environment = str(folder / "environment.yaml")
    common = ("--pipeline", str(folder), "--environment", environment)

    # A first job starts with the state of what is past.
    _train(services, folder)
    _send(services, prefix, past)
    _headrace("history", *common, "--out", str(tmp_path / "past.parquet"))
    _headrace("state", "build", *common, "--input", str(tmp_path / "past.parquet"), "--out", str(tmp_path / "built"))
    launch_score(
        Launch(folder, folder / "environment.yaml", bootstrap=str(tmp_path / "built")), Console(file=io.StringIO())
    )
    _send(services, prefix, present)
    _assert_right(services, prefix, folder, present)
    savepoint = _headrace("stop", f"headrace-{prefix}shop", "--environment", environment).splitlines()[0]

    # A changed definition cannot go on from its savepoint, and says why.
    _change(folder)
    plan = json.loads(_headrace("plan", *common, "--from", savepoint, "--json"))
    actions = {change["column"]: change["action"] for change in plan["changes"]}
    assert actions == dict.fromkeys(
        ("risk", *(f"user_amount_{name}" for name in ("mean_1h", "sum_1h", "mean_1d", "sum_1d"))), "keep"
    ) | dict.fromkeys((f"user_amount_{name}" for name in ("std_1h", "std_1d")), "start empty") | dict.fromkeys(
        (f"user_amount_{name}" for name in ("count_1h", "max_1h", "count_1d", "max_1d")), "drop"
    )
    _train(services, folder)
    with pytest.raises(Exception, match="does not fit pipeline shop; it has 1 lanes, the pipeline 2"):
        launch_score(Launch(folder, folder / "environment.yaml", savepoint), Console(file=io.StringIO()))

    # It does from its state, carried over, with what is new built from the same records.
    exported, both, carried = (str(tmp_path / name) for name in ("exported", "both", "carried"))
    _headrace("state", "export", savepoint, "--out", exported, "--environment", environment)
    _send(services, prefix, future[:200])
    _headrace("history", *common, "--out", str(tmp_path / "all.parquet"))
    _headrace("state", "build", *common, "--input", str(tmp_path / "all.parquet"), "--until", exported, "--out", both)
    said = _headrace("state", "migrate", exported, *common, "--bootstrap", both, "--out", carried)
    assert "user_amount_std_1d" in said
    assert "bootstrap" in said
    launch_score(Launch(folder, folder / "environment.yaml", bootstrap=carried), Console(file=io.StringIO()))
    _send(services, prefix, future[200:])
    _assert_right(services, prefix, folder, future)
    assert SnapshotReader(carried).manifest.lanes == 2


def _train(services: Endpoints, folder: Path) -> None:
    records = folder / "records.parquet"
    train_and_register(folder, records, TRAIN_UNTIL, TEST_UNTIL, services.mlflow, "champion", synthetic.QUICK)


def _change(folder: Path) -> None:
    """Take other aggregations, and two lanes."""
    file = folder / "pipeline.yaml"
    declared = yaml.safe_load(file.read_text())
    declared["features"][0]["take"] = ["mean", "sum", "std"]
    file.write_text(yaml.safe_dump(declared | {"lanes": 2}, sort_keys=False))


def _send(services: Endpoints, prefix: str, records: Sent) -> None:
    producer = KafkaProducer(bootstrap_servers=services.kafka)
    for one in records:
        producer.send(prefix + one["topic"], key=one["key"], value=one["value"], timestamp_ms=one["timestamp_ms"])
    producer.flush()
    producer.close()


def _headrace(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def _assert_right(services: Endpoints, prefix: str, folder: Path, part: Sent) -> None:
    """Hold the predictions of some orders to a run over all records that never stopped."""
    pipeline = load_pipeline(folder)
    ids = [json.loads(one["value"])["order_id"] for one in part if one["topic"] == "orders"]

    def are_there(read: Sequence[Record]) -> bool:
        return {(one.key or b"").decode() for one in read} >= set(ids)

    found = read_until(services.kafka, f"{prefix}p", are_there, timeout_s=120)
    features = {one.key.decode(): json.loads(one.value or b"")["features"] for one in found if one.key}
    assert len(found) == len(features), "an order was scored twice"
    windowed = [feature.name for stage in plan_stages(pipeline) for feature in stage.features]
    past = History([folder / "records.parquet"], ["orders", "risk"])
    tables = [done.rows.select(["order_id", *windowed]) for done in Backfill(pipeline, folder).run(past)]
    right = {row.pop("order_id"): row for row in pa.Table.from_batches(tables).to_pylist()}
    for one in ids:
        assert {name: features[one][name] for name in windowed} == right[one], one
