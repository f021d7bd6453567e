"""The score stage beside a bare ONNX Runtime loop over the same batches: python -m scripts.bench serving

Both make the matrix of each batch and run the model; the stage also routes, guards and looks at every score. Answers
are compared first. Rounds of the two alternate; the median of their ratios counts.
"""

import itertools
import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from onnx import TensorProto, helper, numpy_helper

from scripts.bench.report import Ratio, report
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.files import ONNX_FILE, sha256
from udfs.core.model.scorer import F32, Scorer, feature_matrix, open_session
from udfs.core.model.serving import ArmsServer
from udfs.core.plan.features import feature_columns

PAYMENTS = Path(__file__).parents[2] / "conf" / "payments"
HIDDEN = 256


def dense(width: int, hidden: int) -> bytes:
    """Return a network of two hidden layers."""
    chance, sizes = np.random.default_rng(1), (width, hidden, hidden, 1)
    nodes, weights = [], []
    for i, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        weights.append(numpy_helper.from_array(chance.normal(0, 0.1, (rows, columns)).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [f"h{i}" if i else "features", f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Relu" if columns > 1 else "Sigmoid", [f"m{i}"], [f"h{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(f"h{len(nodes) // 2}", TensorProto.FLOAT, [None, 1])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def main(
    batch: Annotated[int, typer.Option(help="Rows of a batch.")] = 256,
    batches: Annotated[int, typer.Option(help="Batches of a round.")] = 400,
    rounds: Annotated[int, typer.Option(help="Rounds of each.")] = 15,
) -> None:
    """Compare, measure, print."""
    pipeline = load_pipeline(PAYMENTS)
    columns = feature_columns(pipeline)
    onnx = dense(len(columns), HIDDEN)
    output = Output("h3", "probability")
    contract = ModelContract(
        name="dense",
        version="1",
        files={ONNX_FILE: sha256(onnx)},
        feature_set="0" * 16,
        tensors=[Tensor("features", "float32", list(columns))],
        output=output,
    )
    server = ArmsServer(pipeline, {"champion": Scorer(onnx, contract)})
    server.warm_up()
    session = open_session(onnx, "dense")
    chance = np.random.default_rng(2)
    rows = pa.RecordBatch.from_pydict({name: pa.array(chance.normal(0, 1, batch)) for name in columns})

    def bare() -> F32:
        found = session.run(["h3"], {"features": feature_matrix(rows, columns)})[0]
        return np.asarray(found, np.float32)[:, 0]

    (given,) = server.answer(rows).given
    if given.scores.tobytes() != bare().tobytes():
        msg = "the stage and the bare loop score differently"
        raise SystemExit(msg)
    ratios, waits_us = [], list[float]()
    bare_s = stage_s = 0.0
    for _ in range(rounds):
        begun_s = time.perf_counter()
        for _ in range(batches):
            bare()
        bare_s = time.perf_counter() - begun_s
        stage_s = 0.0
        for _ in range(batches):
            begun_s = time.perf_counter()
            server.answer(rows)
            took_s = time.perf_counter() - begun_s
            stage_s += took_s
            waits_us.append(1e6 * (took_s - bare_s / batches))
        ratios.append(bare_s / stage_s)
    server.close()
    added_us = np.percentile(waits_us, [50, 99])
    report(
        "serving",
        {
            "check": f"{batch} rows score the same bits",
            "bare loop: million rows per second": batch * batches / bare_s / 1e6,
            "score stage: million rows per second": batch * batches / stage_s / 1e6,
            "added per batch, median, us": float(added_us[0]),
            "added per batch, p99, us": float(added_us[1]),
        },
        [Ratio(f"score stage / bare loop, rows per second at {batch}", statistics.median(ratios), 0.9, at_least=True)],
    )


if __name__ == "__main__":
    typer.run(main)
