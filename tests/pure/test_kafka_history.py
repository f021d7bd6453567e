"""`headrace history` without Kafka: which topics it reads, and what it refuses."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flink_jobs.cli import app
from flink_jobs.config import Kafka
from flink_jobs.history import export_history, topics_to_read
from flink_jobs.launch import training_hint
from models.inputs import InputError
from tests import synthetic
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.plan.checking import check_pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return synthetic.write_pipeline(tmp_path / "shop")


@pytest.fixture
def pipeline(folder: Path) -> Pipeline:
    return load_pipeline(folder)


def test_enrichments_come_before_the_source_and_the_label_last(pipeline: Pipeline) -> None:
    assert topics_to_read(pipeline) == ("risk", "orders", "refunds")


def test_brokers_with_security_settings_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    kafka = Kafka(bootstrap_servers="b:1", properties={"security.protocol": "SASL_SSL"})
    with pytest.raises(InputError, match=r"kafka\.properties: got security\.protocol; only brokers without security"):
        export_history(pipeline, kafka, tmp_path / "h.parquet")


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
