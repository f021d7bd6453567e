"""Predictions: what is written for each scored event, with the evidence to check it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.model.contract import ModelContract, Output
from udfs.core.rows.batches import OFFSET, PARTITION, TIMESTAMP_MS, lane_column, seq_column
from udfs.core.rows.ingest import number_column

RECORD_SEPARATOR, KEY_SEPARATOR = "\x1e", "\x1f"
"""Between records and between key and value: JSON text cannot hold them, event ids may not (`validation.id_rule`)."""


class ModelEvidence(msgspec.Struct, frozen=True):
    """Which model scored."""

    name: str
    version: str
    #: SHA-256 of model.onnx, hex
    sha256: str


class OriginEvidence(msgspec.Struct, frozen=True, gc=False):
    """Which record was scored."""

    topic: str
    partition: int
    offset: int
    #: Kafka timestamp, epoch ms
    timestamp_ms: int


class Prediction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One prediction, as it is written."""

    event_id: str
    event_time_ms: int
    #: exact value of the model's float32: the probability or value, or the score of the best class; none for a vector
    score: float | msgspec.UnsetType
    model: msgspec.Raw
    arm: str
    #: hash of the feature set
    feature_set: str
    origin: OriginEvidence
    #: per place of `features.order_places`: [lane, number]
    order: msgspec.Struct
    #: column -> float64, null where there is none
    features: msgspec.Struct | None = None
    #: the class of the highest score, the first of equal ones, and class -> score; of a model with class scores
    label: str | msgspec.UnsetType = msgspec.UNSET
    scores: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    #: of a model whose output is a vector
    vector: list[float] | msgspec.UnsetType = msgspec.UNSET
    #: hash of the routing declaration; where only the champion can answer there is none
    routing: str | msgspec.UnsetType = msgspec.UNSET
    #: `previous_version` or `default_score` answered, as the arm's own version failed; absent: its own version did
    status: str | msgspec.UnsetType = msgspec.UNSET
    #: shadow -> what it would have answered
    shadow: dict[str, "ShadowScore"] | msgspec.UnsetType = msgspec.UNSET


class ShadowScore(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a shadow gave for the row."""

    version: str
    sha256: str
    #: as in a prediction; null: it gave none
    score: float | msgspec.UnsetType | None
    label: str | msgspec.UnsetType = msgspec.UNSET
    scores: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    vector: list[float] | msgspec.UnsetType = msgspec.UNSET


class PredictionWriter:
    """Encodes the scored rows of a batch as text, one JSON object per event.

    Parameters
    ----------
    contract : the model that scored
    arm : which part the model plays, such as `champion`
    id_column, time_column : the event's id and event time
    features : number columns written into `features`; empty leaves it out
    others : columns of other types written behind them: texts, lists and mappings
    places : of the order stamps, see `features.order_places`
    routing, status : see `Prediction`; empty leaves them out
    """

    def __init__(
        self,
        contract: ModelContract,
        arm: str,
        id_column: str,
        time_column: str,
        features: Sequence[str],
        places: Sequence[str],
        others: Sequence[str] = (),
        routing: str = "",
        status: str = "",
    ) -> None:
        self._id, self._time = id_column, time_column
        self._columns, self._places, self._others = tuple(features), tuple(places), tuple(others)
        evidence = ModelEvidence(contract.name, contract.version, contract.sha256)
        self._model, self._arm = msgspec.Raw(_ENCODE(evidence)), arm
        self._feature_set = contract.feature_set
        self._output = contract.output
        self._stamp = (routing or msgspec.UNSET, status or msgspec.UNSET)
        fields: list[tuple[str, Any]] = [(name, float) for name in features]
        self._features = msgspec.defstruct("Features", fields + [(name, Any) for name in others], gc=False)
        self._order = msgspec.defstruct("Order", [(place, list[int]) for place in places], gc=False)

    def write(self, topic: str, rows: pa.RecordBatch, scores: NDArray[np.float32]) -> str:
        """Return `key <US> JSON` of each row, joined by <RS>; the key is the event id.

        A feature is written as the shortest text of its float64, whatever its column's type, null as null.

        Parameters
        ----------
        topic : of the rows
        rows : scored rows, n of them
        scores : finite, float32[n] or float32[n, width], as the contract's output says
        """
        records = self.records(topic, rows, scores)
        return RECORD_SEPARATOR.join(records)

    def records(
        self,
        topic: str,
        rows: pa.RecordBatch,
        scores: NDArray[np.float32],
        shadows: Sequence[Mapping[str, ShadowScore]] = (),
    ) -> list[str]:
        """Return `key <US> JSON` of each row; see `write`.

        Parameters
        ----------
        shadows : per row what each shadow gave; empty: there is none
        """
        if rows.num_rows == 0:
            return []
        ids = rows[self._id].to_pylist()
        origins = zip(*(rows[name].to_pylist() for name in (PARTITION, OFFSET, TIMESTAMP_MS)), strict=True)
        stamps = zip(*(self._stamps(rows, place) for place in self._places), strict=True)
        outputs = scored(self._output, scores)
        routing, status = self._stamp
        beside: Sequence[Any] = shadows or [msgspec.UNSET] * rows.num_rows
        records = []
        for event_id, time_ms, (score, (label, classes, vector)), origin, stamp, features, shadow in zip(
            ids, rows[self._time].to_pylist(), outputs, origins, stamps, self._values(rows), beside, strict=True
        ):
            prediction = Prediction(
                event_id,
                time_ms,
                score,
                self._model,
                self._arm,
                self._feature_set,
                OriginEvidence(topic, *origin),
                self._order(*stamp),
                features,
                label,
                classes,
                vector,
                routing,
                status,
                shadow,
            )
            records.append(event_id + KEY_SEPARATOR + _ENCODE(prediction).decode())
        return records

    def _values(self, rows: pa.RecordBatch) -> list[msgspec.Struct | None]:
        if not self._columns + self._others:
            return [None] * rows.num_rows
        columns = [number_column(rows, name).to_numpy(zero_copy_only=False) for name in self._columns]
        numbers = np.column_stack(columns).tolist() if columns else [[]] * rows.num_rows
        # msgspec writes NaN, which stands for null here, as null.
        if not self._others:
            return [self._features(*values) for values in numbers]
        others = zip(*(_plain(rows[name]) for name in self._others), strict=True)
        return [self._features(*values, *more) for values, more in zip(numbers, others, strict=True)]

    def _stamps(self, rows: pa.RecordBatch, place: str) -> list[list[int]]:
        stamps: list[list[int]] = np.column_stack([rows[lane_column(place)], rows[seq_column(place)]]).tolist()
        return stamps


def _plain(column: pa.Array) -> list[Any]:
    """Return a column as JSON has it, a mapping as an object."""
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(column.type):
        return [None if value is None else dict(value) for value in values]
    return values


def scored(output: Output, scores: NDArray[np.float32]) -> Iterable[tuple[Any, tuple[Any, Any, Any]]]:
    """Return per row the score, and (label, scores, vector) as far as the meaning of the output has them."""
    unset = msgspec.UNSET
    if output.meaning == "vector":
        return [(unset, (unset, unset, row)) for row in scores.tolist()]
    if output.meaning == "class_scores":
        classes, best = output.classes, scores.argmax(axis=1).tolist()
        rows = zip(scores.tolist(), best, strict=True)
        return [(row[i], (classes[i], dict(zip(classes, row, strict=True)), unset)) for row, i in rows]
    return [(score, (unset, unset, unset)) for score in scores.tolist()]


def shadow_scores(contract: ModelContract, scores: NDArray[np.float32]) -> list[ShadowScore]:
    """Return what a shadow gave for each row; a score that is not finite is null."""
    who = (contract.version, contract.sha256)
    found = zip(finite_rows(scores).tolist(), scored(contract.output, scores), strict=True)
    return [
        ShadowScore(*who, score, *more) if is_finite else ShadowScore(*who, None) for is_finite, (score, more) in found
    ]


def finite_rows(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return bool[n]: which rows have a score, all of its numbers finite."""
    finite = np.isfinite(scores)
    return finite if scores.ndim == 1 else finite.all(axis=1)


_ENCODE = msgspec.json.Encoder().encode
