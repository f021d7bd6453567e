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

from udfs.core.model.contract import FeatureSource, ModelContract, Output, Tensor
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import F32, Scorer, feature_matrix

INPUTS = ["amount", "units", "rate"]


def mlp(hidden: int = 16, element: int = TensorProto.FLOAT, batch: int | None = None) -> bytes:
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
        [helper.make_tensor_value_info("x", element, [batch, len(INPUTS)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
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
        files={"model.onnx": hashlib.sha256(data).hexdigest()},
        feature_set="0123456789abcdef",
        tensors=[Tensor("x", "float32", INPUTS)],
        output=Output("y", "probability", 1),
        threshold=0.5,
    )
    return msgspec.structs.replace(contract, **changes)


def matrix(count: int) -> F32:
    return np.random.default_rng(2).normal(size=(count, len(INPUTS))).astype(np.float32)


def test_the_declared_column_is_the_score() -> None:
    data, x = mlp(), matrix(50)
    first, second = (
        Scorer(data, contract_of(data, output=Output("y", "probability", column))).score(x) for column in (0, 1)
    )
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
    with pytest.raises(
        ModelRefusedError, match=r"model\.onnx has sha256 .*; the file was changed after registration \[digest\]$"
    ):
        Scorer.load(tmp_path)


WRONG: dict[str, tuple[bytes, dict[str, Any], Refusal, str]] = {
    "no model": (b"no model", {}, Refusal.NOT_LOADABLE, "ONNX Runtime cannot load it"),
    "fewer inputs": (
        mlp(), {"tensors": [Tensor("x", "float32", INPUTS[:2])]}, Refusal.SHAPE,
        r"got inputs x: tensor\(float\)\[.*3\]; .* says x: .*n, 2\]",
    ),
    "another input name": (
        mlp(), {"tensors": [Tensor("z", "float32", INPUTS)]}, Refusal.NAMES, r"x: .*; its contract says z: .*\[n, 3\]",
    ),
    "another type": (mlp(element=TensorProto.DOUBLE), {}, Refusal.DTYPE, r"got inputs x: tensor\(double\)"),
    "a fixed batch": (mlp(batch=1), {}, Refusal.SHAPE, "input x takes exactly 1 rows; export the model with a first"),
    "another output": (
        mlp(), {"output": Output("score", "value")}, Refusal.NAMES, r"got outputs \['y'\]; its contract says 'score'",
    ),
    "a column beyond": (mlp(), {"output": Output("y", "probability", 2)}, Refusal.SHAPE, r"output y .*column 2"),
    "no column": (mlp(), {"output": Output("y", "value")}, Refusal.SHAPE, r"output y .*value, 1 per row"),
    "another width": (mlp(), {"output": Output("y", "vector", None, 3)}, Refusal.SHAPE, r"y .*vector, 3 per row"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "changes", "reason", "message"), WRONG.values(), ids=WRONG)
def test_a_model_that_is_not_as_its_contract_says_is_refused(
    data: bytes, changes: dict[str, Any], reason: Refusal, message: str
) -> None:
    with pytest.raises(ModelRefusedError, match=f"^model shop-model version 7: .*{message}") as refused:
        Scorer(data, contract_of(data, **changes))
    assert refused.value.reason is reason


def test_a_vector_and_class_scores_come_back_whole() -> None:
    data, x = mlp(), matrix(20)
    columns = [Scorer(data, contract_of(data, output=Output("y", "probability", i))).score(x) for i in (0, 1)]
    for output in (Output("y", "vector", None, 2), Output("y", "class_scores", None, 2, ["no", "yes"])):
        scores = Scorer(data, contract_of(data, output=output, threshold=None)).score(x)
        assert scores.dtype == np.float32
        assert scores.tobytes() == np.stack(columns, axis=1).tobytes()


def table_lookup() -> bytes:
    """Return a model of three inputs: a float, a double of rank 1, and an integer that picks from a table."""
    nodes = [
        helper.make_node("Gather", ["table", "kind"], ["picked"]),
        helper.make_node("Cast", ["exact"], ["exact32"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["exact32", "axis"], ["column"]),
        helper.make_node("Concat", ["amount", "column", "picked"], ["all"], axis=1),
        helper.make_node("ReduceSum", ["all", "axis"], ["y"], keepdims=0),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "lookup",
        [
            info("amount", TensorProto.FLOAT, [None, 1]),
            info("exact", TensorProto.DOUBLE, [None]),
            info("kind", TensorProto.INT64, [None, 1]),
        ],
        [info("y", TensorProto.FLOAT, [None])],
        [
            numpy_helper.from_array(np.array([10, 20, 30], np.float32), "table"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def test_each_input_gets_its_features_in_its_own_type() -> None:
    data = table_lookup()
    tensors = [
        Tensor("amount", "float32", ["amount"]),
        Tensor("exact", "float64", ["rate"]),
        Tensor("kind", "int64", ["units"]),
    ]
    scorer = Scorer(data, contract_of(data, tensors=tensors, output=Output("y", "value")))
    rows = pa.RecordBatch.from_pydict(
        {
            "units": pa.array([0, 2, None, 1, 1], pa.int64()),
            "amount": pa.array([0.5, 1.0, 1.0, None, 2.0], pa.float64()),
            "rate": pa.array([0.25, 1.0, 1.0, 1.0, 1.5], pa.float64()),
        }
    )
    found = scorer.matrix(rows)
    assert found.dtype == np.float64
    # An integer without a value gives no score; a null float is for the model to judge: here NaN.
    np.testing.assert_array_equal(scorer.score(found), np.array([10.75, 32, np.nan, np.nan, 23.5], np.float32))
    halves = np.array([[1.0, 1.0, 0.5]])
    assert np.isnan(scorer.score(halves)).all()


def test_inputs_in_another_order_are_refused() -> None:
    data = table_lookup()
    tensors = [Tensor("kind", "int64", ["k"]), Tensor("exact", "float64", ["e"]), Tensor("amount", "float32", ["a"])]
    with pytest.raises(ModelRefusedError, match="its contract says kind") as refused:
        Scorer(data, contract_of(data, tensors=tensors, output=Output("y", "value")))
    assert refused.value.reason is Refusal.ORDER


NO_CONTRACT = {
    "empty": b"",
    "no fields": b"{}",
    "no JSON": b"not json",
    "more fields": b'{"name": "shop-model", "more": 1}',
    "deep": b"[" * 200_000,
    "another format": contract_of(mlp(), format=3).encode(),
    "a feature twice": contract_of(mlp()).encode().replace(b'"units"', b'"amount"'),
    "an unknown type": contract_of(mlp()).encode().replace(b'"float32"', b'"object"'),
}


@pytest.mark.parametrize("text", NO_CONTRACT.values(), ids=NO_CONTRACT)
def test_what_is_no_contract_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_bytes(text)
    with pytest.raises(ModelRefusedError, match=r"contract\.json: (cannot be read|has format 3)") as refused:
        ModelContract.read(tmp_path)
    assert refused.value.reason is Refusal.CONTRACT


def test_a_contract_of_an_older_headrace_is_said_to_be_one() -> None:
    with pytest.raises(ModelRefusedError, match="an older Headrace wrote it: register the model again"):
        ModelContract.decode(b'{"name": "m", "onnx_input": "x"}')


def test_a_contract_comes_back_as_it_was_written(tmp_path: Path) -> None:
    contract = contract_of(mlp(), provenance={"trainer": "é"}, lineage={"rate": FeatureSource("field", ["rate"])})
    contract.write(tmp_path)
    assert ModelContract.read(tmp_path) == contract
    assert contract.encode() == ModelContract.read(tmp_path).encode()


def test_a_missing_contract_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"contract\.json: cannot be read: No such file .*\[missing_file\]"):
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
