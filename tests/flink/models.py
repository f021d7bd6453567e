"""A small ONNX model for tests: logistic regression, null as 0; no number where its guard is above a limit."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from udfs.core.declare.definition import Pipeline
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.files import ONNX_FILE, sha256
from udfs.core.plan.features import feature_columns, feature_set_hash

GUARD, GUARD_LIMIT = "distance_mi", 4_000.0
"""Flights to Honolulu are longer: the model gives no number for them."""


def write_model(pipeline: Pipeline, folder: Path, model: Path, output: Output | None = None, version: int = 1) -> Path:
    """Write a model folder that fits a pipeline, and return it.

    Parameters
    ----------
    folder : of the pipeline's files
    model : the folder to make
    version : each gives other scores
    output : what is written; `both`, [n, 2], is the score and what is left to 1; default: `score`, a probability
    """
    inputs = feature_columns(pipeline)
    guard = inputs.index(GUARD) if GUARD in inputs else 0
    weights = (np.sin(np.arange(len(inputs)) + version) / 1000).astype(np.float32)
    constants = {
        "weights": weights.reshape(-1, 1),
        "zero": np.zeros(1, np.float32),
        "limit": np.full(1, GUARD_LIMIT, np.float32),
        "nan": np.full(1, np.nan, np.float32),
        "guard": np.array([guard], np.int64),
        "one": np.ones(1, np.float32),
    }
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "features"], ["filled"]),
        helper.make_node("MatMul", ["filled", "weights"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
        helper.make_node("Gather", ["filled", "guard"], ["guarded"], axis=1),
        helper.make_node("Greater", ["guarded", "limit"], ["beyond"]),
        helper.make_node("Where", ["beyond", "nan", "probability"], ["score"]),
        helper.make_node("Sub", ["one", "score"], ["rest"]),
        helper.make_node("Concat", ["rest", "score"], ["both"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "logistic",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(inputs)])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1]),
            helper.make_tensor_value_info("both", TensorProto.FLOAT, ["n", 2]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    model.mkdir(parents=True)
    (model / ONNX_FILE).write_bytes(onnx)
    ModelContract(
        name=pipeline.model.name,
        version=str(version),
        files={ONNX_FILE: sha256(onnx)},
        feature_set=feature_set_hash(pipeline, folder),
        tensors=[Tensor("features", "float32", list(inputs))],
        output=output or Output("score", "probability"),
    ).write(model)
    return model
