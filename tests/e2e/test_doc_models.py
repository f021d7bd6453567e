"""docs/models.md, run as it stands: every export is made, and checked by the command beside it; its lists are whole."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from flink_jobs.cli import app
from tests import synthetic
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.contract import Meaning, ModelContract
from udfs.core.model.refusals import Refusal
from udfs.core.plan.features import feature_columns

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_every_export_on_the_page_is_registered_by_the_command_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = synthetic.write_pipeline(Path("conf") / "shop")
    columns = feature_columns(load_pipeline(folder))
    random = np.random.default_rng(1)
    rows = random.normal(size=(400, len(columns))).astype(np.float32)

    def write_rows(path: str, matrix: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        table = pa.table({name: matrix[:, i].astype(np.float64) for i, name in enumerate(columns)})
        pq.write_table(table.append_column("expected", pa.array(expected.astype(np.float64))), path)

    names: dict[str, Any] = {
        "Path": Path,
        "X": rows,
        "y": (rows[:, 0] + rows[:, 1] > 0).astype(int),
        "kind": np.digitize(rows[:, 0], [-0.5, 0.5]),
        "minutes": rows[:, 0] * 10,
        "count": random.integers(0, 3, 400),
        "write_rows": write_rows,
    }
    done = {}
    for language, text in re.findall(r"^```(python|console)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(text, "docs/models.md", "exec"), names)  # noqa: S102  it is our own page
            continue
        command = shlex.split(text.removeprefix("$ headrace "))
        said = CliRunner().invoke(app, [*command, "--dry-run", "--json"])
        assert said.exit_code == 0, f"{text}\n{said.output}"
        contract = ModelContract.decode(json.dumps(json.loads(said.stdout)["contract"]).encode())
        done[command[2]] = (contract.output.meaning, contract.takes_nulls)
    assert done == {
        "boosting.onnx": ("probability", True),
        "network.onnx": ("class_scores", False),
        "lightgbm.onnx": ("value", True),
        "xgboost.onnx": ("probability", True),
        "columns.onnx": ("probability", False),
    }


def test_every_reason_and_every_meaning_stand_on_the_page() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert named >= {reason.value for reason in Refusal}
    assert named >= set(get_args(Meaning))
