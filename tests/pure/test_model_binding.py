"""A model from elsewhere is bound to a pipeline's features by position or by name, or is refused with the reason."""

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from models.binding import Meant, bind
from models.check import check_strictly
from models.foreign import Foreign, golden_rows, prepare
from tests import hostile, synthetic
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.contract import Output, Tensor
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.plan.features import feature_columns

KNOWN = ["a", "b", "c"]


def unnamed(*edits: hostile.Edit, features: int = 2, element: int = TensorProto.FLOAT) -> bytes:
    """The model without metadata that names its features."""
    return hostile.data(lambda made: made.ClearField("metadata_props"), *edits, features=features, element=element)


def wide(columns: int, name: str = "variable") -> bytes:
    """A model that gives its inputs back, [n, columns], under an output of that name."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], [name])],
        "wide",
        [info("x", TensorProto.FLOAT, [None, columns])],
        [info(name, TensorProto.FLOAT, [None, columns])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def by_name(*names: str) -> bytes:
    """A model with an input per feature, [n, 1], that adds them up to [n, 1]."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Sum", list(names), ["total"])],
        "sum",
        [info(name, TensorProto.FLOAT, [None, 1]) for name in names],
        [info("total", TensorProto.FLOAT, [None, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_one_input_takes_all_features_in_order() -> None:
    tensors, output = bind(unnamed(features=3), "m", (), KNOWN)
    assert tensors == [Tensor("features", "float32", KNOWN)]
    assert output == Output("probabilities", "probability")


def test_metadata_or_a_person_says_which_features_and_in_which_order() -> None:
    assert bind(hostile.data(), "m", (), KNOWN)[0][0].features == ["a", "b"]
    assert bind(unnamed(), "m", ("c", "a"), KNOWN)[0][0].features == ["c", "a"]


def test_several_inputs_are_bound_by_name() -> None:
    tensors, output = bind(by_name("c", "a"), "m", (), KNOWN)
    assert tensors == [Tensor("c", "float32", ["c"]), Tensor("a", "float32", ["a"])]
    assert output == Output("total", "value")


@pytest.mark.parametrize(
    ("width", "name", "meant", "expected"),
    [
        (2, "probabilities", Meant(), Output("probabilities", "probability", 1)),
        (2, "probabilities", Meant(column=0), Output("probabilities", "probability", 0)),
        (3, "probabilities", Meant(), Output("probabilities", "class_scores", None, 3, ["0", "1", "2"])),
        (3, "x_out", Meant(classes=("r", "g", "b")), Output("x_out", "class_scores", None, 3, ["r", "g", "b"])),
        (3, "variable", Meant(), Output("variable", "vector", None, 3)),
        (1, "variable", Meant(), Output("variable", "value")),
        (3, "variable", Meant(meaning="value", column=2), Output("variable", "value", 2)),
    ],
)
def test_the_meaning_is_found_or_said(width: int, name: str, meant: Meant, expected: Output) -> None:
    assert bind(wide(width, name), "m", (), [f"f{i}" for i in range(width)], meant)[1] == expected


WRONG = {
    "too few features": (unnamed(features=3), ("a", "b"), Meant(), Refusal.SHAPE, "2 features are to enter it"),
    "an unknown feature": (unnamed(), ("a", "d"), Meant(), Refusal.NAMES, "'d' is no feature of the pipeline"),
    "an input that is no feature": (by_name("a", "bb"), (), Meant(), Refusal.NAMES, "'bb' is no feature"),
    "inputs in another order": (by_name("b", "a"), ("a", "b"), Meant(), Refusal.ORDER, "its inputs are b, a; got a, b"),
    "other inputs": (by_name("b", "a"), ("b", "c"), Meant(), Refusal.NAMES, "its inputs are b, a; got b, c"),
    "text": (unnamed(element=TensorProto.STRING), ("a", "b"), Meant(), Refusal.DTYPE, r"input features is tensor\(str"),
    "no such output": (unnamed(), ("a", "b"), Meant("label"), Refusal.NAMES, "has no output 'label'"),
    "which column": (wide(3), (), Meant(meaning="value"), Refusal.SHAPE, "has 3 columns; say which one is the value"),
    "a column beyond": (wide(3), (), Meant(meaning="value", column=3), Refusal.SHAPE, "has 3 columns; got column 3"),
    "too few classes": (wide(3), (), Meant(classes=("x", "y")), Refusal.NAMES, "3 columns; got the classes x, y"),
    "maps": (unnamed(hostile.as_maps), ("a", "b"), Meant(), Refusal.DTYPE, "without ZipMap"),
    "one row for all": (unnamed(hostile.constant_shape), ("a", "b"), Meant(), Refusal.SHAPE, "for 3 rows"),
    "too much memory": (unnamed(hostile.huge_tensor), ("a", "b"), Meant(), Refusal.FAILED, "failed on three rows"),
}


@pytest.mark.parametrize(("data", "inputs", "meant", "reason", "text"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_bound_is_refused(
    data: bytes, inputs: tuple[str, ...], meant: Meant, reason: Refusal, text: str
) -> None:
    with pytest.raises(ModelRefusedError, match=text) as error:
        bind(data, "m", inputs, KNOWN, meant)
    assert error.value.reason is reason


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return synthetic.write_pipeline(tmp_path / "shop")


@pytest.fixture
def columns(shop: Path) -> list[str]:
    return list(feature_columns(load_pipeline(shop)))


def test_an_onnx_file_becomes_an_entry_with_lineage(shop: Path, columns: list[str], tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(unnamed())
    taken = (columns[-1], "amount")
    said = {"trainer": "by hand", "data": "orders.parquet"}
    entry = prepare(Foreign(file, shop, inputs=taken, provenance=said, metrics={"auc": 0.7}))
    contract = entry.package.contract
    assert (contract.name, contract.pipeline, contract.inputs) == ("shop-refund", "shop", list(taken))
    assert (contract.threshold, contract.takes_nulls) == (0.5, True)
    assert contract.provenance == {"exporter": "tests", "file": "model.onnx", **said}
    assert set(contract.lineage[columns[-1]].columns) >= {"amount", "user"}
    assert entry.metrics == {"auc": 0.7}


def test_golden_rows_are_taken_from_a_file_and_compared(shop: Path, tmp_path: Path) -> None:
    file, rows = tmp_path / "model.onnx", tmp_path / "rows.parquet"
    file.write_bytes(unnamed())
    values = {"amount": [1.0, None, 3.0], "discount": [0.5, 0.5, None], "more": ["x", "y", "z"]}
    logits = np.array([1.5, 0.5, 3.0]) + 0.5
    pq.write_table(pa.table(values | {"expected": 1 / (1 + np.exp(-logits))}), rows)
    given = Foreign(file, shop, inputs=("amount", "discount"), rows=rows)
    golden = prepare(given).package.golden
    assert golden.inputs[:3, 0].tolist()[::2] == [1.0, 3.0]
    assert np.isnan(golden.inputs[1, 0])
    pq.write_table(pa.table(values | {"expected": 1 / (1 + np.exp(-logits[::-1]))}), rows)
    with pytest.raises(ModelRefusedError, match=r"row \d scores .* in the order of training") as error:
        prepare(given)
    assert error.value.reason is Refusal.GOLDEN
    with pytest.raises(ModelRefusedError, match=r"rows\.parquet: has no column 'user_amount_max_1d'") as error:
        prepare(Foreign(file, shop, inputs=("amount", "user_amount_max_1d"), rows=rows))
    assert error.value.reason is Refusal.NAMES


def test_golden_rows_may_expect_a_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": [1, 2], "expected": [[0.1, 0.9], [0.5, 0.5]]}), path)
    matrix, expected = golden_rows(path, ["a"])
    assert matrix.tolist() == [[1.0], [2.0]]
    assert expected is not None
    assert expected.tolist() == [[0.1, 0.9], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (pa.table({"a": ["x", "y"]}), Refusal.DTYPE),
        (pa.table({"a": pa.array([], pa.float64())}), Refusal.SHAPE),
        (pa.table({"a": [1.0, 2.0], "expected": [[0.1], [0.1, 0.2]]}), Refusal.SHAPE),
        (pa.table({"b": [1.0]}), Refusal.NAMES),
    ],
)
def test_golden_rows_that_are_none_are_refused(table: pa.Table, reason: Refusal, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(ModelRefusedError) as error:
        golden_rows(tmp_path / "rows.parquet", ["a"])
    assert error.value.reason is reason
    with pytest.raises(ModelRefusedError) as error:
        golden_rows(tmp_path / "nothing.parquet", ["a"])
    assert error.value.reason is Refusal.MISSING_FILE


def test_a_link_a_pickle_and_a_path_as_a_name_are_refused(shop: Path, tmp_path: Path) -> None:
    real, link, pickled = tmp_path / "real.onnx", tmp_path / "link.onnx", tmp_path / "model.pkl"
    real.write_bytes(unnamed())
    link.symlink_to(real)
    pickled.write_bytes(hostile.pickled(str(tmp_path / "trace")))
    renamed = tmp_path / "renamed.onnx"
    renamed.write_bytes(pickled.read_bytes())
    inputs = ("amount", "discount")
    for given, reason in (
        (Foreign(link, shop, inputs=inputs), Refusal.SYMLINK),
        (Foreign(pickled, shop, inputs=inputs), Refusal.PICKLE),
        (Foreign(renamed, shop, inputs=inputs), Refusal.PICKLE),
        (Foreign(real, shop, name="../../m", inputs=inputs), Refusal.PATH),
        (Foreign(tmp_path / "none.onnx", shop, inputs=inputs), Refusal.MISSING_FILE),
        (Foreign(real, shop, inputs=inputs, meant=Meant(meaning="vector"), threshold=1.0), Refusal.CONTRACT),
    ):
        with pytest.raises(ModelRefusedError) as error:
            prepare(given)
        assert error.value.reason is reason
    assert not (tmp_path / "trace").exists()


def test_the_onnx_checker_has_its_say() -> None:
    check_strictly(unnamed())
    made = onnx.load_from_string(unnamed())
    made.graph.node[0].output[0] = "nobody"
    with pytest.raises(ModelRefusedError, match="no valid ONNX model") as error:
        check_strictly(made.SerializeToString())
    assert error.value.reason is Refusal.NOT_ONNX
