"""The README's worked example, run as it stands there, and its lists held to the code."""

import re
import runpy
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.testing import CliRunner

from flink_jobs.cli import ORDER, app, run
from models.cli import app as models
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.feature_groups import FeatureGroup
from udfs.core.plan.features import feature_columns
from udfs.core.rows.letters import Reason

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language, indentation of the surrounding list taken away."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    for text in blocks("yaml") + blocks("python"):
        name = text.partition("\n")[0].removeprefix("# ")
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path


def test_the_worked_example_prints_what_the_readme_says(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(example)
    runpy.run_path("try.py")
    assert capsys.readouterr().out == next(text for text in blocks("text") if text.startswith("a 1.0"))


def test_the_worked_example_is_valid(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example)
    validated = CliRunner().invoke(app, ["validate", "conf/orders"])
    assert validated.exit_code == 0, validated.output
    planned = CliRunner().invoke(app, ["plan", "--pipeline", "conf/orders", "--json"])
    assert "customer_amount_mean_1h" in planned.output, planned.output


def test_every_reject_reason_is_explained() -> None:
    table = README.partition("| reason | what was wrong |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z0-9_]+)`", table)) - {"min", "max", "future_tolerance", "source"} >= set(
        get_args(Reason)
    ) - {"late"}


def test_every_command_is_listed() -> None:
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    named = {word for text in re.findall(r"`([a-z ]+)`", table) for word in text.split()}
    assert named >= set(ORDER)
    commands = [*run.registered_commands, *models.registered_commands]
    assert named >= {command.name or getattr(command.callback, "__name__", "") for command in commands}


def test_the_features_shown_are_features() -> None:
    (shown,) = [text for text in blocks("yaml") if text.startswith("# conf/orders/more.yaml")]
    orders = next(text for text in blocks("yaml") if text.startswith("# conf/orders/pipeline.yaml"))
    pipeline = Pipeline.model_validate(yaml.load(orders, yaml.CSafeLoader) | yaml.load(shown, yaml.CSafeLoader))
    assert "customer_amount_p90_tumbling_1d" in feature_columns(pipeline)
    windows = README.partition("| window | holds |")[2].partition("\n\n")[0]
    for cell in re.findall(r"`([^`]+)`", windows):
        group = {"entity": "customer", "take": ["count"], "over": [yaml.safe_load(cell)]}
        assert FeatureGroup.model_validate(group).over[0].kind


def test_every_path_named_in_the_reading_order_exists() -> None:
    order = README.partition("## Reading the code")[2].partition("\n## ")[0]
    for name in re.findall(r"`((?:udfs|flink_jobs|models|conf|tests)/[\w./-]*)`", order):
        assert (ROOT / name).exists(), name
