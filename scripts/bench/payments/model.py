"""A seeded feed-forward network over the pipeline's features, as ONNX: nulls count as 0, numbers by their logarithm."""

import numpy as np
from numpy.typing import NDArray

HIDDEN, OPSET, IR_VERSION = 32, 17, 8
F32 = NDArray[np.float32]


def weights(inputs: int) -> tuple[F32, F32, F32, F32]:
    """Return w1[inputs, 32], b1[32], w2[32, 1] and b2[1]."""
    chance = np.random.default_rng(0)
    shapes = ((inputs, HIDDEN), (HIDDEN,), (HIDDEN, 1), (1,))
    w1, b1, w2, b2 = (chance.normal(0.0, 0.3, shape).astype(np.float32) for shape in shapes)
    return w1, b1, w2, b2


def network(inputs: int) -> bytes:
    """Return the ONNX file: float32[n, inputs] `features` -> float32[n, 1] `probability`."""
    from onnx import TensorProto, helper

    names = ("w1", "b1", "w2", "b2")
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.ravel())
        for name, value in zip(names, weights(inputs), strict=True)
    ]
    constants += [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [value]) for name, value in (("zero", 0), ("one", 1))
    ]
    steps = [
        ("IsNaN", ["features"], "missing"),
        ("Where", ["missing", "zero", "features"], "known"),
        ("Abs", ["known"], "size"),
        ("Add", ["size", "one"], "above_one"),
        ("Log", ["above_one"], "scaled"),
        ("Gemm", ["scaled", "w1", "b1"], "hidden"),
        ("Relu", ["hidden"], "active"),
        ("Gemm", ["active", "w2", "b2"], "logit"),
        ("Sigmoid", ["logit"], "probability"),
    ]
    graph = helper.make_graph(
        [helper.make_node(operator, given, [made]) for operator, given, made in steps],
        "payments",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, inputs])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    return bytes(model.SerializeToString())


def scores(features: NDArray[np.float64]) -> F32:
    """Return what the network says, by numpy alone: the oracle's model."""
    w1, b1, w2, b2 = weights(features.shape[1])
    scaled = np.log1p(np.abs(np.nan_to_num(features.astype(np.float32), nan=0.0)))
    logit = np.maximum(scaled @ w1 + b1, 0.0) @ w2 + b2
    return np.asarray(1.0 / (1.0 + np.exp(-logit)), np.float32)[:, 0]
