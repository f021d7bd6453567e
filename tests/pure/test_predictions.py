"""Predictions: one JSON object per scored row, with the evidence to check it, in a text that is cut again safely."""

import json
import math
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from tests.samples import FLIGHTS, payment, raw_batch, small_pipeline
from udfs.core.model.contract import Meaning, ModelContract, Output, Tensor
from udfs.core.model.predictions import KEY_SEPARATOR, RECORD_SEPARATOR, PredictionWriter, finite_rows
from udfs.core.rows.ingest import Ingest

CONTRACT = ModelContract(
    name="shop-model",
    version="7",
    files={"model.onnx": "ab" * 32},
    feature_set="0123456789abcdef",
    tensors=[Tensor("x", "float32", ["amount", "units"])],
    output=Output("y", "probability"),
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


def writer(*features: str, output: Output | None = None) -> PredictionWriter:
    contract = CONTRACT if output is None else msgspec.structs.replace(CONTRACT, output=output, threshold=None)
    return PredictionWriter(contract, "champion", "id", "at_ms", features, ("user", "shop"))


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


def test_a_value_is_written_as_the_score() -> None:
    ((_, prediction),) = written(writer(output=Output("y", "value")).write("t", rows({}), np.array([-1234.5], "f4")))
    assert prediction["score"] == -1234.5
    assert not {"label", "scores", "vector"} & prediction.keys()


def test_class_scores_name_each_class_and_the_best_one() -> None:
    classes = ["on time", 'a "little" late', "naïve"]
    output = Output("y", "class_scores", None, 3, classes)
    scores = np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]], np.float32)
    found = [one for _, one in written(writer(output=output).write("t", rows({}, {}), scores))]
    for prediction, row in zip(found, scores, strict=True):
        assert list(prediction["scores"]) == classes
        assert np.array(list(prediction["scores"].values()), np.float32).tobytes() == row.tobytes()
        assert "vector" not in prediction
    assert [(one["label"], np.float32(one["score"])) for one in found] == [
        (classes[1], np.float32(0.7)),
        (classes[0], np.float32(0.4)),
    ]


def test_a_vector_is_written_whole_and_has_no_score() -> None:
    scores = np.array([[0.1, -2.0, 1e-38], [3.0, 4.0, 5.0]], np.float32)
    text = writer("amount", output=Output("y", "vector", None, 3)).write("t", rows({"amount": 1.0}, {}), scores)
    found = [one for _, one in written(text)]
    assert np.array([one["vector"] for one in found], np.float32).tobytes() == scores.tobytes()
    assert not {"score", "label", "scores"} & found[0].keys()
    assert found[0]["features"] == {"amount": 1.0}


def test_a_row_has_a_score_only_if_all_its_numbers_are_finite() -> None:
    assert finite_rows(np.array([1, np.nan, np.inf], "f4")).tolist() == [True, False, False]
    assert finite_rows(np.array([[1, 2], [np.nan, 2], [1, -np.inf]], "f4")).tolist() == [True, False, False]
    assert finite_rows(np.empty((0, 3), "f4")).tolist() == []


@pytest.mark.parametrize(
    ("meaning", "column", "width", "classes", "message"),
    [
        ("probability", 1, 2, [], "probability is one number; got width 2"),
        ("value", None, 1, ["a"], "value is one number; got width 1 and 1 classes"),
        ("vector", 0, 3, [], "vector takes all columns; got column 0"),
        ("vector", None, 2, ["a", "b"], "vector of width 2 needs 0 different classes"),
        ("class_scores", None, 3, ["a", "b"], "class_scores of width 3 needs 3 different classes"),
        ("class_scores", None, 2, ["a", "a"], "needs 2 different classes"),
        ("probability", -1, 1, [], "got column -1 and width 1"),
    ],
)
def test_an_output_that_contradicts_itself_is_refused(
    meaning: Meaning, column: int | None, width: int, classes: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Output("y", meaning, column, width, classes)
