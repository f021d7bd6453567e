"""The scorer: takes the model its contract describes and no other, and scores a row the same in any batch."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from udfs.core.errors import ModelError
from udfs.core.model import F32, ModelContract, Scorer, feature_matrix

INPUTS = ["amount", "units", "rate"]


def mlp(hidden: int = 16, element: int = TensorProto.FLOAT) -> bytes:
    """Return a small network, float32[n, 3] -> float32[n, 2] through a sigmoid."""
    chance = np.random.default_rng(1)
    weights = {
        "w1": chance.normal(size=(len(INPUTS), hidden)).astype(np.float32),
        "b1": chance.normal(size=hidden).astype(np.float32),
        "w2": chance.normal(size=(hidden, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["x32"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["x32", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["m"]),
        helper.make_node("Sigmoid", ["m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", element, [None, len(INPUTS)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def contract_of(data: bytes, **changes: Any) -> ModelContract:
    contract = ModelContract(
        name="shop-model",
        version="7",
        sha256=hashlib.sha256(data).hexdigest(),
        feature_set="0123456789abcdef",
        inputs=INPUTS,
        onnx_input="x",
        onnx_output="y",
        output_column=1,
        threshold=0.5,
    )
    return msgspec.structs.replace(contract, **changes)


def matrix(count: int) -> F32:
    return np.random.default_rng(2).normal(size=(count, len(INPUTS))).astype(np.float32)


def test_the_declared_column_is_the_score() -> None:
    data, x = mlp(), matrix(50)
    first, second = (Scorer(data, contract_of(data, output_column=column)).score(x) for column in (0, 1))
    assert first.dtype == np.float32
    assert first.shape == (50,)
    weights = {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(data).graph.initializer}
    hidden = np.maximum(x @ weights["w1"] + weights["b1"], 0)
    expected = 1 / (1 + np.exp(-hidden @ weights["w2"]))
    np.testing.assert_allclose(np.stack([first, second], axis=1), expected, rtol=1e-4)


def test_the_score_of_a_row_does_not_depend_on_its_batch() -> None:
    data, x = mlp(), matrix(257)
    scorer = Scorer(data, contract_of(data))
    whole = scorer.score(x)
    for size in (1, 2, 3, 7, 16, 100):
        parts = [scorer.score(x[start : start + size]) for start in range(0, len(x), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes(), f"batches of {size}"


def test_an_empty_batch_has_no_scores() -> None:
    data = mlp()
    assert Scorer(data, contract_of(data)).score(matrix(0)).shape == (0,)


def test_a_folder_gives_its_model(tmp_path: Path) -> None:
    data = mlp()
    (tmp_path / "model.onnx").write_bytes(data)
    contract_of(data).write(tmp_path)
    scorer = Scorer.load(tmp_path)
    assert scorer.contract == contract_of(data)
    assert scorer.score(matrix(5)).tobytes() == Scorer(data, contract_of(data)).score(matrix(5)).tobytes()


def test_bytes_that_changed_after_registration_are_refused(tmp_path: Path) -> None:
    data = mlp()
    contract_of(data).write(tmp_path)
    (tmp_path / "model.onnx").write_bytes(data + b"\0")
    with pytest.raises(ModelError, match=r"model\.onnx has sha256 .*; the file was changed after registration$"):
        Scorer.load(tmp_path)


WRONG: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "no model": (b"no model", {}, "ONNX Runtime cannot load it"),
    "fewer inputs": (mlp(), {"inputs": INPUTS[:2]}, r"got input x: tensor\(float\)\[.*3\]; .* says x: .*n, 2\]"),
    "another input name": (mlp(), {"onnx_input": "z"}, r"got input x: .*; its contract says z: .*\[n, 3\]"),
    "another type": (mlp(element=TensorProto.DOUBLE), {}, r"got input x: tensor\(double\)"),
    "another output": (mlp(), {"onnx_output": "score"}, r"got outputs \['y'\]; its contract says 'score'$"),
    "a column beyond": (mlp(), {"output_column": 2}, r"output y .*column 2"),
    "no column": (mlp(), {"output_column": -1}, r"output y .*column -1"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "changes", "message"), WRONG.values(), ids=WRONG)
def test_a_model_that_is_not_as_its_contract_says_is_refused(
    data: bytes, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=f"^model shop-model version 7: .*{message}"):
        Scorer(data, contract_of(data, **changes))


@pytest.mark.parametrize("text", [b"", b"{}", b"not json", b'{"name": "shop-model", "more": 1}'])
def test_what_is_no_contract_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_bytes(text)
    with pytest.raises(ModelError, match=r"contract\.json: cannot be read as a model contract"):
        ModelContract.read(tmp_path)


def test_a_missing_contract_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"contract\.json: cannot be read as a model contract: .*No such file"):
        ModelContract.read(tmp_path)


def test_the_matrix_has_the_columns_in_order_as_float32_with_nan_for_null() -> None:
    rows = pa.RecordBatch.from_pydict(
        {
            "units": pa.array([2**24 + 1, None, -3], pa.int64()),
            "amount": pa.array([0.1, 1.0, None], pa.float64()),
            "is_open": pa.array([True, False, None], pa.bool_()),
        }
    )
    found = feature_matrix(rows, ["amount", "units", "is_open"])
    nan = np.nan
    np.testing.assert_array_equal(found, np.array([[0.1, 2**24, 1], [1, nan, 0], [nan, -3, nan]], np.float32))
    assert found.flags.c_contiguous
    assert feature_matrix(rows.slice(0, 0), ["amount"]).shape == (0, 1)
