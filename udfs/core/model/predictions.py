"""Predictions: what is written for each scored event, with the evidence to check it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.core.model.contract import ModelContract, Output
from udfs.core.rows.batches import OFFSET, PARTITION, TIMESTAMP_MS, lane_column, objects, seq_column
from udfs.core.rows.ingest import number_column

RECORD_SEPARATOR, KEY_SEPARATOR = "\x1e", "\x1f"
"""Between records and between key and value: JSON text cannot hold them, event ids may not (`validation.id_rule`)."""


class ModelEvidence(msgspec.Struct, frozen=True):
    """Which model scored."""

    name: str
    version: str
    #: SHA-256 of model.onnx, hex
    sha256: str


class ShadowScore(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a shadow, or a model of an ensemble or chain, gave for the row."""

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
    routing : hash of the routing declaration; empty where only the champion can answer
    status : `previous_version` or `default_score`, as the arm's own version failed; empty: its own version answered
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
        self._output = contract.output
        model = _json(ModelEvidence(contract.name, contract.version, contract.sha256))
        self._evidence = f',"model":{model},"arm":{_json(arm)},"feature_set":{_json(contract.feature_set)}'
        said = {"routing": routing, "status": status}
        self._stamp = "".join(f',"{name}":{_json(text)}' for name, text in said.items() if text)
        fields: list[tuple[str, Any]] = [(name, float) for name in features]
        self._features = msgspec.defstruct("Features", fields + [(name, Any) for name in others], gc=False)

    def write(self, topic: str, rows: pa.RecordBatch, scores: NDArray[np.float32]) -> str:
        """Return `key <US> JSON` of each row, joined by <RS>; the key is the event id.

        A feature is written as the shortest text of its float64, whatever its column's type, null as null.

        Parameters
        ----------
        topic : of the rows
        rows : scored rows, n of them
        scores : finite, float32[n] or float32[n, width], as the contract's output says
        """
        return RECORD_SEPARATOR.join(self.records(topic, rows, scores))

    def records(
        self,
        topic: str,
        rows: pa.RecordBatch,
        scores: NDArray[np.float32],
        shadows: Sequence[Mapping[str, ShadowScore]] = (),
        made_of: Sequence[Mapping[str, ShadowScore]] = (),
    ) -> list[str]:
        """Return `key <US> JSON` of each row; see `write`.

        Most of a record is the same for the whole batch: the texts of its columns are joined with that, all at once.

        Parameters
        ----------
        shadows : per row what each shadow gave; empty: there is none
        made_of : per row what each model of an ensemble or chain gave; empty: one model answered alone
        """
        if rows.num_rows == 0:
            return []
        ids, found = rows[self._id], scored(self._output, scores)
        parts: list[str | pa.StringArray] = [ids, KEY_SEPARATOR, '{"event_id":', _texts(objects(ids))]
        parts += [',"event_time_ms":', _digits(rows, self._time)]
        if "score" in found:
            parts += [',"score":', _texts(found.pop("score"))]
        parts += [self._evidence, f',"origin":{{"topic":{_json(topic)},"partition":', _digits(rows, PARTITION)]
        parts += [',"offset":', _digits(rows, OFFSET), ',"timestamp_ms":', _digits(rows, TIMESTAMP_MS), '},"order":{']
        for i, place in enumerate(self._places):
            parts += [f"{',' if i else ''}{_json(place)}:[", _digits(rows, lane_column(place))]
            parts += [",", _digits(rows, seq_column(place)), "]"]
        parts.append("}")
        if self._columns + self._others:
            parts += [',"features":', _texts(self._values(rows))]
        for name, values in found.items():
            parts += [f',"{name}":', _texts(values)]
        parts.append(self._stamp)
        if shadows:
            parts += [',"shadow":', _texts(shadows)]
        if made_of:
            parts += [',"parts":', _texts(made_of)]
        return objects(pc.binary_join_element_wise(*parts, "}", ""))

    def _values(self, rows: pa.RecordBatch) -> list[msgspec.Struct]:
        columns = [number_column(rows, name).to_numpy(zero_copy_only=False) for name in self._columns]
        numbers = np.column_stack(columns).tolist() if columns else [[]] * rows.num_rows
        # msgspec writes NaN, which stands for null here, as null.
        if not self._others:
            return [self._features(*values) for values in numbers]
        others = zip(*(_plain(rows[name]) for name in self._others), strict=True)
        return [self._features(*values, *more) for values, more in zip(numbers, others, strict=True)]


def _json(value: object) -> str:
    return _ENCODER.encode(value).decode()


def _texts(values: Sequence[Any]) -> pa.StringArray:
    """Return the JSON text of each value; no such text has a line break in it."""
    return pa.array(_ENCODER.encode_lines(values).split(b"\n")[:-1], pa.string())


def _digits(rows: pa.RecordBatch, name: str) -> pa.StringArray:
    """Return the text of each whole number of a column."""
    return rows[name].cast(pa.string())


def _plain(column: pa.Array) -> list[Any]:
    """Return a column as JSON has it, a mapping as an object."""
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(column.type):
        return [None if value is None else dict(value) for value in values]
    return values


def scored(output: Output, scores: NDArray[np.float32]) -> dict[str, list[Any]]:
    """Return what a model gave, as members of predictions: name -> value of each row.

    `score` is the exact value of the model's float32: the probability or value, or the score of the best class, whose
    name, the first of equal ones, is `label` beside all `scores`; there is none beside a `vector`.
    """
    if output.meaning == "vector":
        return {"vector": scores.tolist()}
    if output.meaning == "class_scores":
        classes, rows, best = output.classes, scores.tolist(), scores.argmax(axis=1).tolist()
        return {
            "score": [row[i] for row, i in zip(rows, best, strict=True)],
            "label": [classes[i] for i in best],
            "scores": [dict(zip(classes, row, strict=True)) for row in rows],
        }
    return {"score": scores.tolist()}


def shadow_scores(contract: ModelContract, scores: NDArray[np.float32]) -> list[ShadowScore]:
    """Return what a model beside the answer gave for each row; a score that is not finite is null."""
    found = scored(contract.output, scores)
    rows = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    return [
        ShadowScore(
            contract.version, contract.sha256, **({"score": msgspec.UNSET} | row if is_finite else {"score": None})
        )
        for is_finite, row in zip(finite_rows(scores).tolist(), rows, strict=True)
    ]


def finite_rows(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return bool[n]: which rows have a score, all of its numbers finite."""
    finite = np.isfinite(scores)
    return finite if scores.ndim == 1 else finite.all(axis=1)


_ENCODER = msgspec.json.Encoder()
