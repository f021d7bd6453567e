"""A history read back from real Kafka trains on the same examples as the file that was sent."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml
from kafka import KafkaProducer
from typer.testing import CliRunner

from flink_jobs.cli import app
from models.days import read_provenance
from models.examples import read_examples
from scripts.kafka.topics import Topic, create, delete
from scripts.services.endpoints import Endpoints
from tests import synthetic
from udfs.core.declare.loading import load_pipeline

PREFIX = "test-history."
TOPICS = ("orders", "risk", "refunds")
TOPIC_ORDER = {"risk": 0, "orders": 1, "refunds": 2}
KEPT = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}


@pytest.fixture
def environment(services: Endpoints, tmp_path: Path) -> Iterator[Path]:
    """An environment with its topics, which are gone afterwards."""
    names = [PREFIX + name for name in TOPICS]
    delete(services.kafka, names)
    create(services.kafka, [Topic(name, 3, KEPT) for name in names])
    file = tmp_path / "environment.yaml"
    flink = {"rest_url": "http://127.0.0.1:1", "checkpoints": "file:///c", "savepoints": "file:///s"}
    kafka = {"bootstrap_servers": services.kafka, "topic_prefix": PREFIX}
    file.write_text(yaml.safe_dump({"kafka": kafka, "mlflow": {"tracking_uri": services.mlflow}, "flink": flink}))
    yield file
    delete(services.kafka, names)


def send(bootstrap: str, history: Path, *, transaction: str) -> None:
    """Send a history twice, each time in a transaction; the first one is aborted."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=transaction)
    producer.init_transactions()
    for finish in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        for row in pq.read_table(history).to_pylist():
            producer.send(PREFIX + row["topic"], row["value"], row["key"], timestamp_ms=row["timestamp_ms"])
        producer.flush()
        finish()
    producer.close()


def test_what_kafka_holds_trains_like_what_was_sent(environment: Path, services: Endpoints, tmp_path: Path) -> None:
    folder = synthetic.write_pipeline(tmp_path / "shop")
    sent = synthetic.write_orders(tmp_path / "sent.parquet")
    send(services.kafka, sent, transaction=PREFIX + "1")
    out = tmp_path / "new" / "h.parquet"
    arguments = ["--pipeline", str(folder), "--environment", str(environment), "--out", str(out)]
    done = CliRunner().invoke(app, ["history", *arguments])
    assert done.exit_code == 0, done.output
    rows = pq.read_table(out)
    assert rows.num_rows == pq.read_table(sent).num_rows
    places = [
        (row["timestamp_ms"], TOPIC_ORDER[row["topic"]], row["partition"], row["offset"]) for row in rows.to_pylist()
    ]
    assert places == sorted(places)
    assert set(rows["partition"].to_pylist()) == {0, 1, 2}
    assert min(rows["offset"].to_pylist()) > 0  # behind what was aborted
    pipeline = load_pipeline(folder)
    expected, found = (read_examples(pipeline, folder, path) for path in (sent, out))
    assert len(found) == len(expected) > 800
    order, wanted = np.argsort(found.event_time_ms), np.argsort(expected.event_time_ms)
    np.testing.assert_array_equal(found.matrix[order], expected.matrix[wanted])
    assert (found.positive[order] == expected.positive[wanted]).all()


def test_a_backfill_of_topics_is_that_of_their_history(environment: Path, services: Endpoints, tmp_path: Path) -> None:
    folder = synthetic.write_pipeline(tmp_path / "shop")
    send(services.kafka, synthetic.write_orders(tmp_path / "sent.parquet"), transaction=PREFIX + "2")
    place = ["--pipeline", str(folder), "--environment", str(environment), "--out"]
    for arguments in (
        ["history", *place, str(tmp_path / "h.parquet")],
        ["backfill", *place, str(tmp_path / "of-file"), "--input", str(tmp_path / "h.parquet")],
        ["backfill", *place, str(tmp_path / "of-topics"), "--kafka", ".."],
        ["dataset", *place, str(tmp_path / "set"), "--kafka", "..", "--order", "event-time"],
        ["backfill", *place, str(tmp_path / "range"), "--kafka", "2023-11-17..2023-11-18T12:00"],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    read = {name: ds.dataset(tmp_path / name).to_table() for name in ("of-file", "of-topics", "set", "range")}
    assert read["of-topics"].equals(read["of-file"])
    assert read["of-file"].num_rows == synthetic.EVENTS
    assert read["set"].num_rows > 800
    times = read["range"]["at_ms"].to_numpy()
    assert (times.min(), times.max()) == (1_700_179_200_000, 1_700_308_200_000)
    assert read["range"]["risk"].null_count < read["range"].num_rows  # of rows before the range
    ranges = {one["topic"]: one for one in read_provenance(tmp_path / "of-topics")["inputs"]}
    assert ranges.keys() == {PREFIX + "orders", PREFIX + "risk"}
    assert ranges[PREFIX + "orders"]["from"] == 0
    assert ranges[PREFIX + "orders"]["to"] > 300


def test_topics_without_events_have_no_history(environment: Path, tmp_path: Path) -> None:
    folder = synthetic.write_pipeline(tmp_path / "shop")
    arguments = ["--pipeline", str(folder), "--environment", str(environment), "--out", str(tmp_path / "h.parquet")]
    done = CliRunner().invoke(app, ["history", *arguments])
    assert (done.exit_code, "orders': holds no committed record" in done.stderr) == (1, True), done.output
    assert not (tmp_path / "h.parquet").exists()


def test_a_missing_topic_and_a_missing_broker_are_said(environment: Path, services: Endpoints, tmp_path: Path) -> None:
    folder = synthetic.write_pipeline(tmp_path / "shop")
    arguments = ["history", "--pipeline", str(folder), "--out", str(tmp_path / "h.parquet"), "--environment"]
    delete(services.kafka, [PREFIX + "risk"])
    gone = CliRunner().invoke(app, [*arguments, str(environment)])
    assert (gone.exit_code, f"topic '{PREFIX}risk' does not exist" in gone.stderr) == (1, True), gone.output
    environment.write_text(environment.read_text().replace(services.kafka, "127.0.0.1:9"))
    away = CliRunner().invoke(app, [*arguments, str(environment)])
    assert (away.exit_code, "127.0.0.1:9: there is no Kafka to reach" in away.stderr) == (1, True), away.output
    assert not (tmp_path / "h.parquet").exists()
