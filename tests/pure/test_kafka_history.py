"""`headrace history` without Kafka: which topics it reads, the order it puts records in, and what it refuses."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from flink_jobs import history
from flink_jobs.cli import app
from flink_jobs.config import Kafka
from flink_jobs.history import export_history, topics_to_read
from flink_jobs.launch import training_hint
from models.history import SCHEMA, HistoryError, read_history
from scripts.kafka.consume import Record
from tests import synthetic
from udfs.core.checking import check_pipeline
from udfs.core.definition import Pipeline
from udfs.core.loading import load_pipeline

KAFKA = Kafka(bootstrap_servers="b:1", topic_prefix="test.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return synthetic.write_pipeline(tmp_path / "shop")


@pytest.fixture
def pipeline(folder: Path) -> Pipeline:
    return load_pipeline(folder)


def serve(monkeypatch: pytest.MonkeyPatch, **topics: list[tuple[int, int, int]]) -> None:
    """Let topics hold records of these partitions, offsets and timestamps."""

    def iterate(bootstrap: str, topic: str) -> Iterator[Record]:
        assert bootstrap == "b:1"
        for partition, offset, time_ms in topics[topic.removeprefix("test.")]:
            value = None if offset == 7 else f"{topic} {partition} {offset}".encode()
            yield Record(topic, partition, offset, time_ms, b"k" if partition else None, value, ())

    monkeypatch.setattr(history, "iterate", iterate)


@pytest.mark.parametrize("piece_rows", [1, 3, 100])
def test_records_are_ordered_by_time_then_topic_then_place(
    piece_rows: int, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "ROW_GROUP_ROWS", piece_rows)
    orders = [(1, 4, 10), (1, 7, 30), (0, 2, 10), (0, 3, 10), (0, 9, 20)]
    serve(monkeypatch, refunds=[(0, 0, 5), (0, 1, 20)], orders=orders, risk=[(2, 0, 20), (2, 1, 10)])
    export_history(pipeline, KAFKA, tmp_path / "h.parquet", Console(file=io.StringIO()))
    table = pq.read_table(tmp_path / "h.parquet")
    assert table.schema.equals(SCHEMA)
    places = [(row["timestamp_ms"], row["topic"], row["partition"], row["offset"]) for row in table.to_pylist()]
    assert places == [
        (5, "refunds", 0, 0),
        (10, "risk", 2, 1),
        (10, "orders", 0, 2),
        (10, "orders", 0, 3),
        (10, "orders", 1, 4),
        (20, "risk", 2, 0),
        (20, "orders", 0, 9),
        (20, "refunds", 0, 1),
        (30, "orders", 1, 7),
    ]
    assert table["value"].to_pylist()[2:9:6] == [b"test.orders 0 2", None]
    assert [batch.topic for batch in read_history(tmp_path / "h.parquet", ["orders"])] == ["orders"]


def test_enrichments_come_before_the_source_and_the_label_last(pipeline: Pipeline) -> None:
    assert topics_to_read(pipeline) == ("risk", "orders", "refunds")


def test_a_source_without_records_writes_nothing(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, risk=[], orders=[], refunds=[])
    with pytest.raises(HistoryError, match=r"topic 'test\.orders': holds no committed record"):
        export_history(pipeline, KAFKA, tmp_path / "h.parquet", Console(file=io.StringIO()))
    assert not (tmp_path / "h.parquet").exists()


def test_brokers_with_security_settings_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    kafka = Kafka(bootstrap_servers="b:1", properties={"security.protocol": "SASL_SSL"})
    with pytest.raises(HistoryError, match=r"kafka\.properties: got security\.protocol; .* reads brokers without"):
        export_history(pipeline, kafka, tmp_path / "h.parquet", Console(file=io.StringIO()))


def test_help_says_the_order() -> None:
    shown = " ".join(CliRunner().invoke(app, ["history", "--help"]).stdout.split())
    assert "in the order of Kafka timestamps" in shown


def test_what_to_do_without_a_model_is_said_in_two_commands(folder: Path) -> None:
    days = "--train-until YYYY-MM-DD --test-until YYYY-MM-DD"
    assert training_hint(check_pipeline(folder)).splitlines() == [
        "train and register one with:",
        f"  headrace history --pipeline {folder} --out build/shop/history.parquet",
        f"  headrace models train --pipeline {folder} --history build/shop/history.parquet {days}",
    ]
