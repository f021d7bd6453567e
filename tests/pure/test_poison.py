"""Poison is deterministic, truly bad, truly late, and the ledger tells the truth about it."""

import datetime as dt
from pathlib import Path

import msgspec
import numpy as np
import pytest

from scripts.flights import events
from scripts.flights.poison import HOUR_MS, LATE, Ledger, PoisonError, poisoned
from scripts.flights.poison_kinds import KINDS
from scripts.flights.stream import Events
from udfs.core.declare.contract import Contract
from udfs.core.declare.loading import load_pipeline

NOW_MS = 1_764_000_000_000
REASONS = {
    "tombstone", "empty", "not_utf8", "malformed", "missing_field", "extra_field", "wrong_type", "null_field",
    "not_finite", "out_of_range", "too_deep", "key_mismatch", "future", "late",
}  # fmt: skip
# These decode; what is wrong with them is seen in the columns.
DECODES = {"above_max", "below_min", "no_clock_time", "other_key", "null_key", "empty_key", "key_not_utf8", "future"}


@pytest.fixture(scope="module")
def days() -> Events:
    return events.departures(dt.date(2013, 11, 5), dt.date(2013, 11, 5))


@pytest.fixture(scope="module")
def spoiled(days: Events) -> tuple[Events, Ledger]:
    return poisoned(days, 7, now_ms=NOW_MS)


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load_pipeline(Path(__file__).parents[2] / "conf" / "flights").contract


def test_the_same_seed_gives_the_same_stream(days: Events, spoiled: tuple[Events, Ledger]) -> None:
    again, ledger = poisoned(days, 7, now_ms=NOW_MS)
    assert list(again) == list(spoiled[0])
    assert ledger == spoiled[1]
    assert list(poisoned(days, 8, now_ms=NOW_MS)[0]) != list(again)


def test_what_was_there_stays_and_the_order_of_time_too(days: Events, spoiled: tuple[Events, Ledger]) -> None:
    stream, ledger = spoiled
    good = np.ones(len(stream), bool)
    good[[entry.position for entry in ledger.entries]] = False
    assert list(stream.take(good)) == list(days)
    assert (np.diff(stream.times_ms) >= 0).all()


def test_the_ledger_names_every_record(spoiled: tuple[Events, Ledger]) -> None:
    stream, ledger = spoiled
    assert len(ledger.entries) == 5 * len(KINDS) + 25
    assert sum(ledger.expected.values()) == len(ledger.entries)
    assert set(ledger.expected) == REASONS
    assert ledger.expected[LATE] == 25
    sent = list(stream)
    for entry in ledger.entries:
        assert sent[entry.position] == entry.event
        assert set(entry.reasons) <= REASONS
        assert entry.reasons[0] in ledger.reasons_of(entry.event.key, entry.event.value)
    assert ledger.reasons_of(b"N1", b"{}x") == ()
    assert all(f'"{name}"'.encode() in (entry.event.value or b"") for name, entry in ledger.ids.items())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_is_bad(kind: str, days: Events, contract: Contract) -> None:
    _, ledger = poisoned(days, 3, now_ms=NOW_MS, each=11, late=0, kinds=[kind])
    decode = msgspec.json.Decoder(contract.struct()).decode
    for entry in ledger.entries:
        value = entry.event.value
        if kind not in DECODES:
            if value is not None:
                # UnicodeDecodeError and RecursionError are what msgspec raises for bytes of no UTF-8 and for depth.
                with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError, RecursionError)):
                    decode(value)
            continue
        row = decode(value or b"")
        is_out = any(
            (spec.min is not None and getattr(row, name) < spec.min)
            or (spec.max is not None and getattr(row, name) > spec.max)
            for name, spec in contract.fields.items()
        )
        assert is_out == (entry.reasons[0] == "out_of_range")
        assert (entry.event.key != row.tailnum.encode()) == (entry.reasons[0] == "key_mismatch")  # type: ignore[attr-defined]
        assert (row.departed_at_ms > NOW_MS) == (kind == "future")  # type: ignore[attr-defined]


def test_late_records_are_valid_and_behind_their_aircraft_by_more_than_allowed(
    spoiled: tuple[Events, Ledger], contract: Contract
) -> None:
    stream, ledger = spoiled
    decode = msgspec.json.Decoder(contract.struct()).decode
    bad = {entry.position for entry in ledger.entries}
    late = [entry for entry in ledger.entries if entry.kind == LATE]
    assert len(late) == 25
    for entry in late:
        row = decode(entry.event.value or b"")
        newest_ms = max(
            msgspec.json.decode(stream.values[i] or b"")["departed_at_ms"] or 0
            for i in range(entry.position)
            if stream.keys[i] == entry.event.key and i not in bad
        )
        assert newest_ms - row.departed_at_ms > HOUR_MS  # type: ignore[attr-defined]
        assert entry.event.key == row.tailnum.encode()  # type: ignore[attr-defined]


def test_unknown_kinds_and_streams_too_thin_are_refused(days: Events) -> None:
    with pytest.raises(PoisonError, match="no kind of poison is named 'nam'; did you mean 'nan'"):
        poisoned(days, 1, now_ms=NOW_MS, kinds=["nam"])
    with pytest.raises(PoisonError, match="no departure of a known aircraft"):
        poisoned(days.take(np.zeros(0, np.int64)), 1, now_ms=NOW_MS)
    with pytest.raises(PoisonError, match="no aircraft departs twice"):
        poisoned(days.take(np.arange(5)), 1, now_ms=NOW_MS)
