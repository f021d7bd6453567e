"""Vectors element by element, against NumPy: each element has the features that a column of its own would have."""

import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.samples import EVENTS, FLIGHTS, Passage, Sent, cut, raw_batch, small_pipeline
from udfs.core.declare.definition import Pipeline
from udfs.core.rows.ingest import Ingest

SIZE, COUNT = 8, 80
TAKE: list[Any] = ["count", "sum", "mean", "min", "max", "std", "first", "last", {"last_n": 2}, {"lag": 1}]
F64 = NDArray[np.float64]


def pipeline(kind: str = f"float64[{SIZE}]?") -> Pipeline:
    fields = {"id": "string", "at_ms": "int64", "user": "string?", "taste": kind}
    over = ["4s", {"last": 5}, "lifetime"]
    features = [{"entity": "user", "of": "taste", "take": TAKE, "over": over, "slide": "1s", "as": "v"}]
    return small_pipeline(contract={"id": "id", "time": "at_ms", "fields": fields}, features=features)


def event(number: int, at_ms: int, taste: Any, user: str = "u") -> Sent:
    return Sent(EVENTS, user, {"id": f"p{number}", "at_ms": at_ms, "user": user, "taste": taste})


def stream(seed: int) -> list[Sent]:
    """Return events in order, a quarter of them without a vector; numbers are quarters, so that sums are exact."""
    chance, now_ms, sent = random.Random(seed), 0, []
    for number in range(COUNT):
        now_ms += chance.randrange(1, 1_200)
        vector = [chance.randrange(-400, 400) / 4 for _ in range(SIZE)]
        sent.append(event(number, now_ms, None if chance.random() < 0.25 else vector, chance.choice("uw")))
    return sent


def aggregates(column: F64) -> dict[str, float]:
    """Return what NumPy says of the values of one element, without those of null vectors; NaN for null."""
    nan, count = float("nan"), column.size
    back = [*column[::-1], nan, nan]
    return {
        "count": count,
        "sum": column.sum() if count else nan,
        "mean": column.mean() if count else nan,
        "min": column.min(initial=np.inf) if count else nan,
        "max": column.max(initial=-np.inf) if count else nan,
        "std": column.std(ddof=1) if count > 1 else nan,
        "first": column[0] if count else nan,
        "last": back[0],
        "last_n_1": back[0],
        "last_n_2": back[1],
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_each_element_is_what_numpy_says_of_its_column(seed: int) -> None:
    sent = stream(seed)
    passed = Passage(pipeline(), "user").feed(cut(sent, range(0, COUNT, 7)))
    rows = {row["id"]: row for row in passed.rows}
    assert len(rows) == COUNT
    assert sum(one.row["taste"] is None for one in sent) > 10
    for i, one in enumerate(sent):
        past = [old.row for old in sent[: i + 1] if old.row["user"] == one.row["user"]]
        first_tile = (one.row["at_ms"] - 4_000) // 1_000
        windows = {
            "4s": [row for row in past if row["at_ms"] // 1_000 >= first_tile],
            "last_5": past[-5:],
            "lifetime": past,
        }
        for window, inside in windows.items():
            there = [row["taste"] for row in inside if row["taste"] is not None]
            matrix = np.array(there, np.float64).reshape(-1, SIZE)
            for element in range(SIZE):
                wanted = aggregates(matrix[:, element])
                got = {name: rows[f"p{i}"][f"v_{element}_{name}_{window}"] for name in wanted}
                filled = np.array([np.nan if value is None else value for value in got.values()])
                np.testing.assert_allclose(
                    filled, [*wanted.values()], rtol=1e-12, err_msg=f"{one.row}, element {element}, {window}"
                )


def test_a_lag_of_a_vector_is_the_vector_before_whatever_was_null_between() -> None:
    vectors = [[float(i)] * SIZE for i in range(2)]
    sent = [event(0, 1_000, vectors[0]), event(1, 2_000, None), event(2, 3_000, vectors[1])]
    rows = Passage(pipeline(), "user").feed(cut(sent)).rows
    assert [row["v_7_lag_1_lifetime"] for row in rows] == [None, 0.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "taste", "reason", "detail"),
    [
        ("float64[8]?", [1.0] * 7, "wrong_type", "Expected `array` of length >= 8 - at `$.taste`"),
        ("float64[8]?", [1.0] * 9, "wrong_type", "Expected `array` of length <= 8 - at `$.taste`"),
        ("float64[8]?", [], "wrong_type", "Expected `array` of length >= 8 - at `$.taste`"),
        ("float64[8]?", [1.0] * 7 + ["1"], "wrong_type", "Expected `float`, got `str` - at `$.taste[7]`"),
        ("float64[8]?", 1.0, "wrong_type", "Expected `array | null`, got `float` - at `$.taste`"),
        ("float64[8]?", [1.0] * 7 + [None], "null_field", "Expected `float`, got `null` - at `$.taste[7]`"),
        ("float64[8]", None, "null_field", "Expected `array`, got `null` - at `$.taste`"),
    ],
)
def test_what_is_no_vector_of_its_length_is_rejected_and_counts_nowhere(
    kind: str, taste: Any, reason: str, detail: str
) -> None:
    sent = [event(0, 1_000, [2.0] * SIZE), event(1, 2_000, taste), event(2, 3_000, [2.0] * SIZE)]
    piece = Ingest.of_source(pipeline(kind), FLIGHTS).process(raw_batch(EVENTS, sent))
    assert [(one["offset"], one["reason"], one["detail"]) for one in piece.letters.to_pylist()] == [(1, reason, detail)]
    rows = Passage(pipeline(kind), "user").feed(cut(sent)).rows
    assert [row["v_0_count_lifetime"] for row in rows] == [1.0, 2.0]
