"""Decoding: a record that is no event of the contract becomes one reject with its reason, its bytes and its key.

Each bad record is decoded between two good ones, which must come out unchanged and in order.
"""

import datetime as dt
import json
import random
from collections import Counter
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.flights import events
from scripts.flights.poison import LATE, Ledger, poisoned
from scripts.flights.stream import Events
from tests.samples import FLIGHTS
from udfs.core.declare.contract import Contract
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.offline.featurize import featurize_offline
from udfs.core.rows.batches import RawBatch
from udfs.core.rows.decoding import Decoder
from udfs.core.rows.ingest import Ingest
from udfs.core.rows.letters import DETAIL_MAX_CHARS

NOW_MS = 1_764_000_000_000
CONTRACT = Contract.model_validate(
    {
        "id": "id",
        "time": "at_ms",
        "fields": {"id": "string", "at_ms": "int64", "user": "string?", "amount": "float64?", "is_new": "bool"},
    }
)
GOOD: dict[str, Any] = {"id": "e1", "at_ms": 5, "user": "ü🛫", "amount": 0.5, "is_new": True}
DEEP = b"[" * 10_000 + b"]" * 10_000


def raw(values: list[bytes | None], keys: list[bytes | None]) -> RawBatch:
    count = len(values)
    return RawBatch("t", values, keys, [3] * count, list(range(70, 70 + count)), [1_000 + i for i in range(count)])


def good(number: int = 0) -> bytes:
    return msgspec.json.encode(GOOD | {"id": f"good{number}", "at_ms": number})


def with_text(field: str, text: bytes) -> bytes:
    """Return a good value with one field set to JSON text."""
    return msgspec.json.encode(GOOD | {field: "@"}).replace(b'"@"', text)


def without(field: str) -> bytes:
    return msgspec.json.encode({name: value for name, value in GOOD.items() if name != field})


KEY = "ü🛫".encode()
BAD: dict[str, tuple[bytes | None, str]] = {
    "tombstone": (None, "tombstone"),
    "empty": (b"", "empty"),
    "blank": (b" \n\t", "malformed"),
    "not utf-8 in a string": (with_text("id", b'"\xff"'), "not_utf8"),
    "a surrogate as utf-8": (with_text("id", b'"\xed\xa0\x80"'), "not_utf8"),
    "not utf-8 between tokens": (b"\xff" + good(), "not_utf8"),
    "utf-16": (good().decode().encode("utf-16"), "not_utf8"),
    "cut in half": (good()[:30], "malformed"),
    "its last byte gone": (good()[:-1], "malformed"),
    "a trailing comma": (good()[:-1] + b",}", "malformed"),
    "a comma more": (good().replace(b",", b",,"), "malformed"),
    "single quotes": (good().replace(b'"', b"'"), "malformed"),
    "two objects": (good() + good(), "malformed"),
    "two lines": (good() + b"\n" + good(), "malformed"),
    "a byte after it": (good() + b"\0", "malformed"),
    "byte order mark": (b"\xef\xbb\xbf" + good(), "malformed"),
    "a lone surrogate": (with_text("id", b'"\\ud800"'), "malformed"),
    "a control character": (with_text("id", b'"a\x1eb"'), "malformed"),
    "a leading zero": (with_text("at_ms", b"007"), "malformed"),
    "python's None": (with_text("amount", b"None"), "malformed"),
    "array": (b'["e1",5,"u",0.5,true]', "wrong_type"),
    "number": (b"5", "wrong_type"),
    "null": (b"null", "wrong_type"),
    "string": (json.dumps(good().decode()).encode(), "wrong_type"),
    "missing field": (without("is_new"), "missing_field"),
    "missing nullable field": (without("amount"), "missing_field"),
    "no field": (b"{}", "missing_field"),
    "extra field": (good()[:-1] + b',"gate":1}', "extra_field"),
    "text for int": (with_text("at_ms", b'"5"'), "wrong_type"),
    "float for int": (with_text("at_ms", b"5.0"), "wrong_type"),
    "exponent for int": (with_text("at_ms", b"5e3"), "wrong_type"),
    "bool for int": (with_text("at_ms", b"true"), "wrong_type"),
    "bool for float": (with_text("amount", b"false"), "wrong_type"),
    "int for bool": (with_text("is_new", b"1"), "wrong_type"),
    "number for text": (with_text("id", b"7"), "wrong_type"),
    "object for text": (with_text("id", b'{"x":1}'), "wrong_type"),
    "nan": (with_text("amount", b"NaN"), "not_finite"),
    "infinity": (with_text("amount", b"Infinity"), "not_finite"),
    "minus infinity": (with_text("amount", b"-Infinity"), "not_finite"),
    "nan in an int": (with_text("at_ms", b"NaN"), "not_finite"),
    "above int64": (with_text("at_ms", str(2**63).encode()), "out_of_range"),
    "above uint64": (with_text("at_ms", str(2**64).encode()), "out_of_range"),
    "below int64": (with_text("at_ms", str(-(2**63) - 1).encode()), "out_of_range"),
    "400 digits": (with_text("at_ms", b"9" * 400), "out_of_range"),
    "minus 400 digits": (with_text("at_ms", b"-" + b"9" * 400), "out_of_range"),
    "5000 digits": (with_text("at_ms", b"9" * 5_000), "out_of_range"),
    "400 digits for a float": (with_text("amount", b"9" * 400), "out_of_range"),
    "1e999": (with_text("amount", b"1e999"), "out_of_range"),
    "-1e999": (with_text("amount", b"-1e999"), "out_of_range"),
    "null id": (with_text("id", b"null"), "null_field"),
    "null bool": (with_text("is_new", b"null"), "null_field"),
    "deep in a value": (with_text("amount", DEEP), "wrong_type"),
    "deep in an extra field": (good()[:-1] + b',"gate":' + DEEP + b"}", "extra_field"),
    "deep as a whole": (DEEP, "wrong_type"),
    "deep and open": (b"[" * 100_000, "wrong_type"),
}  # fmt: skip


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(CONTRACT, "user")


def assert_neighbours(rows: pa.RecordBatch) -> None:
    expected = [
        GOOD
        | {"id": f"good{i}", "at_ms": i}
        | {"_partition": 3, "_offset": offset, "_timestamp_ms": offset + 930, "_value": good(i)}
        for i, offset in ((0, 70), (1, 72))
    ]
    assert rows.to_pylist() == expected


@pytest.mark.parametrize(("value", "reason"), BAD.values(), ids=BAD)
def test_a_bad_value_is_one_reject_and_its_neighbours_pass(value: bytes | None, reason: str, decoder: Decoder) -> None:
    rows, letters = decoder.decode(raw([good(0), value, good(1)], [KEY, b"its key", KEY]))
    assert_neighbours(rows)
    (letter,) = letters.to_pylist()
    assert letter["reason"] == reason
    assert letter | {"detail": ""} == {
        "kind": "rejects",
        "topic": "t",
        "partition": 3,
        "offset": 71,
        "timestamp_ms": 1_001,
        "stage": "decode",
        "reason": reason,
        "detail": "",
        "order": "{}",
        "key": b"its key",
        "value": value,
    }
    assert 0 < len(letter["detail"]) <= DETAIL_MAX_CHARS


@pytest.mark.parametrize("key", [None, b"", b"u", KEY + b" ", KEY[:-1], b"\xff"])
def test_a_record_under_another_key_is_a_reject(key: bytes | None, decoder: Decoder) -> None:
    value = msgspec.json.encode(GOOD)
    rows, letters = decoder.decode(raw([good(0), value, good(1)], [KEY, key, KEY]))
    assert_neighbours(rows)
    (letter,) = letters.to_pylist()
    assert (letter["reason"], letter["key"], letter["value"]) == ("key_mismatch", key, value)


@pytest.mark.parametrize("key", [b"", b"null", b"u"])
def test_a_key_where_the_field_is_null_is_a_reject_and_no_key_is_not(key: bytes, decoder: Decoder) -> None:
    value = with_text("user", b"null")
    rows, letters = decoder.decode(raw([value, value], [key, None]))
    assert [row["_offset"] for row in rows.to_pylist()] == [71]
    assert [(letter["reason"], letter["offset"]) for letter in letters.to_pylist()] == [("key_mismatch", 70)]


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (b" \n" + msgspec.json.encode(GOOD) + b"\r\n ", {}),
        (json.dumps(GOOD, indent=2, sort_keys=True).encode(), {}),
        (with_text("amount", b"7"), {"amount": 7.0}),
        (with_text("amount", b"null"), {"amount": None}),
        (with_text("amount", b"-1.5E-3"), {"amount": -0.0015}),
        (with_text("amount", b"1e-999"), {"amount": 0.0}),
        (with_text("at_ms", str(2**63 - 1).encode()), {"at_ms": 2**63 - 1}),
        (with_text("at_ms", str(-(2**63)).encode()), {"at_ms": -(2**63)}),
        (with_text("id", b'"\\ud83d\\udeeb\\u0000"'), {"id": "🛫\0"}),
        (with_text("id", b'""'), {"id": ""}),
        # A field given twice counts as its last value, as in most parsers.
        (msgspec.json.encode(GOOD)[:-1] + b',"amount":2}', {"amount": 2.0}),
    ],
)
def test_what_json_allows_is_read(value: bytes, changes: dict[str, Any], decoder: Decoder) -> None:
    rows, letters = decoder.decode(raw([value], [KEY]))
    assert letters.num_rows == 0
    (row,) = rows.select(list(GOOD)).to_pylist()
    assert row == GOOD | changes


def test_batches_of_nothing_and_of_bad_records_only_have_the_schema(decoder: Decoder) -> None:
    for batch in (raw([], []), raw([None, b"", b"{}"], [None, b"k", b"k"])):
        rows, letters = decoder.decode(batch)
        assert rows.schema == decoder.schema
        assert rows.num_rows == 0
        assert letters.num_rows == len(batch.values)


def mutated(seed: int) -> bytes:
    """Return a good value after a few random cuts, swaps, repeats and other bytes."""
    chance = random.Random(seed)
    value = bytearray(msgspec.json.encode(GOOD))
    for _ in range(chance.randint(1, 4)):
        i, j = sorted(chance.randrange(len(value) + 1) for _ in range(2))
        match chance.randrange(4):
            case 0:
                del value[i : i + chance.randrange(4)]
            case 1:
                value[i:i] = value[i:j]
            case 2:
                value[i:i] = chance.choice([b'"', b"{", b"[", b"\\", b"1e9", b"NaN", b"null", b"\xff", b"\0", b","])
            case _:
                value[i : i + 1] = bytes([chance.randrange(256)])
    return bytes(value)


records = st.one_of(
    st.none(), st.binary(max_size=40), st.integers(0, 2**32).map(mutated), st.just(msgspec.json.encode(GOOD))
)


@given(st.lists(st.tuples(records, st.sampled_from([KEY, None, b"", b"u"])), max_size=8))
def test_no_bytes_raise_or_change_a_neighbour(sent: list[tuple[bytes | None, bytes | None]]) -> None:
    decoder = Decoder(CONTRACT, "user")
    values, keys = [good(0), *(value for value, _ in sent), good(1)], [KEY, *(key for _, key in sent), KEY]
    rows, letters = decoder.decode(raw(values, keys))
    alone = [decoder.decode(raw([value], [key])) for value, key in zip(values, keys, strict=True)]
    assert rows.num_rows + letters.num_rows == len(values)
    assert rows.column("_value").to_pylist() == [value for one, _ in alone for value in one["_value"].to_pylist()]
    assert rows.select(list(GOOD)).to_pylist() == [
        row for one, _ in alone for row in one.select(list(GOOD)).to_pylist()
    ]
    found = Counter((letter["reason"], letter["key"], letter["value"]) for letter in letters.to_pylist())
    assert found == Counter(
        (letter["reason"], letter["key"], letter["value"]) for _, one in alone for letter in one.to_pylist()
    )
    offsets = [*rows["_offset"].to_pylist(), *letters["offset"].to_pylist()]
    assert sorted(offsets) == list(range(70, 70 + len(values)))


@pytest.fixture(scope="module")
def flights() -> Pipeline:
    return load_pipeline(FLIGHTS)


@pytest.fixture(scope="module")
def spoiled() -> tuple[Events, Ledger]:
    days = events.departures(dt.date(2013, 11, 5), dt.date(2013, 11, 6))
    return poisoned(days, 5, now_ms=NOW_MS, each=3, late=20)


def as_batch(stream: Events) -> RawBatch:
    count = len(stream)
    return RawBatch(events.DEPARTURES, stream.values, stream.keys, [0] * count, range(count), [NOW_MS] * count)


def is_cancelled(value: bytes | None) -> bool:
    return b'"departed_at_ms":null' in (value or b"")


def test_every_poison_is_rejected_for_one_of_its_reasons_and_no_flight_is(
    flights: Pipeline, spoiled: tuple[Events, Ledger]
) -> None:
    stream, ledger = spoiled
    piece = Ingest.of_source(flights, FLIGHTS).process(as_batch(stream))
    bad = {entry.position: entry for entry in ledger.entries if entry.kind != LATE}
    letters = {letter["offset"]: letter for letter in piece.letters.to_pylist()}
    assert len(letters) == piece.letters.num_rows
    wrong = [
        (entry.kind, letters[place]["reason"] if place in letters else "passed", entry.reasons)
        for place, entry in bad.items()
        if place not in letters or letters[place]["reason"] not in entry.reasons
    ]
    assert wrong == []
    for place, letter in letters.items():
        assert (letter["key"], letter["value"]) == (stream.keys[place], stream.values[place])
        if place not in bad:
            assert is_cancelled(stream.values[place])
            assert letter["reason"] == "null_field"
    assert piece.rows["_offset"].to_pylist() == [place for place in range(len(stream)) if place not in letters]


def test_every_late_record_comes_out_late_and_every_good_one_with_features(
    flights: Pipeline, spoiled: tuple[Events, Ledger]
) -> None:
    stream, ledger = spoiled
    done = featurize_offline(flights, FLIGHTS, [as_batch(stream)])
    letters = done.letters.to_pylist()
    late = {letter["offset"]: letter for letter in letters if letter["kind"] == "late"}
    expected = {entry.position for entry in ledger.entries if entry.kind == LATE}
    by_aircraft = {place for place, letter in late.items() if letter["stage"] == "featurize-tailnum"}
    assert expected <= by_aircraft
    assert all(letter["value"] == stream.values[place] for place, letter in late.items())
    rejected = {letter["offset"] for letter in letters if letter["kind"] == "rejects"}
    assert done.rows["_offset"].to_pylist() == [i for i in range(len(stream)) if i not in late and i not in rejected]
    assert len(letters) == len(late) + len(rejected)
    assert not any(place in late for place in range(len(stream)) if place not in expected), (
        "a good flight came out late"
    )
