"""Predictions: one JSON object per scored row, with the evidence to check it, in a text that is cut again safely."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.pure.samples import FLIGHTS, payment, raw_batch, small_pipeline
from udfs.core.ingest import Ingest
from udfs.core.model import ModelContract
from udfs.core.predictions import KEY_SEPARATOR, RECORD_SEPARATOR, PredictionWriter

CONTRACT = ModelContract(
    name="shop-model",
    version="7",
    sha256="ab" * 32,
    feature_set="0123456789abcdef",
    inputs=["amount", "units"],
    onnx_input="x",
    onnx_output="y",
    output_column=-1,
    threshold=0.5,
)


def rows(*fields: dict[str, Any]) -> pa.RecordBatch:
    """Return decoded payments with the stamps of two stages."""
    sent = [payment(i, 1_000 + i, "u", **one) for i, one in enumerate(fields)]
    batch = Ingest.of_source(small_pipeline(), FLIGHTS).process(raw_batch("shop.payments", sent, 40)).rows
    for entity, lane in (("user", 1), ("shop", 2)):
        batch = batch.append_column(f"_lane_{entity}", pa.array([lane] * len(sent), pa.int32()))
        batch = batch.append_column(f"_seq_{entity}", pa.array([100 * lane + i for i in range(len(sent))], pa.int64()))
    return batch


def writer(*features: str) -> PredictionWriter:
    return PredictionWriter(CONTRACT, "champion", "id", "at_ms", features, ("user", "shop"))


def written(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Cut the text as the job does."""
    records = [record.split(KEY_SEPARATOR) for record in text.split(RECORD_SEPARATOR)]
    assert all(len(record) == 2 for record in records)
    return [(key, json.loads(value)) for key, value in records]


def test_a_prediction_says_what_scored_what_and_where() -> None:
    text = writer("amount", "units").write("shop.payments", rows({"amount": 0.1, "units": 3}), np.array([0.25], "f4"))
    assert written(text) == [
        (
            "p0",
            {
                "event_id": "p0",
                "event_time_ms": 1_000,
                "score": 0.25,
                "model": {"name": "shop-model", "version": "7", "sha256": "ab" * 32},
                "arm": "champion",
                "feature_set": "0123456789abcdef",
                "origin": {"topic": "shop.payments", "partition": 0, "offset": 40, "timestamp_ms": 10**12},
                "order": {"user": [1, 100], "shop": [2, 200]},
                "features": {"amount": 0.1, "units": 3.0},
            },
        )
    ]


def test_rows_keep_their_order_and_null_features_are_null() -> None:
    batch = rows({"amount": 1.5}, {"units": 2}, {"amount": -0.0})
    found = written(writer("amount", "units").write("t", batch, np.array([0.1, 0.2, 0.3], "f4")))
    assert [key for key, _ in found] == ["p0", "p1", "p2"]
    values = [tuple(one["features"].values()) for _, one in found]
    assert values == [(1.5, None), (None, 2.0), (0.0, None)]
    assert math.copysign(1.0, values[2][0]) == -1.0


@pytest.mark.parametrize("score", [0.1, 1e-38, 0.999999940395, 1.0, 0.0])
def test_the_score_is_the_exact_float32(score: float) -> None:
    scores = np.array([score], np.float32)
    ((_, prediction),) = written(writer().write("t", rows({}), scores))
    assert np.float32(prediction["score"]).tobytes() == scores.tobytes()
    assert prediction["score"] == float(scores[0])


def test_features_are_left_out_where_none_are_wanted() -> None:
    ((_, prediction),) = written(writer().write("t", rows({"amount": 1.0}), np.array([0.5], "f4")))
    assert "features" not in prediction


def test_nothing_is_written_for_no_rows() -> None:
    assert writer("amount").write("t", rows().slice(0, 0), np.zeros(0, np.float32)) == ""


def test_no_text_of_an_event_can_break_the_cut() -> None:
    batch = rows({"shop": "a\x1eb\x1fc"}, {"id": 'é "quoted" \\ \u2028 🛫'})
    found = written(writer().write("topic", batch, np.array([0.5, 0.5], "f4")))
    assert [(key, one["event_id"]) for key, one in found] == [("p0", "p0"), ('é "quoted" \\ \u2028 🛫',) * 2]
