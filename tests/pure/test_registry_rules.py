"""What the registry's clients do without a registry: addresses, aliases, references, and that it is away."""

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flink_jobs.cli import app
from models import lifecycle
from models.catalog import parse_reference
from models.console import mlflow_uri
from models.registry import resolve
from models.tracking import RegistryDownError, RegistryError, connect
from scripts.services.home import home_at
from tests import synthetic
from udfs.core.errors import HeadraceError, ModelError
from udfs.core.home import services_home


def test_an_unreachable_registry_is_named_at_once() -> None:
    began_s = time.monotonic()
    with pytest.raises(RegistryDownError, match=r"no MLflow at http://127\.0\.0\.1:9: .*headrace services up"):
        resolve("m", "champion", "http://127.0.0.1:9", "f")
    assert time.monotonic() - began_s < 5


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "127.0.0.1:5000", ""])
def test_only_http_will_do(uri: str) -> None:
    with pytest.raises(RegistryError, match="expected http://host:port"), connect(uri):
        pass


def test_the_uri_is_given_or_that_of_the_local_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HEADRACE_HOME", str(tmp_path))
    assert mlflow_uri("http://given") == "http://given"
    with pytest.raises(HeadraceError, match=r"no MLflow URI .*pass --mlflow"):
        mlflow_uri(None)
    (tmp_path / "endpoints.json").write_text(json.dumps({"mlflow": "http://local"}))
    assert mlflow_uri(None) == "http://local"


def test_the_working_folder_does_not_decide_where_the_services_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert services_home() == home_at().root == Path(__file__).parents[2] / "build" / "local"
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "h"))
    assert services_home() == home_at().root == tmp_path / "h"


@pytest.mark.parametrize(
    ("arguments", "alias"), [([], "champion"), (["--alias", "challenger"], "challenger"), (["--no-alias"], None)]
)
def test_training_moves_the_alias_that_the_pipeline_scores_with(
    arguments: list[str], alias: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = []

    def stopped(*given: object, **_: object) -> None:
        got.append((given[0], given[5]))
        msg = "enough"
        raise ModelError(msg)

    monkeypatch.setattr(lifecycle, "train_and_register", stopped)
    folder = synthetic.write_pipeline(tmp_path / "shop")
    days = ["--train-until", "2023-11-19", "--test-until", "2023-11-21", "--mlflow", "http://given"]
    train = ["models", "train", "--pipeline", str(folder / "pipeline.yaml"), "--history", "h.parquet", *days]
    done = CliRunner().invoke(app, [*train, *arguments])
    assert (got, done.output) == ([(folder, alias)], "headrace: enough\n")
    both = CliRunner().invoke(app, [*train, "--alias", "a", "--no-alias"])
    assert "got --alias a and --no-alias; give one of them" in both.output


def test_references_to_versions() -> None:
    assert parse_reference("a@b") == ("a", "b", None)
    assert parse_reference("a/2") == ("a", None, "2")
    assert parse_reference("a") == ("a", None, None)
