"""Writing: the answers of a batch as predictions, in the order of its rows, each with the arm and version it is by."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from udfs.core.declare.arms import PREVIOUS
from udfs.core.declare.definition import Pipeline
from udfs.core.model.contract import ModelContract
from udfs.core.model.predictions import RECORD_SEPARATOR, PredictionWriter, ShadowScore, shadow_scores
from udfs.core.model.serving import Answers, Status
from udfs.core.plan.features import feature_columns, order_places, other_columns

ARMS_FOLDER = "arms"


def model_folders(pipeline: Pipeline, model: Path) -> dict[str, Path]:
    """Return where a job's models lie: arm -> folder, shadows included, and `previous` if the fallback needs it.

    The champion's files lie in the model folder itself, as if it were the only one.

    Examples
    --------
    >>> from udfs.core.declare.loading import load_pipeline
    >>> model_folders(load_pipeline(Path("conf/flights")), Path("bundle/model"))
    {'champion': PosixPath('bundle/model')}
    """
    first, *others = pipeline.model.models
    return {first.name: model} | {one.name: model / ARMS_FOLDER / one.name for one in others}


class AnswerWriter:
    """Encodes answers.

    Parameters
    ----------
    pipeline : as declared
    contracts : of the models, by the names of `model_folders`
    """

    def __init__(self, pipeline: Pipeline, contracts: Mapping[str, ModelContract]) -> None:
        model, writes_features = pipeline.model, pipeline.sinks.predictions.features
        self._shadows = {one.name: contracts[one.name] for one in model.shadowing}
        epoch = model.routing_epoch(pipeline.source.key) if model.is_routed else ""
        kinds: list[tuple[str, str, Status]] = []
        for arm in (one.name for one in model.answering):
            kinds += [(arm, arm, "ok"), (arm, arm, "default_score")]
            kinds += [(arm, PREVIOUS, "previous_version")] if PREVIOUS in contracts else []
        self._writers = {
            (arm, source, status): PredictionWriter(
                contracts[source],
                arm,
                pipeline.contract.id or "",
                pipeline.contract.time,
                feature_columns(pipeline) if writes_features else (),
                order_places(pipeline),
                other_columns(pipeline) if writes_features else (),
                epoch,
                "" if status == "ok" else status,
            )
            for arm, source, status in kinds
        }

    def write(self, topic: str, rows: pa.RecordBatch, answers: Answers) -> str:
        """Return `key <US> JSON` of each answered row, in the order of the rows, joined by <RS>.

        Parameters
        ----------
        topic : of the rows
        rows : all rows of the batch, those that were rejected included
        """
        records: list[tuple[int, str]] = []
        shadows = {name: shadow_scores(self._shadows[name], scores) for name, scores in answers.shadows.items()}
        for one in answers.given:
            writer, numbers = self._writers[one.arm, one.source, one.status], one.rows.tolist()
            mine = rows if len(numbers) == rows.num_rows else rows.take(pa.array(one.rows))
            beside: list[dict[str, ShadowScore]] = (
                [{name: found[i] for name, found in shadows.items()} for i in numbers] if shadows else []
            )
            records += zip(numbers, writer.records(topic, mine, one.scores, beside), strict=True)
        if len(answers.given) > 1:
            records.sort(key=lambda record: record[0])
        return RECORD_SEPARATOR.join(record for _, record in records)
