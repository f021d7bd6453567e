"""Bad versions: the good model with one thing wrong, made whole for the registry (digests, tags and contract fit).

A hostile hand, or a careless one, with write access to MLflow. Each is to be refused for the reason named beside it.
"""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.check import FEATURES_METADATA
from models.package import Package
from udfs.core.model.files import CONTRACT_FILE, GOLDEN_FILE, MAX_BYTES, ONNX_FILE, sha256
from udfs.core.model.refusals import Refusal

Edit = Callable[[onnx.ModelProto], object]


@dataclass(frozen=True, slots=True)
class Bad:
    """One bad version."""

    what: str
    reason: Refusal
    #: the package that is registered, from a good one
    make: Callable[[Package], Package] = lambda good: good
    #: file -> content that is put into the registry afterwards; None deletes it
    tamper: Callable[[Package], dict[str, bytes | None]] = lambda _good: {}
    #: the tags are made to fit what was put
    is_noted: bool = False


def holding(package: Package, content: bytes) -> Package:
    """Return a package whose model is other bytes, its contract naming their digest."""
    files = package.contract.files | {ONNX_FILE: sha256(content)}
    return replace(package, onnx=content, contract=msgspec.structs.replace(package.contract, files=files))


def edited(*edits: Edit) -> Callable[[Package], Package]:
    """Return what edits the model of a package."""

    def make(good: Package) -> Package:
        made = onnx.load_from_string(good.onnx)
        for edit in edits:
            edit(made)
        return holding(good, bytes(made.SerializeToString()))

    return make


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Package], Package]:
    """Return what changes the bytes of the model."""
    return lambda good: holding(good, change(good.onnx))


def flipped(good: Package) -> dict[str, bytes | None]:
    """Return the model with one bit the other way round, in the middle."""
    content = bytearray(good.onnx)
    content[len(content) // 2] ^= 1
    return {ONNX_FILE: bytes(content)}


def external(made: onnx.ModelProto) -> None:
    """Keep a weight in another file."""
    tensor = made.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def other_domain(made: onnx.ModelProto) -> None:
    """Use an operator of somebody's own library."""
    made.graph.node[2].domain = "com.example"
    made.opset_import.append(helper.make_opsetid("com.example", 1))


def own_function(made: onnx.ModelProto) -> None:
    """Bring a function along."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    made.functions.append(helper.make_function("", "Twice", ["x"], ["y"], [node], [helper.make_opsetid("", 17)]))


def unknown_operator(made: onnx.ModelProto) -> None:
    """Use an operator that does not exist."""
    made.graph.node[2].op_type = "Exfiltrate"


def future_opset(made: onnx.ModelProto) -> None:
    """Need a version of ONNX that nobody has."""
    made.opset_import[0].version = 99


def renamed_input(made: onnx.ModelProto) -> None:
    """Call the input something else."""
    _behind_input(made, "Identity")
    made.graph.input[0].name = made.graph.node[0].input[0] = "columns"


def other_order(made: onnx.ModelProto, names: list[str]) -> None:
    """Say that the features come in another order."""
    made.metadata_props.add(key=FEATURES_METADATA, value=json.dumps(names[::-1]))


def wider(made: onnx.ModelProto) -> None:
    """Take one column more, and leave it out."""
    dimension = made.graph.input[0].type.tensor_type.shape.dim[1]
    for name, number in (("from", 0), ("to", dimension.dim_value), ("axis", 1)):
        made.graph.initializer.append(numpy_helper.from_array(np.array([number], np.int64), name))
    _behind_input(made, "Slice", "from", "to", "axis")
    dimension.dim_value += 1


def double(made: onnx.ModelProto) -> None:
    """Take doubles."""
    _behind_input(made, "Cast", to=TensorProto.FLOAT)
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def infinite(made: onnx.ModelProto) -> None:
    """Answer with what is not finite."""
    made.graph.node[-1].CopyFrom(helper.make_node("Div", ["logit", "zero"], ["probability"]))


def logit(made: onnx.ModelProto) -> None:
    """Answer with what is no probability."""
    made.graph.node[-1].CopyFrom(helper.make_node("Identity", ["logit"], ["probability"]))


def by_batch(made: onnx.ModelProto) -> None:
    """Score a row by the rows beside it."""
    made.graph.node[-1].input[0] = "shifted"
    made.graph.node.insert(len(made.graph.node) - 1, helper.make_node("ReduceMean", ["logit"], ["mean"], axes=[0]))
    made.graph.node.insert(len(made.graph.node) - 1, helper.make_node("Add", ["logit", "mean"], ["shifted"]))


def retrained(made: onnx.ModelProto) -> None:
    """Have other weights than when the golden batch was made."""
    bias = next(one for one in made.graph.initializer if one.name == "b1")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), "b1"))


def _behind_input(made: onnx.ModelProto, operator: str, *more: str, **attributes: Any) -> None:
    """Put a node between the input and all that reads it."""
    for node in made.graph.node:
        node.input[:] = ["taken" if name == "features" else name for name in node.input]
    made.graph.node.insert(0, helper.make_node(operator, ["features", *more], ["taken"], **attributes))


def _torch_archive(_content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"weights": [1.0]}))
    return packed.getvalue()


def _in_another_order(good: Package) -> Package:
    return edited(lambda made: other_order(made, good.contract.inputs))(good)


def _other_features(good: Package) -> Package:
    names = [*good.contract.inputs[:-1], "surname"]
    return edited(lambda made: other_order(made, names[::-1]))(good)


def _for_other_features(good: Package) -> Package:
    return replace(good, contract=msgspec.structs.replace(good.contract, feature_set="0" * 16))


ALL = (
    Bad("cut in the middle", Refusal.TRUNCATED, bytes_of(lambda content: content[: len(content) // 2])),
    Bad("the last byte gone", Refusal.TRUNCATED, bytes_of(lambda content: content[:-1])),
    Bad("empty", Refusal.TRUNCATED, bytes_of(lambda _: b"")),
    Bad("one bit flipped in the registry", Refusal.DIGEST, tamper=flipped),
    Bad("another file in its place", Refusal.DIGEST, tamper=lambda good: {ONNX_FILE: good.onnx + b"\0"}),
    Bad("external data", Refusal.EXTERNAL_DATA, edited(external)),
    Bad("an operator of another domain", Refusal.CUSTOM_OPERATOR, edited(other_domain)),
    Bad("functions of its own", Refusal.CUSTOM_OPERATOR, edited(own_function)),
    Bad("an operator that does not exist", Refusal.CUSTOM_OPERATOR, edited(unknown_operator)),
    Bad("an opset of the future", Refusal.OPSET, edited(future_opset)),
    Bad("an input of another name", Refusal.NAMES, edited(renamed_input)),
    Bad("other features", Refusal.NAMES, _other_features),
    Bad("features in another order", Refusal.ORDER, _in_another_order),
    Bad("one column more", Refusal.SHAPE, edited(wider)),
    Bad("doubles for floats", Refusal.DTYPE, edited(double)),
    Bad("trained on other features", Refusal.FEATURE_SET, _for_other_features),
    Bad("infinite scores", Refusal.NOT_FINITE, edited(infinite)),
    Bad("scores that are no probabilities", Refusal.RANGE, edited(logit)),
    Bad("scores that depend on the batch", Refusal.BATCH, edited(by_batch)),
    Bad("other scores than its golden batch", Refusal.GOLDEN, edited(retrained)),
    Bad("a pickle", Refusal.PICKLE, bytes_of(lambda _: pickle.dumps({"weights": [1.0]}))),
    Bad("a text pickle", Refusal.PICKLE, bytes_of(lambda _: pickle.dumps({"weights": [1.0]}, 0))),
    Bad("PyTorch's archive", Refusal.PICKLE, bytes_of(_torch_archive)),
    Bad("a pickle beside it", Refusal.PICKLE, tamper=lambda _: {"python_model.pkl": b"cos\nsystem\n."}),
    Bad("text", Refusal.NOT_ONNX, bytes_of(lambda _: b"not a model")),
    Bad("a contract that cannot be read", Refusal.CONTRACT, tamper=lambda _: {CONTRACT_FILE: b"{}"}, is_noted=True),
    Bad("no golden batch", Refusal.MISSING_FILE, tamper=lambda _: {GOLDEN_FILE: None}),
    Bad("too large", Refusal.TOO_LARGE, tamper=lambda _: {GOLDEN_FILE: b" " * (MAX_BYTES[GOLDEN_FILE] + 1)}),
)
