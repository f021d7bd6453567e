"""As-of joins of a lane against a slow oracle: the latest row at or before the event, by what came before it.

A row replaces one of the same time. Rows older than `max_age`, behind the kept history, or of a key that the stream has
left behind by more than history and age together, count as none.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import (
    RATE_JOIN,
    RATES,
    SHOP_FEATURES,
    Passage,
    Sent,
    cut,
    payment,
    random_payments,
    rate,
    small_pipeline,
    with_rates,
)
from udfs.core.declare.definition import Pipeline

MAX_AGE_MS, KEEP_MS = 2_000, 5_000
Joined = tuple[float | None, float | None]


@cache
def joined_pipeline() -> Pipeline:
    return small_pipeline(enrichments=[RATE_JOIN], features=SHOP_FEATURES)


def joined(*sent: Sent, ends: Sequence[int] = ()) -> list[float | None]:
    """Return the rate joined to each payment."""
    return [row["rate"] for row in Passage(joined_pipeline(), "shop").feed(cut(sent, ends)).rows]


def sale(number: int, at_ms: int, shop: str | None = "s") -> Sent:
    return payment(number, at_ms, "u", shop=shop)


def oracle(sent: Sequence[Sent]) -> tuple[dict[str, Joined], list[int]]:
    """Return what each payment is joined with, by its id, and the places of the late rates."""
    lives: dict[str, dict[int, Joined]] = {}
    clock_ms = -(10**15)
    expected: dict[str, Joined] = {}
    late = []
    for place, one in enumerate(sent):
        life = lives.get(one.row["shop"] or "", {})
        newest_ms = max(life, default=-(10**15))
        is_forgotten = clock_ms - newest_ms > KEEP_MS + MAX_AGE_MS
        if one.topic == RATES and one.row["shop"] is not None:
            time_ms = one.row["seen_ms"]
            ahead_ms = time_ms if clock_ms == -(10**15) else clock_ms + (KEEP_MS + MAX_AGE_MS) // 2
            clock_ms = max(clock_ms, min(time_ms, ahead_ms))
            if life and not is_forgotten and time_ms < newest_ms - KEEP_MS:
                late.append(place)
                continue
            row = (one.row["rate"], float(one.row["is_open"]))
            lives[one.row["shop"]] = {**({} if is_forgotten else life), time_ms: row}
        elif one.topic != RATES:
            time_ms = one.row["at_ms"]
            seen_ms = max((seen for seen in life if seen <= time_ms), default=-(10**15))
            is_there = not is_forgotten and seen_ms >= max(newest_ms - KEEP_MS, time_ms - MAX_AGE_MS)
            expected[one.row["id"]] = life[seen_ms] if is_there else (None, None)
    return expected, late


@given(st.integers(0, 2**32), st.integers(0, 60), st.sets(st.integers(1, 90)), st.sampled_from([-9_000, 10**10]))
def test_joins_and_late_rows_are_those_of_the_oracle(seed: int, count: int, cuts: set[int], start_ms: int) -> None:
    sent = with_rates(random_payments(seed, count, disorder_ms=6_000, start_ms=start_ms), seed)
    passed = Passage(joined_pipeline(), "shop").feed(cut(sent, cuts))
    expected, late = oracle(sent)
    assert {row["id"]: (row["rate"], row["is_open"]) for row in passed.rows}.items() <= expected.items()
    assert [one["offset"] for one in passed.letters if one["kind"] == "late" and one["topic"] == RATES] == late


def test_the_oracle_meets_joins_gaps_and_late_rows() -> None:
    sent = with_rates(random_payments(3, 450, disorder_ms=6_000), 3)
    passed = Passage(joined_pipeline(), "shop").feed(cut(sent, range(0, len(sent), 50)))
    expected, late = oracle(sent)
    assert {row["id"]: (row["rate"], row["is_open"]) for row in passed.rows}.items() <= expected.items()
    assert len(late) > 5
    assert sum(row["is_open"] is not None for row in passed.rows) > 50
    assert sum(row["is_open"] is None for row in passed.rows) > 50


@pytest.mark.parametrize(
    ("at_ms", "found"),
    [(9_999, None), (10_000, 1.0), (12_000, 1.0), (12_001, None)],
)
def test_a_row_holds_from_its_time_until_its_age(at_ms: int, found: float | None) -> None:
    assert joined(rate("s", 10_000, 1.0), sale(0, at_ms)) == [found]


def test_the_latest_row_at_or_before_the_event_is_taken_whatever_their_order() -> None:
    rates = [rate("s", 10_000, 1.0), rate("s", 12_000, 3.0), rate("s", 11_000, 2.0)]
    assert joined(*rates, *(sale(i, at_ms) for i, at_ms in enumerate((10_999, 11_000, 12_500)))) == [1.0, 2.0, 3.0]


def test_a_row_of_the_same_time_replaces_also_with_null() -> None:
    assert joined(rate("s", 10_000, 1.0), rate("s", 10_000, 2.0), sale(0, 10_000)) == [2.0]
    assert joined(rate("s", 10_000, 1.0), rate("s", 10_000, None), sale(0, 10_000)) == [None]


def test_a_null_value_is_not_filled_from_an_older_row() -> None:
    assert joined(rate("s", 10_000, 1.0), rate("s", 11_000, None), sale(0, 11_500)) == [None]


def test_only_what_came_before_the_event_is_joined() -> None:
    assert joined(sale(0, 10_500), rate("s", 10_000, 1.0), sale(1, 10_500)) == [None, 1.0]


def test_keys_do_not_mix_and_a_null_key_joins_nothing() -> None:
    sent = [rate("s", 10_000, 1.0), rate("t", 10_000, 2.0), rate(None, 10_000, 9.0)]
    assert joined(*sent, sale(0, 10_000, "t"), sale(1, 10_000, None), sale(2, 10_000, "x")) == [2.0, None, None]


@pytest.mark.parametrize(("seen_ms", "found"), [(15_000, 1.0), (15_001, None)])
def test_history_behind_the_kept_span_is_gone(seen_ms: int, found: float | None) -> None:
    assert joined(rate("s", 10_000, 1.0), rate("s", seen_ms, 2.0), sale(0, 10_500)) == [found]


@pytest.mark.parametrize(("behind_ms", "found"), [(5_000, 7.0), (5_001, None)])
def test_a_row_behind_the_history_is_late(behind_ms: int, found: float | None) -> None:
    sent = [rate("s", 20_000, 1.0), rate("s", 20_000 - behind_ms, 7.0), sale(0, 20_000 - behind_ms)]
    passed = Passage(joined_pipeline(), "shop").feed(cut(sent))
    assert [row["rate"] for row in passed.rows] == [found]
    late = [letter for letter in passed.letters if letter["kind"] == "late"]
    assert [letter["detail"] for letter in late] == (
        [] if found else ["event time 14999 is 5001 ms behind the newest of shop='s'"]
    )


@pytest.mark.parametrize(("clock_ms", "found"), [(17_000, 1.0), (17_001, None)])
def test_a_key_beyond_the_horizon_is_forgotten_at_once_wherever_the_batch_ends(
    clock_ms: int, found: float | None
) -> None:
    others = [rate("t", seen_ms, 2.0) for seen_ms in (13_500, 16_000, clock_ms)]  # a row moves the clock half a horizon
    sent = [rate("s", 10_000, 1.0), *others, sale(0, 10_000)]
    assert joined(*sent) == joined(*sent, ends=[1]) == [found]


def test_each_row_of_the_other_stream_says_its_place_in_the_order() -> None:
    sent = [rate("s", 10_000, 1.0), sale(0, 10_000), rate("s", 1_000, 2.0), rate("s", 10_500, 3.0)]
    passed = Passage(joined_pipeline(), "shop").feed(cut(sent))
    assert [row["_seq_shop"] for row in passed.rows] == [1]
    places: list[tuple[Any, ...]] = [(one["kind"], one["offset"], one["order"]) for one in passed.letters]
    assert places == [
        ("order", 0, '{"shop":[3,0]}'),
        ("late", 2, '{"shop":[3,2]}'),
        ("order", 2, '{"shop":[3,2]}'),
        ("order", 3, '{"shop":[3,3]}'),
    ]
