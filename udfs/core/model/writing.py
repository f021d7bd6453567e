"""Writing: the answers of a batch as predictions, in the order of its rows, each with the arm and version it is by."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec
import pyarrow as pa

from udfs.core.declare.definition import Pipeline
from udfs.core.model.contract import ModelContract
from udfs.core.model.predictions import RECORD_SEPARATOR, PredictionWriter, ShadowScore, shadow_scores
from udfs.core.model.serving import Answer, Answers, Status
from udfs.core.plan.features import feature_columns, order_places, other_columns

ARMS_FOLDER = "arms"
KEPT_WRITERS = 256
"""Each encodes what one model answers; beyond these, the least used one is made again when it is needed."""


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
        # Of thousands of models, what stands in predictions is little.
        self._contracts = {
            name: msgspec.structs.replace(one, lineage={}, provenance={}) for name, one in contracts.items()
        }
        self._shadows = [one.name for one in model.shadowing]
        epoch = model.routing_epoch(pipeline.source.key) if model.is_routed else ""
        features, others = (feature_columns(pipeline), other_columns(pipeline)) if writes_features else ((), ())
        places = order_places(pipeline)
        id_column, time_column = pipeline.contract.id or "", pipeline.contract.time

        @lru_cache(KEPT_WRITERS)
        def writer(arm: str, source: str, status: Status) -> PredictionWriter:
            stamp = "" if status == "ok" else status
            contract = self._contracts[source]
            return PredictionWriter(contract, arm, id_column, time_column, features, places, others, epoch, stamp)

        self._writer = writer

    def write(self, topic: str, rows: pa.RecordBatch, answers: Answers) -> str:
        """Return `key <US> JSON` of each answered row, in the order of the rows, joined by <RS>.

        Parameters
        ----------
        topic : of the rows
        rows : all rows of the batch, those that were rejected included
        """
        records: list[tuple[int, str]] = []
        shadows = {name: shadow_scores(self._contracts[name], scores) for name, scores in answers.shadows.items()}
        for one in answers.given:
            writer, numbers = self._writer(one.arm, one.source, one.status), one.rows.tolist()
            mine = rows if len(numbers) == rows.num_rows else rows.take(pa.array(one.rows))
            beside = [{name: found[i] for name, found in shadows.items()} for i in numbers] if shadows else []
            records += zip(numbers, writer.records(topic, mine, one.scores, beside, self._made_of(one)), strict=True)
        if len(answers.given) > 1:
            records.sort(key=lambda record: record[0])
        return RECORD_SEPARATOR.join(record for _, record in records)

    def _made_of(self, answer: Answer) -> list[dict[str, ShadowScore]]:
        if not answer.parts:
            return []
        columns = [shadow_scores(self._contracts[name], scores) for name, scores in answer.parts.items()]
        return [dict(zip(answer.parts, row, strict=True)) for row in zip(*columns, strict=True)]
