"""Write operator: the last one. Turns a scored piece into what the sink takes: one text of predictions, and letters."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyflink.common import Row, Types
from pyflink.datastream import ProcessFunction, RuntimeContext

from udfs.core.declare.loading import load_pipeline
from udfs.core.model.contract import ModelContract
from udfs.core.model.serving import Rejection
from udfs.core.model.writing import AnswerWriter, model_folders
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
    bundle, model : folders of the pipeline's files and of the models
    """

    def __init__(self, bundle: str, model: str) -> None:
        self._bundle, self._model = bundle, model

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the pipeline and the models' contracts."""
        pipeline = load_pipeline(Path(self._bundle))
        sinks = pipeline.sinks
        self._topics = {"rejects": sinks.rejects.topic, "late": sinks.late.topic, "order": sinks.order.topic}
        self._topic, self._key = pipeline.source.topic, pipeline.source.key
        folders = model_folders(pipeline, Path(self._model))
        self._writer = AnswerWriter(pipeline, {name: ModelContract.read(one) for name, one in folders.items()})

    def process_element(self, value: Scored, ctx: ProcessFunction.Context) -> Iterator[Row]:
        """Encode one piece."""
        rows, letters, answers = value.piece.rows, value.piece.letters, value.answers
        if answers.rejected:
            failed = [self._letter(rows.slice(one.row, 1), one) for one in answers.rejected]
            letters = value.piece.with_rows(rows, to_batch(failed)).letters
        sent = [fitting(Letter(**row)) for row in letters.to_pylist()]
        records = [Row(self._topics[one.kind], one.key, one.value, headers(one)) for one in sent]
        yield Row(self._writer.write(self._topic, rows, answers), records)

    def _letter(self, rows: pa.RecordBatch, why: Rejection) -> Letter:
        (row,) = rows.to_pylist()
        return letter_of(row, "rejects", self._topic, self._key, STAGE, why.reason, why.detail, stamps(row))
