"""Models as somebody hostile, or careless, would hand them in; each says which reason it is to be refused for."""

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.files import ONNX_FILE, sha256
from udfs.core.model.refusals import Refusal

INPUT, OUTPUT = "features", "probabilities"
FEATURES = ["a", "b"]
NAMES = json.dumps(FEATURES)
Edit = Callable[[onnx.ModelProto], object]


def model(
    *edits: Edit, features: int = 2, element: int = TensorProto.FLOAT, opset: int = 15, domain: str = "", ir: int = 8
) -> onnx.ModelProto:
    """Return the logistic function of the sum of two columns and a bias; null counts as 0."""
    nodes = [
        helper.make_node("Cast", [INPUT], ["x"], to=TensorProto.FLOAT),
        helper.make_node("IsNaN", ["x"], ["is_null"]),
        helper.make_node("Where", ["is_null", "zero", "x"], ["filled"]),
        helper.make_node("ReduceSum", ["filled", "axes"], ["total"], keepdims=1),
        helper.make_node("Add", ["total", "bias"], ["logit"], domain=domain),
        helper.make_node("Sigmoid", ["logit"], [OUTPUT]),
    ]
    weights: dict[str, NDArray[Any]] = {
        "axes": np.array([1], np.int64),
        "bias": np.array([0.5], np.float32),
        "zero": np.zeros(1, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info(INPUT, element, [None, features])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=ir, producer_name="tests")
    made.metadata_props.add(key="headrace.features", value=NAMES)
    for edit in edits:
        edit(made)
    return made


def data(*edits: Edit, **options: Any) -> bytes:
    """Return `model` as bytes."""
    return bytes(model(*edits, **options).SerializeToString(deterministic=True))


def contract_of(onnx_bytes: bytes, **changes: Any) -> ModelContract:
    """Return the contract of `model`."""
    promised: dict[str, Any] = {
        "name": "m",
        "version": "3",
        "files": {ONNX_FILE: sha256(onnx_bytes)},
        "pipeline": "shop",
        "feature_set": "f",
        "tensors": [Tensor(INPUT, "float32", FEATURES)],
        "output": Output(OUTPUT, "probability"),
        "threshold": 0.5,
    }
    return ModelContract(**{**promised, **changes})


def external(made: onnx.ModelProto) -> None:
    """Point a weight at a file outside the folder."""
    tensor = made.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def nested_external(made: onnx.ModelProto) -> None:
    """Hide the same in a constant of a branch."""
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], name="t")
    tensor.external_data.add(key="location", value="weights.bin")
    branch = helper.make_graph([helper.make_node("Constant", [], ["o"], value=tensor)], "branch", [], [])
    made.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))


def sparse_external(made: onnx.ModelProto) -> None:
    """Hide it in the values of a sparse weight."""
    values = TensorProto(data_type=TensorProto.FLOAT, dims=[1], name="s", data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="/etc/shadow")
    indices = numpy_helper.from_array(np.array([0], np.int64), "i")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def own_function(made: onnx.ModelProto) -> None:
    """Bring a function along."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    made.functions.append(helper.make_function("", "Twice", ["x"], ["y"], [node], [helper.make_opsetid("", 15)]))


def unknown_operator(made: onnx.ModelProto) -> None:
    """Use an operator that the standard domain does not have."""
    made.graph.node[5].op_type = "Exfiltrate"


def imported_domain(made: onnx.ModelProto) -> None:
    """Import a domain without using it."""
    made.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))


def swapped(made: onnx.ModelProto) -> None:
    """Name the features in another order."""
    made.metadata_props[0].value = json.dumps(FEATURES[::-1])


def renamed(made: onnx.ModelProto) -> None:
    """Name other features."""
    made.metadata_props[0].value = json.dumps(["a", "c"])


def batch_wide(made: onnx.ModelProto) -> None:
    """Add the mean over all rows, as a layer that was exported in training mode does."""
    made.graph.node.insert(4, helper.make_node("ReduceMean", ["total"], ["mean"], axes=[0], keepdims=1))
    made.graph.node[5].input[1] = "mean"


def constant_shape(made: onnx.ModelProto) -> None:
    """Answer with one row, whatever the batch."""
    made.graph.node[3].CopyFrom(helper.make_node("ReduceSum", ["filled", "axes"], ["total"], keepdims=1))
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([0, 1], np.int64), "axes"))


def divided_by_zero(made: onnx.ModelProto) -> None:
    """Answer with infinity."""
    made.graph.node[5].CopyFrom(helper.make_node("Div", ["logit", "zero"], [OUTPUT]))


def logit(made: onnx.ModelProto) -> None:
    """Answer with what is no probability."""
    made.graph.node[5].CopyFrom(helper.make_node("Identity", ["logit"], [OUTPUT]))


def endless(made: onnx.ModelProto) -> None:
    """Loop for longer than anybody waits."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["co"]), helper.make_node("Add", ["v", "bias"], ["vo"])],
        "body",
        [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, [None, 1])],
        [info("co", TensorProto.BOOL, []), info("vo", TensorProto.FLOAT, [None, 1])],
    )
    made.graph.initializer.append(numpy_helper.from_array(np.array(2**62, np.int64), "times"))
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "on"))
    made.graph.node[4].CopyFrom(helper.make_node("Loop", ["times", "on", "total"], ["logit"], body=body))


def huge_tensor(made: onnx.ModelProto) -> None:
    """Ask for sixteen terabytes."""
    made.graph.initializer.append(numpy_helper.from_array(np.array([2**42], np.int64), "size"))
    made.graph.node.insert(0, helper.make_node("ConstantOfShape", ["size"], ["much"]))
    made.graph.node.insert(1, helper.make_node("ReduceSum", ["much"], ["sum"], keepdims=0))
    made.graph.node[6].input[1] = "sum"


def as_maps(made: onnx.ModelProto) -> None:
    """Answer with a map per row, as scikit-learn's converter does by default."""
    made.graph.node[5].CopyFrom(
        helper.make_node("ZipMap", ["logit"], [OUTPUT], domain="ai.onnx.ml", classlabels_int64s=[1])
    )
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, value))
    made.graph.output[0].CopyFrom(helper.make_value_info(OUTPUT, kind))


class _Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.target, "w"))


def pickled(target: str, protocol: int = 4) -> bytes:
    """Return a pickle that makes a file when it is loaded."""
    return pickle.dumps(_Payload(target), protocol)


def torch_archive(target: str) -> bytes:
    """Return what torch.save writes: a zip archive with a pickle."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model/data.pkl", pickled(target))
        archive.writestr("model/version", "3")
    return packed.getvalue()


def zip_bomb() -> bytes:
    """Return a small archive of 30 MB of zeros."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", b"\0" * 30_000_000)
    return packed.getvalue()


#: what -> (bytes, reason): files that must be refused whatever their contract says
FILES: dict[str, tuple[Callable[[], bytes], Refusal]] = {
    "external data": (lambda: data(external), Refusal.EXTERNAL_DATA),
    "external data in a branch": (lambda: data(nested_external), Refusal.EXTERNAL_DATA),
    "external data of a sparse weight": (lambda: data(sparse_external), Refusal.EXTERNAL_DATA),
    "an operator of another domain": (lambda: data(domain="com.example"), Refusal.CUSTOM_OPERATOR),
    "another domain imported": (lambda: data(imported_domain), Refusal.CUSTOM_OPERATOR),
    "functions of its own": (lambda: data(own_function), Refusal.CUSTOM_OPERATOR),
    "an unknown operator": (lambda: data(unknown_operator), Refusal.CUSTOM_OPERATOR),
    "an opset of the future": (lambda: data(opset=99), Refusal.OPSET),
    "an opset of the past": (lambda: data(opset=6), Refusal.OPSET),
    "an IR of the future": (lambda: data(ir=99), Refusal.OPSET),
    "cut in the middle": (lambda: data()[: len(data()) // 2], Refusal.TRUNCATED),
    "the last byte gone": (lambda: data()[:-1], Refusal.TRUNCATED),
    "empty": (lambda: b"", Refusal.TRUNCATED),
    "noise": (lambda: b"\xff" * 400, Refusal.NOT_ONNX),
    "text": (lambda: b"not a model", Refusal.NOT_ONNX),
    "JSON": (lambda: b'{"learner": {}}', Refusal.NOT_ONNX),
    "gzip": (lambda: gzip.compress(data()), Refusal.NOT_ONNX),
    "a zip bomb": (zip_bomb, Refusal.NOT_ONNX),
    "a pickle": (lambda: pickled("/dev/null"), Refusal.PICKLE),
    "a text pickle": (lambda: pickled("/dev/null", 0), Refusal.PICKLE),
    "a pickle of protocol 1": (lambda: pickled("/dev/null", 1), Refusal.PICKLE),
    "PyTorch's archive": (lambda: torch_archive("/dev/null"), Refusal.PICKLE),
    "a wrong type": (lambda: data(element=TensorProto.DOUBLE), Refusal.DTYPE),
    "strings": (lambda: data(element=TensorProto.STRING), Refusal.DTYPE),
    "another width": (lambda: data(features=3), Refusal.SHAPE),
    "features in another order": (lambda: data(swapped), Refusal.ORDER),
    "other features": (lambda: data(renamed), Refusal.NAMES),
    "maps": (lambda: data(as_maps), Refusal.DTYPE),
    "infinite scores": (lambda: data(divided_by_zero), Refusal.NOT_FINITE),
    "scores that are no probabilities": (lambda: data(logit), Refusal.RANGE),
    "scores that depend on the batch": (lambda: data(batch_wide), Refusal.BATCH),
    "one row for all": (lambda: data(constant_shape), Refusal.SHAPE),
    "more memory than there is": (lambda: data(huge_tensor), Refusal.FAILED),
}
