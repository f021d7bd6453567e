"""Sliding windows, lateness and rebirth, case by case; `test_window_kinds` holds all kinds against an oracle.

Sawtooth: at an event in tile j, a window of n tiles holds the events of tiles j - n .. j that came before, of the
present life of the key. Lateness is judged against the newest event of the key; a key that the lane's clock has left
behind by more than the horizon (longest window + slide + allowed lateness) is born again.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.samples import (
    EVENTS,
    USER_FEATURES,
    Passage,
    cut,
    payment,
    random_payments,
    small_pipeline,
)
from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import plan_stages

HORIZON_MS = 6_000 + 2_000 + 1_500


def users(*features: dict[str, Any]) -> Pipeline:
    return small_pipeline(features=features or USER_FEATURES)


def test_cells_beyond_every_window_are_given_back() -> None:
    sent = random_payments(11, 600, users=6, step_ms=200, disorder_ms=4_000)
    passed = Passage(users(), "user").feed(cut(sent, range(0, 600, 70)))
    for track in passed.lane._stores[EVENTS].cells.tracks:
        assert 6 < track.live < 6 * 12


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


def test_one_event_from_far_ahead_ages_no_other_key() -> None:
    pipeline = users()
    normal = [payment(number, 1_000 + number * 100, f"u{number % 2}", amount=1.0) for number in range(8)]
    sent = [*normal[:4], payment(99, 10**12, "strange", amount=1.0), *normal[4:]]
    passed = Passage(pipeline, "user").feed(cut(sent))
    counts = [row["user_count_4s"] for row in passed.rows if row["user"] != "strange"]
    assert counts == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]
