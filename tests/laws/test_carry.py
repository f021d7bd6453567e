"""State carried over to other lanes and other features: no output tells that anything happened."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laned import LanedJob, Row
from tests.samples import (
    EVENTS,
    RATE_JOIN,
    SHOP_FEATURES,
    USER_FEATURES,
    Sent,
    random_payments,
    small_pipeline,
    with_rates,
)
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError
from udfs.core.state.carry import carry

#: No key is idle that long here; when one is forgotten depends on the other keys of its lane.
PATIENT = {"allowed_lateness": "1500ms", "future_tolerance": "1d", "forget_idle_after": "1d"}
KINDS: tuple[dict[str, Any], ...] = (
    {"entity": "user", "of": "amount", "take": ["mean", "max"], "over": [{"tumbling": "3s"}, "lifetime"]},
    {"entity": "user", "of": "amount", "take": ["sum", {"last_n": 2}], "over": [{"last": 3}, {"session": "2s"}]},
    {"entity": ["user", "shop"], "of": "amount", "take": ["sum", "std"], "over": ["4s"], "slide": "1s"},
    {"entity": "user", "of": "shop", "take": ["distinct", {"top_k": 2}, "last"], "over": ["4s"], "slide": "1s"},
    {"entity": "shop", "from": "rates", "of": "rate", "take": ["mean"], "over": ["2s"], "slide": "1s"},
)


def pipeline(lanes: int, **changes: Any) -> Pipeline:
    declared = {
        "features": [*USER_FEATURES, *SHOP_FEATURES, *KINDS],
        "enrichments": [RATE_JOIN],
        "time": PATIENT,
    } | changes
    return small_pipeline(lanes=lanes, **declared)


def stream(seed: int, count: int) -> list[Sent]:
    return with_rates(random_payments(seed, count, users=9), seed + 1)


@settings(max_examples=4)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 70), min_size=3, max_size=3).map(sorted))
def test_lanes_may_change_1_2_4_1_anywhere_and_no_key_sees_it(seed: int, cuts: list[int]) -> None:
    sent = stream(seed, 50)
    whole = LanedJob(pipeline(1)).feed(sent)
    job = LanedJob(pipeline(1))
    rows, letters, stamps = (
        dict[str, Row](),
        dict[tuple[str, int, str], tuple[str, str]](),
        list[tuple[str, int, int]](),
    )
    for start, end, lanes in zip([0, *cuts], [*cuts, len(sent)], [2, 4, 1, None], strict=True):
        job.feed(sent[start:end], start)
        rows |= job.rows
        letters |= job.letters
        stamps += job.stamps
        if lanes is not None:
            header = LanedJob(pipeline(lanes)).header
            job = LanedJob(pipeline(lanes), carry(job.snapshot(), header))
    assert rows == whole.rows
    assert letters == whole.letters
    assert len(stamps) == len(set(stamps))


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_keys_that_are_out_of_memory_are_in_the_snapshot(lanes: int) -> None:
    sent = stream(3, 80)
    whole = LanedJob(pipeline(1)).feed(sent)
    job = LanedJob(pipeline(2), limit_bytes=300).feed(sent[:60])
    assert all(any(job.pages[entity, lane] for lane in range(2)) for entity in job.header.entities)
    again = LanedJob(pipeline(lanes), carry(job.snapshot(), LanedJob(pipeline(lanes)).header)).feed(sent[60:], 60)
    assert job.rows | again.rows == whole.rows
    assert job.letters | again.letters == whole.letters


def waiting(lanes: int, **changes: Any) -> Pipeline:
    return pipeline(lanes, enrichments=[{**RATE_JOIN, "wait": "8s", "keep": "20s"}], **changes)


def ended(job: LanedJob, sent: list[Sent], first_offset: int = 0) -> set[str]:
    """Return the events that have come out of a job, one way or another."""
    left = {offset for _, offset, kind in job.letters if kind != "order"}
    return set(job.rows) | {one.row["id"] for i, one in enumerate(sent, first_offset) if i in left and "id" in one.row}


@pytest.mark.parametrize("lanes", [1, 3])
def test_events_that_wait_go_with_their_keys(lanes: int) -> None:
    sent = stream(6, 60)
    half = len(sent) // 2
    whole = LanedJob(waiting(1)).feed(sent)
    job = LanedJob(waiting(1)).feed(sent[:half])
    held = {one.row["id"] for one in sent[:half] if one.topic == EVENTS} - ended(job, sent)
    assert len(held) > 2
    again = LanedJob(waiting(lanes), carry(job.snapshot(), LanedJob(waiting(lanes)).header)).feed(sent[half:], half)
    assert len(ended(again, sent) & held) > 2
    assert not set(job.rows) & set(again.rows)
    if lanes == 1:  # how long an event waits depends on the other keys of its lane
        assert job.rows | again.rows == whole.rows
        assert job.letters | again.letters == whole.letters


def test_events_that_wait_keep_their_features() -> None:
    snapshot = LanedJob(waiting(1)).feed(stream(6, 60)[:40]).snapshot()
    header = LanedJob(waiting(1, features=[*USER_FEATURES, *SHOP_FEATURES])).header
    with pytest.raises(StateFormatError, match="events of shop wait for rows of rates, and have the columns"):
        carry(snapshot, header)
