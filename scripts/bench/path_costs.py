"""Where the Python side of the job spends its time, step by step, without Flink: python -m scripts.bench.path_costs

The steps of a worker over payments, one micro-batch after the other, with a log of segments in memory in place of
RocksDB: CPU microseconds per event of each, for several sizes of a batch. What the real job spends in Python beyond the
sum is Flink's: decoding rows from the JVM, state calls, hand-overs between threads.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from scripts.bench.payments.model import network
from scripts.bench.report import report
from scripts.load.settings import Load
from scripts.load.stream import blocks
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.predictions import PredictionWriter
from udfs.core.model.scorer import feature_matrix, open_session
from udfs.core.plan.features import feature_columns, order_places, plan_stages
from udfs.core.rows.batches import Piece, RawBatch
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.stage.lane import Lane

PAYMENTS = Path(__file__).parents[2] / "conf" / "payments"


class Clock:
    """CPU time by step."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = defaultdict(float)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the block."""
        begun_s = time.process_time()
        yield
        self.spent_s[name] += time.process_time() - begun_s


def main(
    events: Annotated[int, typer.Option(help="Measured, for each size of a batch.")] = 300_000,
    batches: Annotated[str, typer.Option(help="Events of a batch, comma-separated.")] = "256,1024,4096",
    users: Annotated[int, typer.Option(help="Zipf users.")] = 100_000,
) -> None:
    """Measure and print."""
    said: dict[str, float | str] = {}
    for size in map(int, batches.split(",")):
        spent_us = measure(events, size, users)
        for name, us in spent_us.items():
            said[f"batches of {size:,}: {name}, us per event"] = us
        said[f"batches of {size:,}: all, us per event"] = sum(spent_us.values())
    report("path_costs", said, [])


def measure(events: int, size: int, users: int) -> dict[str, float]:
    """Return step -> CPU microseconds per event; as many events go through before the clock runs."""
    pipeline = load_pipeline(PAYMENTS)
    topic = pipeline.source.topic
    ingest = ingest_of_topics(pipeline, PAYMENTS)[topic]
    logs: list[dict[int, bytes]] = [{} for _ in plan_stages(pipeline)]
    lanes = [Lane(pipeline, stage, 0, log) for stage, log in zip(plan_stages(pipeline), logs, strict=True)]
    columns = feature_columns(pipeline)
    session = open_session(network(len(columns)), "network")
    contract = ModelContract(
        name="network",
        version="1",
        files={"model.onnx": "0" * 64},
        feature_set="0" * 16,
        tensors=[Tensor("features", "float32", list(columns))],
        output=Output("probability", "probability"),
        threshold=0.5,
    )
    writer = PredictionWriter(contract, "champion", "payment_id", "paid_at_ms", (), order_places(pipeline))
    clock, done = Clock(), 0
    for block in blocks(Load(users=users), 2 * events):
        for at in range(0, len(block), size):
            if done >= events and done - events < size:
                clock = Clock()
            values, keys = block.values[at : at + size], block.keys[at : at + size]
            count = len(values)
            times_ms = block.times_ms[at : at + size].tolist()
            raw = RawBatch(topic, values, keys, [0] * count, list(range(done, done + count)), times_ms)
            with clock.step("1 decode, rules, derive"):
                piece = ingest.process(raw)
            for lane in lanes:
                with clock.step(f"2 featurize {lane._stage.entity}"):
                    piece = lane.process(piece)
            with clock.step("3 piece to bytes and back"):
                piece = Piece.decode(piece.encode())
            with clock.step("4 matrix and model"):
                matrix = feature_matrix(piece.rows, columns)
                scores = session.run(None, {"features": matrix})[0][:, 0]
            with clock.step("5 predictions to text"):
                writer.write(topic, piece.rows, scores)
            done += count
    return {name: 1e6 * spent_s / (done - events) for name, spent_s in sorted(clock.spent_s.items())}


if __name__ == "__main__":
    typer.run(main)
