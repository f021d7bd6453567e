"""B0, the limit program: one process that does the work and guards nothing.

confluent-kafka in batches, one typed msgspec decode a batch, the stores and kernels of Headrace without their log, one
ONNX call a batch, one record per event out: at least once at best, and its state is lost when it ends. What a job
costs beyond it is the price of Flink, of durable state and of exactly once.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import onnxruntime as ort
import pyarrow as pa
import typer
from confluent_kafka import Consumer, Producer, TopicPartition

from scripts.bench.payments.oracle import Payment
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.plan.features import feature_columns, plan_stages
from udfs.core.rows.batches import add_columns
from udfs.core.rows.derive import load_function
from udfs.core.rows.entities import add_entity
from udfs.core.stage.sequence import Rows, Sequence
from udfs.core.stage.store import Store

DECODER = msgspec.json.Decoder(list[Payment])


class Limit:
    """State and steps of the program."""

    def __init__(self, pipeline: Pipeline, folder: Path, model: Path) -> None:
        self._stages = plan_stages(pipeline)
        self._stores = [Store(0, stage, pipeline.time, None) for stage in self._stages]
        self._derive: Any = load_function(pipeline.derive.function, folder) if pipeline.derive else None
        self._columns, self._seq = feature_columns(pipeline), 0
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])

    def score(self, values: list[bytes]) -> tuple[list[str], list[int], list[float]]:
        """Return ids, event times and scores of a batch."""
        events = DECODER.decode(b"[" + b",".join(values) + b"]")
        rows = pa.RecordBatch.from_pydict(
            {
                "payment_id": [one.payment_id for one in events],
                "paid_at_ms": np.array([one.paid_at_ms for one in events], np.int64),
                "user": [one.user for one in events],
                "merchant": [one.merchant for one in events],
                "known_device": np.array([one.known_device for one in events], np.int64),
                "online": np.array([one.online for one in events], np.int64),
                "amount": np.array([one.amount for one in events], np.float64),
            }
        )
        rows = add_columns(rows, self._derive(rows) if self._derive else {})
        seqs = np.arange(self._seq, self._seq + len(events))
        self._seq += len(events)
        for stage, store in zip(self._stages, self._stores, strict=True):
            rows = add_entity(rows, stage.entity, stage.fields)
            answer, _ = store.apply(Sequence(Rows(rows, seqs, stage.entity, "paid_at_ms")), None, 0, 0)
            rows = add_columns(rows, answer.columns)
        matrix = np.empty((len(events), len(self._columns)), np.float32)
        for place, name in enumerate(self._columns):
            matrix[:, place] = rows[name].to_numpy(zero_copy_only=False)
        scores = self._session.run(None, {"features": matrix})[0][:, 0]
        return [one.payment_id for one in events], [one.paid_at_ms for one in events], scores.tolist()


def run(
    pipeline: Annotated[Path, typer.Option(help="Pipeline folder.")],
    model: Annotated[Path, typer.Option(help="ONNX file.")],
    bootstrap: Annotated[str, typer.Option()],
    source: Annotated[str, typer.Option(help="Topic that is read, of one partition.")],
    sink: Annotated[str, typer.Option(help="Topic that is written.")],
    count: Annotated[int, typer.Option(help="Events to score before it ends.")],
    evidence: Annotated[str, typer.Option(help="What each record says behind the score, as the job's do.")] = "{}",
    batch: Annotated[int, typer.Option(help="Most events that are taken at once.")] = 2_048,
) -> None:
    """Score the first events of a topic."""
    program = Limit(load_pipeline(pipeline), pipeline, model)
    consumer: Any = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "headrace-limit", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(source, 0, 0)])
    producer: Any = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "batch.size": 1 << 17, "batch.num.messages": 20_000,
         "queue.buffering.max.messages": 1_000_000}
    )  # fmt: skip
    done = 0
    while done < count:
        messages = consumer.consume(batch, 0.05)
        if not messages:
            continue
        ids, times_ms, scores = program.score([message.value() for message in messages])
        producer.produce_batch(
            sink,
            [
                {
                    "key": one,
                    "value": f'{{"event_id":"{one}","event_time_ms":{time_ms},"score":{score!r},{evidence},'
                    f'"origin":{{"topic":"{source}","partition":0,"offset":{offset},"timestamp_ms":{time_ms}}}}}',
                }
                for one, time_ms, score, offset in zip(ids, times_ms, scores, range(done, done + len(ids)), strict=True)
            ],
        )
        producer.poll(0)
        done += len(ids)
    producer.flush()
    consumer.close()


if __name__ == "__main__":
    typer.run(run)
