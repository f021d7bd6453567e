"""The demo's books find every way in which a run could be wrong, and nothing in a run that is right."""

import datetime as dt
from dataclasses import replace

import pytest

from scripts.demo.accounting import LATE, PREDICTION, Accounting, Outcome, Sent, account
from scripts.demo.check import compare_inputs
from scripts.demo.settings import DemoError, Settings
from scripts.demo.traffic import traffic
from scripts.kafka.batches import raw_batch
from scripts.kafka.consume import Record
from udfs.core.offline.parity import Origin

NOW_MS = 1_764_000_000_000


def at(offset: int) -> Origin:
    return Origin("t", 0, offset)


SENT = [
    Sent(at(0), (PREDICTION,), b"k", b"{}"),
    Sent(at(1), ("malformed", "empty"), b"k", b" "),
    Sent(at(2), (LATE,), b"k", b"{}"),
    Sent(at(4), ("tombstone",), None, None),  # 3 is the mark of a transaction
]
RIGHT = [
    Outcome(at(0), PREDICTION),
    Outcome(at(1), "empty", b"k", b" "),
    Outcome(at(2), LATE, b"k", b"{}"),
    Outcome(at(4), "tombstone", None, None),
]
CLEAN = Accounting(
    events=4,
    predictions=1,
    rejects=2,
    late=1,
    duplicates=0,
    missing=0,
    strangers=0,
    misjudged=0,
    altered=0,
    rejects_by_reason={"empty": (1, 1), "tombstone": (1, 1)},
    examples=(),
)


def test_a_right_run_has_nothing_wrong_in_whatever_order_it_is_read() -> None:
    assert account(SENT, RIGHT) == CLEAN
    assert account(SENT, RIGHT[::-1]) == CLEAN


def test_a_planted_duplicate_is_found() -> None:
    books = account(SENT, [*RIGHT, RIGHT[0]])
    assert (books.duplicates, books.missing, books.predictions) == (1, 0, 2)
    assert books.examples == ("duplicates: prediction of Origin(topic='t', partition=0, offset=0), outcome number 2",)


def test_an_event_that_is_both_scored_and_rejected_is_a_duplicate() -> None:
    books = account(SENT, [*RIGHT, Outcome(at(0), "malformed", b"k", b"{}")])
    assert (books.duplicates, books.misjudged) == (1, 1)


def test_a_planted_gap_is_found() -> None:
    books = account(SENT, RIGHT[1:])
    assert (books.duplicates, books.missing, books.predictions) == (0, 1, 0)
    assert "expected prediction" in books.examples[0]
    assert account(SENT, []).missing == 4


def test_a_reason_that_is_not_the_right_one_is_found() -> None:
    books = account(SENT, [RIGHT[0], Outcome(at(1), "wrong_type", b"k", b" "), *RIGHT[2:]])
    assert books.misjudged == 1
    assert books.rejects_by_reason == {"malformed": (1, 0), "tombstone": (1, 1), "wrong_type": (0, 1)}


@pytest.mark.parametrize(("key", "value"), [(b"k", b"{ }"), (b"k", None), (None, b"{}"), (b"", b"{}")])
def test_a_letter_with_other_bytes_than_sent_is_found(key: bytes | None, value: bytes | None) -> None:
    assert account(SENT, [*RIGHT[:2], replace(RIGHT[2], key=key, value=value), RIGHT[3]]).altered == 1


def test_an_outcome_of_nothing_is_found() -> None:
    books = account(SENT, [*RIGHT, Outcome(at(3), PREDICTION)])
    assert (books.strangers, books.duplicates, books.missing) == (1, 0, 0)


def test_input_that_is_not_what_was_sent_ends_the_demo() -> None:
    records = [Record(*one.origin, 1, one.key, one.value, ()) for one in SENT]
    compare_inputs(SENT, records)
    with pytest.raises(DemoError, match="holds 3 records, 4 were sent"):
        compare_inputs(SENT, records[:3])
    with pytest.raises(DemoError, match="at offset 1: is not what was sent"):
        compare_inputs(SENT, [records[0], replace(records[1], value=b"x"), *records[2:]])


def test_a_raw_batch_keeps_the_origin_of_its_records() -> None:
    batch = raw_batch(
        "a", [Record("a", 3, offset, 7 + offset, b"k", value, ()) for offset, value in ((5, b"v"), (9, None))]
    )
    assert (batch.topic, batch.partitions, batch.offsets, batch.timestamps_ms) == ("a", [3, 3], [5, 9], [12, 16])
    assert (batch.keys, batch.values) == ([b"k", b"k"], [b"v", None])
    assert raw_batch("a", []).values == []


def test_traffic_is_cut_by_departure_and_skips_the_offset_of_the_mark() -> None:
    day = dt.date(2013, 11, 5)
    settings = Settings(start=day, paced_from=day + dt.timedelta(1), end=day + dt.timedelta(1), poison_each=1)
    flights = traffic(settings, NOW_MS)
    cut = len(flights.backlog)
    assert len(flights.sent) == cut + len(flights.paced)
    assert [one.origin.offset for one in flights.sent] == [i for i in range(len(flights.sent) + 1) if i != cut]
    assert flights.backlog.times_ms.max() < 1_383_714_000_000 <= flights.paced.times_ms.min()  # midnight in New York
    outcomes = {one.expected[0] for one in flights.sent}
    assert {PREDICTION, LATE, "null_field", "malformed", "tombstone"} <= outcomes
    cancelled = [one for one in flights.sent if one.value and b'"departed_at_ms":null' in one.value]
    assert cancelled
    assert all(one.expected == ("null_field",) for one in cancelled)


def test_days_out_of_order_are_refused() -> None:
    Settings().check()
    with pytest.raises(DemoError, match="must follow one another"):
        Settings(paced_from=dt.date(2013, 11, 1)).check()
    with pytest.raises(DemoError, match="to 2014-01-01; these days"):
        Settings(end=dt.date(2014, 1, 1)).check()
