"""Write operator: the last one. Turns a scored piece into what the sink takes: one text of predictions, and letters."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyflink.common import Row, Types
from pyflink.datastream import ProcessFunction, RuntimeContext

from udfs.core.declare.loading import load_pipeline
from udfs.core.model.contract import ModelContract
from udfs.core.model.predictions import PredictionWriter, finite_rows
from udfs.core.plan.features import feature_columns, order_places, other_columns
from udfs.core.rows.letters import Letter, fitting, headers, to_batch
from udfs.core.rows.validation import letter_of
from udfs.core.stage.stamps import stamps
from udfs.score import Scored

STAGE = "score"
OUTPUT_TYPE = Types.ROW_NAMED(
    ["predictions", "letters"],
    [
        Types.STRING(),
        Types.OBJECT_ARRAY(
            Types.ROW_NAMED(
                ["topic", "k", "v", "h"],
                [
                    Types.STRING(),
                    Types.PRIMITIVE_ARRAY(Types.BYTE()),
                    Types.PRIMITIVE_ARRAY(Types.BYTE()),
                    Types.MAP(Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())),
                ],
            )
        ),
    ],
)


class Write(ProcessFunction):
    """Encodes predictions and letters.

    Parameters
    ----------
    bundle, model : folders of the pipeline's files and of the model
    arm : which part the model plays
    """

    def __init__(self, bundle: str, model: str, arm: str) -> None:
        self._bundle, self._model, self._arm = bundle, model, arm

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the pipeline and the model's contract."""
        pipeline = load_pipeline(Path(self._bundle))
        sinks = pipeline.sinks
        self._topics = {"rejects": sinks.rejects.topic, "late": sinks.late.topic, "order": sinks.order.topic}
        self._topic, self._key = pipeline.source.topic, pipeline.source.key
        self._writer = PredictionWriter(
            ModelContract.read(Path(self._model)),
            self._arm,
            pipeline.contract.id or "",
            pipeline.contract.time,
            feature_columns(pipeline) if sinks.predictions.features else (),
            order_places(pipeline),
            other_columns(pipeline) if sinks.predictions.features else (),
        )

    def process_element(self, value: Scored, ctx: ProcessFunction.Context) -> Iterator[Row]:
        """Encode one piece."""
        rows, letters, scores = value.piece.rows, value.piece.letters, value.scores
        finite = finite_rows(scores)
        if not finite.all():
            failed = [
                letter_of(row, "rejects", self._topic, self._key, STAGE, "score_failed", f"score {score}", stamps(row))
                for row, score in zip(rows.filter(pa.array(~finite)).to_pylist(), scores[~finite], strict=True)
            ]
            rows, scores = rows.filter(pa.array(finite)), scores[finite]
            letters = value.piece.with_rows(rows, to_batch(failed)).letters
        sent = [fitting(Letter(**row)) for row in letters.to_pylist()]
        records = [Row(self._topics[one.kind], one.key, one.value, headers(one)) for one in sent]
        yield Row(self._writer.write(self._topic, rows, scores), records)
