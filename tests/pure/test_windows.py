"""Windowed features of a lane against a slow oracle that keeps every event and folds them anew for each row.

Sawtooth: at an event in tile j, a window of n tiles holds the events of tiles j - n .. j that came before, of the
present life of the key. Lateness is judged against the newest event of the key; a key that the lane's clock has left
behind by more than the horizon (longest window + slide + allowed lateness) is born again.
"""

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pure.samples import (
    USER_FEATURES,
    Passage,
    Sent,
    cut,
    payment,
    random_payments,
    small_pipeline,
)
from udfs.core.definition import Pipeline
from udfs.core.features import Feature, plan_stages

LATENESS_MS, HORIZON_MS = 1_500, 6_000 + 2_000 + 1_500


FOLDS: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "mean": statistics.fmean,
    "min": min,
    "max": max,
    "std": statistics.stdev,
}


def users(*features: dict[str, Any]) -> Pipeline:
    return small_pipeline(features=features or USER_FEATURES)


def value_of(feature: Feature, life: Sequence[dict[str, Any]], time_ms: int) -> float | None:
    """Fold the events of the window, by the definition of each aggregation."""
    tile, tiles = time_ms // feature.slide_ms, feature.size_ms // feature.slide_ms
    inside = [row for row in life if tile - tiles <= row["at_ms"] // feature.slide_ms <= tile]
    values = [1.0 if feature.of is None else row[feature.of] for row in inside]
    known = [float(value) for value in values if value is not None]
    if feature.aggregation == "count":
        return float(len(known))
    if len(known) < (2 if feature.aggregation == "std" else 1):
        return None
    return FOLDS[feature.aggregation](known)


def oracle(sent: Sequence[Sent], pipeline: Pipeline, horizon_ms: int = HORIZON_MS) -> list[dict[str, Any] | None]:
    """Return per event its features, None for a late one; all null for a null key."""
    features = plan_stages(pipeline)[0].features
    lives: dict[str, list[dict[str, Any]]] = {}
    newest: dict[str, int] = {}
    clock_ms: int | None = None
    expected: list[dict[str, Any] | None] = []
    for one in sent:
        user, time_ms = one.row["user"], one.row["at_ms"]
        if user is None:
            expected.append({feature.name: None for feature in features})
            continue
        if user not in newest or (clock_ms is not None and clock_ms - newest[user] > horizon_ms):
            lives[user], newest[user] = [], time_ms
        clock_ms = time_ms if clock_ms is None else max(clock_ms, min(time_ms, clock_ms + horizon_ms // 2))
        if time_ms < newest[user] - pipeline.time.allowed_lateness_ms:
            expected.append(None)
            continue
        lives[user].append(one.row)
        newest[user] = max(newest[user], time_ms)
        expected.append({feature.name: value_of(feature, lives[user], time_ms) for feature in features})
    return expected


def assert_agrees(passed: Passage, sent: Sequence[Sent], expected: Sequence[dict[str, Any] | None]) -> None:
    good = [(one.row["id"], row) for one, row in zip(sent, expected, strict=True) if row is not None]
    assert [row["id"] for row in passed.rows] == [name for name, _ in good]
    for found, (name, row) in zip(passed.rows, good, strict=True):
        for column, value in row.items():
            if "_std_" in column and value is not None:
                assert found[column] == pytest.approx(value, rel=1e-9, abs=1e-9), (name, column)
            else:
                assert found[column] == value, (name, column)
    late = [one.row["id"] for one, row in zip(sent, expected, strict=True) if row is None]
    assert [json.loads(letter["value"])["id"] for letter in passed.letters] == late


@given(st.integers(0, 2**32), st.integers(0, 120), st.sets(st.integers(1, 119)), st.sampled_from([0, -70_000, 10**11]))
def test_features_and_late_rows_are_those_of_the_oracle(seed: int, count: int, cuts: set[int], start_ms: int) -> None:
    pipeline = users()
    sent = random_payments(seed, count, start_ms=start_ms)
    passed = Passage(pipeline, "user").feed(cut(sent, cuts))
    assert_agrees(passed, sent, oracle(sent, pipeline))


def test_a_long_stream_meets_everything_the_oracle_knows() -> None:
    pipeline = users()
    sent = random_payments(11, 1_500, users=6, step_ms=200, disorder_ms=4_000)
    expected = oracle(sent, pipeline)
    passed = Passage(pipeline, "user").feed(cut(sent, range(0, 1_500, 70)))
    assert_agrees(passed, sent, expected)
    assert sum(row is None for row in expected) > 30
    assert expected != oracle(sent, pipeline, horizon_ms=10**12), "no key was born again"
    # Cells beyond every window are given back.
    for track in passed.lane._windows.tracks:
        assert track.live < 6 * 12


def counted(times_ms: Sequence[int], window: str = "3s") -> list[float | None]:
    """Return the count of each event of one user that came through."""
    pipeline = users({"entity": "user", "take": ["count"], "over": [window], "slide": "1s"})
    sent = [payment(i, time_ms, "u") for i, time_ms in enumerate(times_ms)]
    return [row[f"user_count_{window}"] for row in Passage(pipeline, "user").feed(cut(sent)).rows]


@pytest.mark.parametrize(
    ("times_ms", "counts"),
    [
        ([5_000, 8_000], [1, 2]),  # tile 5 is the last one of a window of three at tile 8: between 3 s and 4 s long
        ([5_000, 8_999], [1, 2]),
        ([5_999, 9_000], [1, 1]),  # tile 5 has left, though the event is 3001 ms old
        ([5_000, 8_000, 7_000], [1, 2, 2]),  # at 7 s the event of 8 s has not happened yet
        ([5_500, 5_500, 5_000], [1, 2, 3]),  # the newest tile counts whole
        ([-1, 0, -1_000], [1, 2, 2]),  # times before 1970: tile -1 ends at 0
        ([-3_001, 0], [1, 1]),
        ([-3_000, 0], [1, 2]),
    ],
)  # fmt: skip
def test_windows_hold_whole_tiles(times_ms: list[int], counts: list[int]) -> None:
    assert counted(times_ms) == counts


@pytest.mark.parametrize(("behind_ms", "is_late"), [(0, False), (1_499, False), (1_500, False), (1_501, True)])
def test_the_allowed_lateness_itself_is_allowed(behind_ms: int, is_late: bool) -> None:
    sent = [payment(0, 50_000, "u"), payment(1, 50_000 - behind_ms, "u")]
    passed = Passage(users(), "user").feed(cut(sent))
    assert [letter["offset"] for letter in passed.letters] == ([1] if is_late else [])
    assert [row["id"] for row in passed.rows] == (["p0"] if is_late else ["p0", "p1"])


def test_a_late_row_leaves_with_its_bytes_key_reason_and_place() -> None:
    sent = [payment(0, 50_000, "ü"), payment(1, 48_000, "ü")]
    (batch,) = cut(sent)
    (letter,) = Passage(users(), "user").feed([batch]).letters
    assert letter == {
        "kind": "late",
        "topic": "shop.payments",
        "partition": 0,
        "offset": 1,
        "timestamp_ms": 10**12,
        "stage": "featurize-user",
        "reason": "late",
        "detail": "event time 48000 is 2000 ms behind the newest of user='ü'",
        "order": '{"user":[3,1]}',
        "key": "ü".encode(),
        "value": batch.values[1],
    }


def test_a_late_row_is_told_how_late_it_was_when_it_came() -> None:
    sent = [payment(0, 50_000, "u"), payment(1, 48_000, "u"), payment(2, 90_000, "u")]
    (letter,) = Passage(users(), "user").feed(cut(sent)).letters
    assert letter["detail"] == "event time 48000 is 2000 ms behind the newest of user='u'"


def test_lateness_is_judged_on_the_own_timeline_of_a_key() -> None:
    sent = [payment(0, 5_000, "slow"), payment(1, 13_000, "fast"), payment(2, 5_000, "slow")]
    passed = Passage(users(), "user").feed(cut(sent))
    assert [row["user_count_4s"] for row in passed.rows] == [1, 1, 2]


@pytest.mark.parametrize(("idle_ms", "count"), [(HORIZON_MS, 2), (HORIZON_MS + 1, 1)])
def test_a_key_is_born_again_only_beyond_the_horizon(idle_ms: int, count: int) -> None:
    steps_ms = (HORIZON_MS // 2, HORIZON_MS, idle_ms)  # a row moves the clock by half a horizon at most
    busy = [payment(1 + i, 20_000 + step_ms, f"busy{i}") for i, step_ms in enumerate(steps_ms)]
    passed = Passage(users(), "user").feed(cut([payment(0, 20_000, "idle"), *busy, payment(9, 20_000, "idle")]))
    assert [row["user_count_4s"] for row in passed.rows] == [1, 1, 1, 1, count]


def test_a_null_key_has_no_features_and_moves_no_clock() -> None:
    sent = [payment(0, 20_000, "u"), payment(1, 90_000, None), payment(2, 20_000, "u")]
    rows = Passage(users(), "user").feed(cut(sent)).rows
    names = [feature.name for feature in plan_stages(users())[0].features]
    assert {rows[1][name] for name in names} == {None}
    assert rows[2]["user_count_4s"] == 2
    assert [row["_seq_user"] for row in rows] == [0, 1, 2]


PLAIN = """
import json, sys
from tests.pure.samples import USER_FEATURES, Passage, cut, random_payments, small_pipeline
from udfs.core.kernels.windows import fold_windows
passed = Passage(small_pipeline(features=USER_FEATURES), "user").feed(cut(random_payments(5, 80), [40, 41]))
json.dump([hasattr(fold_windows, "py_func"), repr(passed.rows), repr(passed.letters)], sys.stdout)
"""


def test_compiled_and_plain_python_agree_bit_for_bit() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", PLAIN], env=environment, capture_output=True, text=True, check=True)
    is_compiled, rows, letters = json.loads(done.stdout)
    here = Passage(users(), "user").feed(cut(random_payments(5, 80), [40, 41]))
    assert not is_compiled
    assert (rows, letters) == (repr(here.rows), repr(here.letters))


def test_one_event_from_far_ahead_ages_no_other_key() -> None:
    pipeline = users()
    normal = [payment(number, 1_000 + number * 100, f"u{number % 2}", amount=1.0) for number in range(8)]
    sent = [*normal[:4], payment(99, 10**12, "strange", amount=1.0), *normal[4:]]
    passed = Passage(pipeline, "user").feed(cut(sent))
    counts = [row["user_count_4s"] for row in passed.rows if row["user"] != "strange"]
    assert counts == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]
