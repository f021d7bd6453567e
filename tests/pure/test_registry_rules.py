import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from models import check, lifecycle
from models.catalog import parse_reference
from models.check import check_model, check_strictly
from models.cli import app, mlflow_uri
from models.golden import Golden
from models.onnx_wire import references
from models.registry import resolve
from models.tracking import RegistryError, connect
from scripts.services.home import home_at
from tests import synthetic
from udfs.core.errors import HeadraceError, ModelError
from udfs.core.home import services_home
from udfs.core.model import ModelContract


def model(bias: float = 0.5, domain: str = "", **attributes: Any) -> onnx.ModelProto:
    """A sum over two columns and a bias."""
    nodes = [
        helper.make_node("ReduceSum", ["features", "axes"], ["total"], keepdims=1),
        helper.make_node("Add", ["total", "bias"], ["probabilities"], domain=domain, **attributes),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 2])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 1])]
    weights = [
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
        numpy_helper.from_array(np.array([bias], np.float32), "bias"),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 15), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def contract_of(data: bytes, **changes: Any) -> ModelContract:
    promised: dict[str, Any] = {
        "name": "m",
        "version": "3",
        "feature_set": "f",
        "inputs": ["a", "b"],
        "onnx_input": "features",
    }
    promised |= {"onnx_output": "probabilities", "output_column": 0, "threshold": 0.5}
    return ModelContract(**{**promised, "sha256": hashlib.sha256(data).hexdigest(), **changes})


def refused(data: bytes, match: str, **changes: Any) -> None:
    with pytest.raises(ModelError, match=match):
        check_model(data, contract_of(data, **changes))


def test_a_plain_model_passes() -> None:
    data = model().SerializeToString()
    check_strictly(data)
    scorer = check_model(data, contract_of(data))
    golden = Golden.of(scorer, np.array([[1, 2], [3, 4]], np.float32))
    assert golden.scores[:2].tolist() == [3.5, 7.5]


def test_a_score_that_is_not_finite_is_refused() -> None:
    data = model().SerializeToString()
    rows = np.array([[1, 2], [np.nan, 0]], np.float32)
    with pytest.raises(ModelError, match="row 1 of the golden batch scores nan; a score must be finite"):
        check_model(data, contract_of(data), Golden(rows, np.array([3.5, 0], np.float32)))


def test_external_data_is_refused_wherever_it_hides() -> None:
    at_top = model()
    external = at_top.graph.initializer[1]
    external.ClearField("raw_data")
    external.data_location = TensorProto.EXTERNAL
    external.external_data.add(key="location", value="../../etc/passwd")
    refused(at_top.SerializeToString(), "keeps tensors in other files")

    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], name="t")
    tensor.external_data.add(key="location", value="weights.bin")
    branch = helper.make_graph([helper.make_node("Constant", [], ["o"], value=tensor)], "branch", [], [])
    nested = model()
    nested.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))
    refused(nested.SerializeToString(), "keeps tensors in other files")


def test_operators_of_another_domain_are_refused() -> None:
    refused(model(domain="com.example").SerializeToString(), "operators of domain 'com.example'; only the standard")
    imported = model()
    imported.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    refused(imported.SerializeToString(), "operators of domain 'ai.onnx.preview.training'")


def test_functions_of_its_own_are_refused() -> None:
    own = model()
    node = helper.make_node("Add", ["x", "x"], ["y"])
    own.functions.append(helper.make_function("", "Twice", ["x"], ["y"], [node], [helper.make_opsetid("", 15)]))
    refused(own.SerializeToString(), "uses functions of its own")


def test_a_large_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_ONNX_BYTES", 100)
    refused(model().SerializeToString(), r"has \d+ bytes; at most 100 are allowed")


def test_bytes_that_are_no_model_are_refused() -> None:
    data = model().SerializeToString()
    for broken in (data[:-7], b"\xff" * 40, b"\x0f" * 9, b"not a model"):
        refused(broken, "no ONNX model|cannot load it")
        with pytest.raises(ModelError, match="no valid ONNX model"):
            check_strictly(broken)


def test_deep_nesting_is_refused() -> None:
    graph = b""
    for field in (6, 5, 1) * 25:  # graph of an attribute of a node of a graph
        graph = bytes([field << 3 | 2]) + varint(len(graph)) + graph
    refused(bytes([7 << 3 | 2]) + varint(len(graph)) + graph, "messages nested deeper than 64")


def varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"inputs": ["a", "b", "c"]}, r"features: tensor\(float\)\[n, 3\]"),
        ({"onnx_input": "x"}, r"its contract says x: tensor\(float\)\[n, 2\]"),
        ({"onnx_output": "scores"}, r"got outputs \['probabilities'\]; its contract says 'scores'"),
        ({"sha256": "00"}, "its contract says 00; the file was changed after registration"),
    ],
)
def test_a_model_that_breaks_its_contract_is_refused(changes: dict[str, Any], match: str) -> None:
    refused(model().SerializeToString(), match, **changes)


def test_the_reader_of_bytes_agrees_with_the_onnx_package() -> None:
    data = model(domain="com.example").SerializeToString()
    parsed = onnx.load_from_string(data)
    domains = {one.domain for one in parsed.opset_import} | {node.domain for node in parsed.graph.node}
    assert references(data).domains | {""} == domains


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_a_golden_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"golden\.npz: cannot be read as a golden batch"):
        Golden.read(tmp_path)


def test_a_pickled_golden_file_is_refused(tmp_path: Path) -> None:
    rows = np.array([{"a": 1}], object)
    np.savez(tmp_path / "golden.npz", inputs=rows, scores=rows, allow_pickle=True)
    with pytest.raises(ModelError, match="cannot be read as a golden batch"):
        Golden.read(tmp_path)


def test_an_unreachable_registry_is_named_at_once() -> None:
    began_s = time.monotonic()
    with pytest.raises(RegistryError, match=r"no MLflow at http://127\.0\.0\.1:9: .*headrace services up"):
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
        got.append(given[5])
        msg = "enough"
        raise ModelError(msg)

    monkeypatch.setattr(lifecycle, "train_and_register", stopped)
    folder = str(synthetic.write_pipeline(tmp_path / "shop"))
    days = ["--train-until", "2023-11-19", "--test-until", "2023-11-21", "--mlflow", "http://given"]
    done = CliRunner().invoke(app, ["train", "--pipeline", folder, "--history", "h.parquet", *days, *arguments])
    assert (got, done.output) == ([alias], "error: enough\n")
    both = CliRunner().invoke(
        app, ["train", "--pipeline", folder, "--history", "h", *days, "--alias", "a", "--no-alias"]
    )
    assert "got --alias a and --no-alias; give one of them" in both.output


def test_references_to_versions() -> None:
    assert parse_reference("a@b") == ("a", "b", None)
    assert parse_reference("a/2") == ("a", None, "2")
    assert parse_reference("a") == ("a", None, None)
