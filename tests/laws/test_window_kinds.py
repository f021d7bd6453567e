"""Every kind of window against the slow oracle; no cut, no restart and no other feature changes a value."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.slow_windows import Asked, Keys, features
from tests.samples import EVENTS, Passage, Sent, cut, payment, random_payments, small_pipeline
from tests.slow_aggregations import Event
from udfs.core.cells.segments import Segment
from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import windowed_features

LATENESS_MS, HORIZON_MS = 1_500, 12_000
HIGH, POSITIVE = "units > 6", "amount > 0"
CONDITIONS = {
    HIGH: lambda row: row["units"] is not None and row["units"] > 6,
    POSITIVE: lambda row: row["amount"] is not None and row["amount"] > 0,
}
KINDS: list[Any] = ["4s", {"tumbling": "5s"}, {"session": "800ms"}, {"session_from": HIGH}, {"last": 3}, "lifetime"]
TILED: list[Any] = ["4s", {"tumbling": "5s"}, "lifetime"]
DELAYED: list[Any] = [{"sliding": "4s", "delay": "2s"}, {"sliding": "1s", "delay": "3s"}]


def group(name: str, of: str | None, take: list[Any], over: list[Any], **more: Any) -> dict[str, Any]:
    found = {"entity": "user", "of": of, "take": take, "over": over, "slide": "1s", "as": name} | more
    return {key: value for key, value in found.items() if value is not None}


ARRAYS = (
    group("fiftieth", "amount", ["sum", "mean", "min", "max", "std"], ["10s"], slide=None),
    group("delayed", "amount", ["count", "sum"], DELAYED),
    group("kinds", "amount", ["count", "sum", "first", "last", "max", {"rate": "1s"}], [*KINDS, {"last": 5}, "2s"]),
    group("before", "amount", ["count", "sum", "first", "time_since_first"], KINDS, include_event=False),
    group("moments", "amount", ["variance", {"decayed_sum": "2s"}, {"decayed_mean": "2s"}], KINDS),
    group("shape", "units", ["skew", "kurtosis"], ["4s"]),
    group("there", "amount", [{"argmax": "units"}, {"argmin": "units"}, {"histogram": [-50, 0, 50]}], KINDS),
    group("past", "units", [{"lag": 1}, {"lag": 3}, {"delta": 1}, "time_since_last"], KINDS),
    group("events", None, ["count", {"ratio": POSITIVE}, {"decayed_count": "2s"}], KINDS),
    group("some", "units", ["count", "sum", {"lag": 1}, {"delta": 2}], KINDS, where=POSITIVE),
)
SKETCHES = (
    group("sketches", "amount", ["distinct", {"unique": 3}, {"top_k": 2}, {"quantile": 0.5}], TILED),
    group("before_sketches", "units", ["distinct", {"top_k": 1}], ["4s", "2s"], include_event=False, where=POSITIVE),
    group("texts", "shop", ["count", "distinct", {"top_k": 1}, "first", {"last_n": 2}, {"lag": 1}], TILED),
    group("buckets", "amount", ["count", "mean", {"rate": "1s"}, {"last_n": 2}], TILED, by="shop"),
    group("delayed_buckets", None, ["count"], DELAYED, by="shop", where=POSITIVE),
)
ROUNDED = ("std", "variance", "skew", "kurtosis", "decayed")
Groups = tuple[dict[str, Any], ...]


def with_groups(groups: Groups, **time: str) -> Pipeline:
    policy = {"allowed_lateness": f"{LATENESS_MS}ms", "forget_idle_after": f"{HORIZON_MS}ms"} | time
    return small_pipeline(features=groups, time=policy)


@cache
def arrays() -> Pipeline:
    return with_groups(ARRAYS)


@cache
def sketches() -> Pipeline:
    return with_groups(SKETCHES)


def stream(seed: int, count: int, *, start_ms: int = 0, grid_ms: int = 1, step_ms: int = 300) -> list[Sent]:
    """Return payments in disorder, with pauses that let keys be forgotten; on a grid many have the same time."""
    kept = ("shop", "amount", "units")
    return [
        payment(i, one.row["at_ms"] // grid_ms * grid_ms, one.row["user"], **{name: one.row[name] for name in kept})
        for i, one in enumerate(random_payments(seed, count, users=3, step_ms=step_ms, start_ms=start_ms))
    ]


def expected(
    sent: Sequence[Sent], groups: Groups, lateness_ms: int = LATENESS_MS, horizon_ms: int = HORIZON_MS
) -> dict[str, list[Any]]:
    """Return the features of each event that comes through, by its id."""
    keys, found = Keys(lateness_ms, horizon_ms), {}
    for seq, one in enumerate(sent):
        if one.row["user"] is None:
            continue
        time_ms = one.row["at_ms"]
        life = keys.admit(one.row["user"], time_ms)
        if life is not None:
            asked = Asked(keys, life, time_ms, Event(time_ms, seq, one.row), CONDITIONS)
            found[one.row["id"]] = features(groups, asked)
            asked.enter([HIGH])
    return found


def assert_agrees(passed: Passage, pipeline: Pipeline, sent: Sequence[Sent], found: dict[str, list[Any]]) -> None:
    names = [feature.name for feature in windowed_features(pipeline)]
    rows = {row["id"]: row for row in passed.rows}
    nobody = {one.row["id"] for one in sent if one.row["user"] is None}
    assert rows.keys() == found.keys() | nobody
    assert {rows[one][name] for one in nobody for name in names} <= {None}
    for name, column in zip(names, zip(*found.values(), strict=True), strict=False):
        got = [rows[one][name] for one in found]
        if any(word in name for word in ROUNDED):
            left, right = (np.array(one, np.float64) for one in (got, column))
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9, err_msg=name)
        else:
            wrong = [one for one, value, known in zip(found, got, column, strict=True) if value != known]
            assert not wrong, (name, wrong[0], rows[wrong[0]][name], found[wrong[0]])


streams = st.builds(
    stream, st.integers(0, 2**32), st.integers(0, 60), start_ms=st.sampled_from([0, -70_000, 10**11]),
    grid_ms=st.sampled_from([1, 100, 500]),
)  # fmt: skip
cuts = st.sets(st.integers(1, 60))


@settings(max_examples=5)  # each asks for a hundred features of each event
@given(streams, cuts)
def test_windows_of_arrays_are_those_of_the_oracle(sent: list[Sent], ends: set[int]) -> None:
    assert_agrees(Passage(arrays(), "user").feed(cut(sent, ends)), arrays(), sent, expected(sent, ARRAYS))


@settings(max_examples=5)  # each asks for a hundred features of each event
@given(streams, cuts)
def test_windows_of_sketches_are_those_of_the_oracle(sent: list[Sent], ends: set[int]) -> None:
    assert_agrees(Passage(sketches(), "user").feed(cut(sent, ends)), sketches(), sent, expected(sent, SKETCHES))


def test_a_long_stream_meets_everything_the_oracle_knows() -> None:
    sent = stream(4, 160, grid_ms=50, step_ms=150)
    found = expected(sent, ARRAYS)
    passed = Passage(arrays(), "user").feed(cut(sent, range(0, 160, 60)))
    assert_agrees(passed, arrays(), sent, found)
    assert {letter["reason"] for letter in passed.letters} == {"late"}
    assert len(passed.letters) > 3
    assert found != expected(sent, ARRAYS, horizon_ms=10**12), "no key was born again"


def test_calendar_windows_begin_on_mondays_and_at_midnight() -> None:
    windows = [{"tumbling": size} for size in ("1h", "1d", "7d")]
    groups = (group("calendar", "units", ["count", {"first_n": 2}], windows),)
    pipeline = with_groups(groups, allowed_lateness="1d")
    sent = stream(1, 120, start_ms=-40 * 86_400_000, grid_ms=1_800_000, step_ms=40_000_000)
    found = expected(sent, groups, 86_400_000, 8 * 86_400_000)
    assert_agrees(Passage(pipeline, "user").feed(cut(sent)), pipeline, sent, found)
    assert len(found) > 60


def test_tiled_windows_are_what_duckdb_counts() -> None:
    import duckdb  # after the collector was frozen: what is frozen counts as leaked, to DuckDB

    groups = (
        group("of", "amount", ["count", "sum", "max"], ["4s", {"tumbling": "5s"}, {"sliding": "2s", "delay": "3s"}]),
        group("of", "amount", ["count", "sum", "max"], ["lifetime"]),
    )
    pipeline = with_groups(groups, allowed_lateness="1h", forget_idle_after="7d")
    sent = [one for one in stream(2, 500, start_ms=100_000) if one.row["user"] is not None]
    rows = pa.Table.from_pylist([one.row | {"seq": seq} for seq, one in enumerate(sent)])
    with duckdb.connect() as connection:
        connection.register("events", rows)
        oracle = connection.sql(
            "WITH t AS (SELECT *, at_ms // 1000 AS tile FROM events) "
            + " UNION ALL ".join(
                f"SELECT {number} AS w, a.seq, count(b.amount), sum(b.amount), max(b.amount) FROM t a LEFT JOIN t b "
                f"ON a.user = b.user AND b.seq <= a.seq AND {inside} GROUP BY a.seq"
                for number, inside in enumerate(
                    ["b.tile BETWEEN a.tile - 4 AND a.tile", "b.tile // 5 = a.tile // 5",
                     "b.tile BETWEEN a.tile - 5 AND a.tile - 4", "true"]
                )
            ) + " ORDER BY seq, w"
        ).fetchall()  # fmt: skip
    passed = Passage(pipeline, "user").feed(cut(sent, range(0, 500, 90))).rows
    names = [feature.name for feature in windowed_features(pipeline)]
    assert [row[name] for row in passed for name in names] == [value for row in oracle for value in row[2:]]


def restarted(pipeline: Pipeline, sent: Sequence[Sent], ends: set[int], stops: set[int]) -> Passage:
    """Pass a stream in pieces, and build the lane anew from what it stored before the batches in `stops`."""
    passed = Passage(pipeline, "user")
    for number, batch in enumerate(cut(sent, ends)):
        if number in stops:
            passed.restart()
        passed.feed([batch])
    return passed


@pytest.mark.parametrize("pipeline", [arrays, sketches])
@settings(max_examples=5)
@given(streams, cuts, cuts)
def test_no_cut_and_no_restart_changes_a_value(
    pipeline: Any, sent: list[Sent], ends: set[int], stops: set[int]
) -> None:
    passed = restarted(pipeline(), sent, ends, stops)
    whole = Passage(pipeline(), "user").feed(cut(sent))
    assert passed.rows == whole.rows
    assert sorted(map(str, passed.letters)) == sorted(map(str, whole.letters))


def test_restarts_do_not_show_after_compaction_and_expiry() -> None:
    pipeline = with_groups((group("x", "amount", ["sum"], KINDS), group("x", "shop", ["distinct", "last"], ["2s"])))
    sent, passed = stream(5, 300, step_ms=60), Passage(pipeline, "user")
    compactions = expiries = 0
    for number, batch in enumerate(cut(sent, range(300))):
        before = dict(passed.mapping)
        passed.feed([batch])
        gone = [Segment.decode(before[one]).bucket for one in before.keys() - passed.mapping.keys()]
        left = {Segment.decode(data).bucket for data in passed.mapping.values()} if gone else set()
        compactions += any(bucket in left for bucket in gone)
        expiries += any(bucket not in left for bucket in gone)
        if number % 23 == 0:
            passed.restart()
    assert passed.rows == Passage(pipeline, "user").feed(cut(sent)).rows
    assert compactions > 1
    assert expiries > 1


def test_keys_that_stay_away_leave_no_sketch() -> None:
    passed = Passage(with_groups((group("x", "amount", ["distinct"], TILED),)), "user")
    sent = [payment(i, 500 * i, f"u{i}", amount=1.0) for i in range(400)]
    passed.feed(cut(sent, range(0, 400, 10)))
    # A key is forgotten 12 s after its last event, and its memory is free once a bucket of time goes.
    for track in passed.lane._stores[EVENTS].cells.tracks:
        assert 20 < len(track.sketches) < 120


@pytest.mark.parametrize("groups", [ARRAYS, SKETCHES])
def test_a_feature_does_not_depend_on_what_else_is_declared(groups: Groups) -> None:
    sent = stream(6, 90, grid_ms=50)
    together = Passage(with_groups(groups), "user").feed(cut(sent)).rows
    for one in groups:
        for window in one["over"]:
            alone = with_groups((one | {"over": [window]},))
            names = [feature.name for feature in windowed_features(alone)]
            rows = Passage(alone, "user").feed(cut(sent)).rows
            for row, expected_row in zip(rows, together, strict=True):
                assert {name: row[name] for name in names} == {name: expected_row[name] for name in names}


def of_one_user(window: Any, *events: tuple[int, float], take: str = "sum", **more: Any) -> list[float | None]:
    """Return the feature of each event of one user that comes through; an event is a time and an amount."""
    time = more.pop("time", {})
    pipeline = with_groups((group("x", "amount", [take], [window], **more),), **time)
    sent = [payment(i, time_ms, "u", amount=amount, units=int(amount)) for i, (time_ms, amount) in enumerate(events)]
    (name,) = [feature.name for feature in windowed_features(pipeline)]
    return [row[name] for row in Passage(pipeline, "user").feed(cut(sent)).rows]


# Amounts are powers of two, so that a sum says which events are in it.
HAND_MADE: dict[str, tuple[Any, list[tuple[int, float]], list[float | None]]] = {
    "a session goes on up to its gap": ({"session": "1s"}, [(0, 1), (1_000, 2), (2_001, 4)], [1, 3, 4]),
    "a session begins up to its gap earlier": ({"session": "1s"}, [(5_000, 1), (4_000, 2), (5_001, 4)], [1, 3, 7]),
    "an event between two sessions joins them": (
        {"session": "1s"},
        [(0, 1), (1_500, 2), (1_000, 4), (2_500, 8)],
        [1, 2, 7, 15],
    ),
    "an event that is late counts with its session, also what came later in it": (
        {"session": "1s"},
        [(5_000, 1), (5_500, 2), (4_200, 4)],
        [1, 3, 7],
    ),
    "a session that a late event belongs to is still there": (
        {"session": "1s"},
        [(1_000, 1), (3_400, 2), (2_000, 4), (3_000, 8)],
        [1, 2, 5, 15],
    ),
    "a condition starts a session": (
        {"session_from": HIGH},
        [(0, 1), (1, 2), (2, 8), (3, 4), (4, 16)],
        [1, 3, 8, 12, 16],
    ),
    "an event goes to the session that was open at its time": (
        {"session_from": HIGH},
        [(1_000, 1), (2_000, 8), (1_500, 2), (2_500, 4)],
        [1, 8, 3, 12],
    ),
    "a start that comes late takes nothing from the session it falls into": (
        {"session_from": HIGH},
        [(1_000, 1), (2_000, 2), (1_500, 8), (2_500, 4)],
        [1, 3, 8, 12],
    ),
    "two starts of one time are one session": ({"session_from": HIGH}, [(1_000, 8), (1_000, 16)], [8, 24]),
    "an event before all sessions starts its own": (
        {"session_from": HIGH},
        [(1_000, 1), (500, 2), (750, 4), (1_000, 32)],
        [1, 2, 6, 33],
    ),
    "the last events are the last by time": (
        {"last": 2},
        [(1_000, 1), (3_000, 2), (2_000, 4), (3_000, 8)],
        [1, 3, 5, 10],
    ),
    "a late event finds those of the last that are not newer": (
        {"last": 2},
        [(1_000, 1), (2_000, 2), (3_000, 4), (1_800, 8), (2_500, 16)],
        [1, 3, 6, 8, 18],
    ),
    "a lifetime has no order": ("lifetime", [(2_000, 1), (1_000, 2), (9_000, 4)], [1, 3, 7]),
    "a delayed window is whole tiles that are old enough": (
        {"sliding": "2s", "delay": "1s"},
        [(0, 1), (1_999, 2), (2_000, 4), (3_500, 8), (4_000, 16), (4_999, 32)],
        [None, None, 1, 3, 6, 6],
    ),
    "a tumbling window begins with its tile": (
        {"tumbling": "2s"},
        [(1_999, 1), (2_000, 2), (2_999, 4), (1_999, 8)],
        [1, 2, 6, 9],
    ),
    "times before 1970 fall into tiles, too": (
        {"tumbling": "2s"},
        [(-2_001, 1), (-2_000, 2), (-1, 4), (0, 8)],
        [1, 2, 6, 8],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HAND_MADE)
def test_windows_as_they_are_meant(case: str) -> None:
    window, events, sums = HAND_MADE[case]
    assert of_one_user(window, *events) == sums


def test_a_week_begins_on_monday() -> None:
    monday_ms = 820_454_400_000  # 1996-01-01
    events = [(monday_ms - 1, 1.0), (monday_ms, 2.0), (monday_ms + 604_799_999, 4.0), (monday_ms + 604_800_000, 8.0)]
    assert of_one_user({"tumbling": "7d"}, *events, time={"allowed_lateness": "7d"}) == [1, 2, 6, 8]


@pytest.mark.parametrize("window", KINDS, ids=str)
def test_without_the_event_itself_a_window_is_what_was_known_before(window: Any) -> None:
    events = [(1_000, 1.0), (1_200, 2.0), (1_100, 4.0)]
    known = 1 if window == {"last": 3} else 3  # at the third event the second one has not happened yet
    assert of_one_user(window, *events, include_event=False) == [None, 1, known]


@pytest.mark.parametrize("stop", range(7))
def test_what_a_condition_started_is_stored_as_long_as_it_may_go_on(stop: int) -> None:
    """A late event finds a session that was idle for almost a horizon, of a key that is idle for almost another."""
    groups = (group("x", "units", ["count"], [{"session_from": HIGH}]),)
    pipeline = with_groups(groups, allowed_lateness="10s", forget_idle_after="60s")
    times = [(0, "u", 1), (29_000, "v", 1), (59_000, "u", 7), (89_000, "v", 1), (118_000, "v", 1), (50_000, "u", 1)]
    sent = [payment(i, time_ms, user, units=units) for i, (time_ms, user, units) in enumerate(times)]
    rows = restarted(pipeline, sent, set(range(7)), {stop}).rows
    assert [row["x_count_session_from"] for row in rows] == [1, 1, 1, 2, 3, 2]
