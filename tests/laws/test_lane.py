"""A lane's laws: where batches are cut never shows; a restart never shows, also after compaction and expiry.

Rows, letters and stamps are compared whole. Features are float64 or null, so equal is equal bit for bit.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import (
    EVENTS,
    RATE_JOIN,
    RATES,
    SHOP_FEATURES,
    USER_FEATURES,
    Passage,
    Sent,
    cut,
    payment,
    random_payments,
    rate,
    raw_batch,
    small_pipeline,
    with_rates,
)
from udfs.core.cells.segments import Segment
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError

SHOP: tuple[dict[str, Any], ...] = (
    *SHOP_FEATURES,
    {"entity": "shop", "of": "units", "take": ["sum", "std", "min"], "over": ["2s", "6s"], "slide": "2s"},
)


@cache
def shops() -> Pipeline:
    return small_pipeline(enrichments=[RATE_JOIN], features=SHOP)


def stream(seed: int, count: int, *, start_ms: int = 0, step_ms: int = 300) -> list[Sent]:
    return with_rates(random_payments(seed, count, start_ms=start_ms, step_ms=step_ms), seed + 1)


def by_place(letters: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(letters, key=lambda letter: (letter["offset"], letter["kind"]))


def assert_same(passed: Passage, expected: Passage) -> None:
    assert passed.rows == expected.rows
    assert by_place(passed.letters) == by_place(expected.letters)


def whole(sent: Sequence[Sent]) -> Passage:
    """Pass a sequence in the longest batches there can be."""
    return Passage(shops(), "shop").feed(cut(sent))


def test_one_event_at_a_time_is_the_same_as_all_at_once() -> None:
    sent = stream(1, 90)
    passed = Passage(shops(), "shop").feed(cut(sent, range(len(sent))))
    assert_same(passed, whole(sent))
    assert {letter["kind"] for letter in passed.letters} == {"late", "order"}


@given(
    st.integers(0, 2**32),
    st.integers(0, 60),
    st.sets(st.integers(1, 90)),
    st.sets(st.integers(0, 90)),
    st.sampled_from([0, -40_000]),
)
def test_no_cut_and_no_restart_changes_a_row_a_letter_or_a_stamp(
    seed: int, count: int, cuts: set[int], stops: set[int], start_ms: int
) -> None:
    sent = stream(seed, count, start_ms=start_ms)
    assert_same(restarted(sent, cuts, stops), whole(sent))


def restarted(sent: Sequence[Sent], cuts: set[int], stops: set[int]) -> Passage:
    """Pass a sequence, and rebuild the lane from its mapping before the batches whose numbers are in `stops`."""
    passed = Passage(shops(), "shop")
    for number, batch in enumerate(cut(sent, cuts)):
        if number in stops:
            passed.restart()
        passed.feed([batch])
    return passed


def test_restarts_do_not_show_after_compaction_and_expiry() -> None:
    sent = stream(2, 400, step_ms=45)
    passed = Passage(shops(), "shop")
    compactions = expiries = 0
    for number, batch in enumerate(cut(sent, range(len(sent)))):
        before = dict(passed.mapping)
        passed.feed([batch])
        gone = before.keys() - passed.mapping.keys()
        if gone:
            left = {bucket_of(data) for data in passed.mapping.values()}
            compactions += any(bucket_of(before[segment]) in left for segment in gone)
            expiries += any(bucket_of(before[segment]) not in left for segment in gone)
        if number % 37 == 0:
            passed.restart()
    assert_same(passed, whole(sent))
    assert compactions > 5
    assert expiries > 5


def bucket_of(data: bytes) -> tuple[int, int]:
    segment = Segment.decode(data)
    return segment.store, segment.bucket


def test_the_stored_log_stays_bounded_over_a_long_stream() -> None:
    passed = Passage(shops(), "shop")
    sizes = []
    for batch in cut(stream(3, 600, step_ms=75), range(0, 3_000, 2)):
        passed.feed([batch])
        sizes.append((len(passed.mapping), sum(map(len, passed.mapping.values()))))
    quarter = len(sizes) // 4
    for measure in (0, 1):
        early, late = (max(size[measure] for size in part) for part in (sizes[:quarter], sizes[-quarter:]))
        assert late < 1.5 * early
    assert max(sizes)[0] < 500


@pytest.mark.parametrize("stop", range(8))
def test_a_key_born_again_keeps_its_new_life_only(stop: int) -> None:
    """The lane is 9.6 s ahead of the old life, which lies in the windows of the new one; it may not come back."""
    sent = [
        payment(0, 20_000, "u", shop="idle", amount=1.0),
        payment(1, 24_500, "u", shop="busy", amount=1.0),
        payment(2, 29_000, "u", shop="busy", amount=1.0),
        payment(3, 29_600, "u", shop="busier", amount=1.0),
        payment(4, 21_000, "u", shop="idle", amount=2.0),
        payment(5, 21_400, "u", shop="idle", amount=4.0),
        payment(6, 22_000, "u", shop="idle", amount=8.0),
    ]
    passed = restarted(sent, set(range(8)), {stop})
    assert [row["shop_amount_count_3s"] for row in passed.rows] == [1, 1, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("stop", range(6))
def test_the_oldest_cell_that_can_be_read_is_still_stored(stop: int) -> None:
    """A row as late as allowed, of a key as idle as allowed, reads the first tile of its longest window."""
    sent = [
        payment(0, 6_000, "u", shop="slow", units=1),
        payment(1, 14_000, "u", shop="slow", units=2),
        payment(2, 23_500, "u", shop="busy", units=4),
        payment(3, 23_500, "u", shop="busy", units=8),
        payment(4, 12_500, "u", shop="slow", units=16),
    ]
    passed = restarted(sent, set(range(6)), {stop})
    assert [row["shop_units_sum_6s"] for row in passed.rows] == [1, 2, 4, 12, 17]


def test_keys_that_stay_away_leave_no_memory() -> None:
    passed = Passage(shops(), "shop")
    sent = [payment(i, 400 * i, "u", shop=f"s{i}", amount=1.0, units=1) for i in range(600)]
    passed.feed(cut(sent, range(0, 600, 5)))
    cells = passed.lane._stores[EVENTS].cells
    # A key is forgotten 9.5 s after its last event, once a bucket of 2.4 s goes, 19 s later at most: some 60 keys.
    assert 20 < len(cells.index) < 100
    assert all(20 < track.live < 100 for track in cells.tracks)
    assert len(cells.names) < 150
    passed.feed(cut([payment(600 + i, 1_000_000, "u", shop="last", amount=1.0, units=1) for i in range(12)]))
    assert list(cells.index) == ["last"]
    assert [track.live for track in cells.tracks] == [1, 1]


@pytest.mark.parametrize("stop", range(5))
def test_a_sequence_number_is_never_given_twice_even_to_rows_too_old_to_keep(stop: int) -> None:
    times_ms = (900_000, 100, 200, 300, 900_100)
    sent = [payment(i, time_ms, "u", shop=f"s{i}") for i, time_ms in enumerate(times_ms)]
    passed = restarted(sent, set(range(6)), {stop})
    assert [row["_seq_shop"] for row in passed.rows] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stop", range(4))
def test_rows_behind_the_kept_history_do_not_come_back_with_a_restart(stop: int) -> None:
    sent = [rate("s", 10_000, 1.0), rate("s", 15_001, 2.0), payment(0, 10_000, "u", shop="s")]
    assert [row["rate"] for row in restarted(sent, set(range(4)), {stop}).rows] == [None]


@pytest.mark.parametrize("stop", range(4))
def test_a_batch_of_null_keys_counts_in_the_order_too(stop: int) -> None:
    sent = [payment(0, 5_000, "u"), payment(1, 6_000, "u"), payment(2, 7_000, "u", shop="s")]
    passed = restarted(sent, set(range(4)), {stop})
    assert [(row["_lane_shop"], row["_seq_shop"]) for row in passed.rows] == [(3, 0), (3, 1), (3, 2)]


def test_an_empty_batch_passes_and_leaves_no_trace() -> None:
    passed = Passage(shops(), "shop").feed([raw_batch(EVENTS, []), raw_batch(RATES, [])])
    assert (passed.rows, passed.letters, passed.mapping) == ([], [], {})


def test_the_stage_of_the_source_key_may_have_no_features() -> None:
    pipeline = small_pipeline(features=SHOP_FEATURES)
    sent = [payment(0, 50_000, "u"), payment(1, 48_000, "u"), payment(2, 51_000, None)]
    mapping: dict[int, bytes] = {}
    passed = Passage(pipeline, "user", mapping).feed(cut(sent))
    assert [(row["id"], row["_seq_user"]) for row in passed.rows] == [("p0", 0), ("p2", 2)]
    (again,) = Passage(pipeline, "user", mapping).feed(cut([payment(3, 48_499, "u")])).letters
    assert (again["reason"], again["order"]) == ("late", '{"user":[3,3]}')


CHANGED: dict[str, dict[str, Any]] = {
    "another aggregation": {"take": ["sum", "mean", "min"]},
    "another column": {"of": "units"},
    "another slide": {"slide": "500ms"},
    "a longer window": {"over": ["1s", "40s"]},
}


@pytest.mark.parametrize("change", CHANGED)
def test_state_of_other_features_is_refused(change: str) -> None:
    first = USER_FEATURES[0]
    before = small_pipeline(features=[first])
    mapping: dict[int, bytes] = {}
    Passage(before, "user", mapping).feed(cut(random_payments(4, 50)))
    after = small_pipeline(features=[{**first, **CHANGED[change]}])
    with pytest.raises(StateFormatError, match="start from fresh state or restore"):
        Passage(after, "user", mapping)


def test_state_with_another_track_or_lateness_is_refused() -> None:
    mapping: dict[int, bytes] = {}
    Passage(small_pipeline(features=USER_FEATURES[:1]), "user", mapping).feed(cut(random_payments(4, 50)))
    more = small_pipeline(features=USER_FEATURES)
    later = small_pipeline(features=USER_FEATURES[:1], time={"allowed_lateness": "1h"})
    for pipeline in (more, later):
        with pytest.raises(StateFormatError, match="start from fresh state or restore"):
            Passage(pipeline, "user", mapping)


def test_state_of_another_join_is_refused() -> None:
    mapping: dict[int, bytes] = {}
    Passage(shops(), "shop", mapping).feed(cut(stream(5, 50)))
    other = small_pipeline(enrichments=[{**RATE_JOIN, "take": {"rate": "rate"}}], features=SHOP)
    with pytest.raises(StateFormatError, match=r"laid out as .*'rates:rate,is_open'.* need .*'rates:rate'"):
        Passage(other, "shop", mapping)
