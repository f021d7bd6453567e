"""Lanes: Java's hash of strings, an even spread of lanes over subtasks, and the cut of a piece by lane."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import FLIGHTS, payment, random_payments, raw_batch, small_pipeline
from udfs.core.rows.batches import Piece
from udfs.core.rows.ingest import Ingest
from udfs.core.rows.lanes import java_string_hash, key_group, lane_keys, lane_of, split_by_lane

MAX_PARALLELISM = 128

# As `"…".hashCode()` prints them in Java; a character beyond the basic plane counts as its two UTF-16 halves.
JAVA_HASHES = {
    "": 0,
    "a": 97,
    "Hello": 69609650,
    "hello world": 1794106052,
    "polygenelubricants": -(2**31),
    "N14228": -2015042201,
    "ü": 252,
    "\U0001f600": 1772899,
    "a\U0001f600ß": 57849819,
}


@pytest.mark.parametrize(("text", "expected"), JAVA_HASHES.items())
def test_the_hash_of_a_string_is_that_of_java(text: str, expected: int) -> None:
    assert java_string_hash(text) == expected


@given(st.text())
def test_the_hash_follows_its_definition_over_utf16_units(text: str) -> None:
    data = text.encode("utf-16-be")
    units = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
    expected = 0
    for unit in units:
        expected = (31 * expected + unit) % 2**32
    assert java_string_hash(text) % 2**32 == expected
    assert -(2**31) <= java_string_hash(text) < 2**31


@given(st.one_of(st.none(), st.text()), st.integers(1, 128))
def test_every_key_has_a_lane(key: str | None, lanes: int) -> None:
    assert 0 <= lane_of(key, lanes) < lanes


def test_the_smallest_hash_has_a_lane_as_in_sql() -> None:
    # SQL takes ABS(MOD(hash, lanes)), which never meets the absolute value of -2**31 that an int cannot hold.
    assert lane_of("polygenelubricants", 7) == 2**31 % 7
    assert lane_of(None, 7) == 0


@pytest.mark.parametrize("lanes", range(1, 17))
def test_lane_keys_are_distinct_and_spread_evenly_over_subtasks(lanes: int) -> None:
    keys = lane_keys(lanes, MAX_PARALLELISM)
    assert len(set(keys)) == lanes
    for parallelism in (1, 2, 4):
        # This is how Flink gives key groups to subtasks, see KeyGroupRangeAssignment.
        of_lane = [key_group(key, MAX_PARALLELISM) * parallelism // MAX_PARALLELISM for key in keys]
        held = [of_lane.count(subtask) for subtask in range(parallelism)]
        assert max(held) - min(held) <= 1
        assert of_lane == sorted(of_lane)


def test_key_groups_are_those_of_flink() -> None:
    # KeyGroupRangeAssignment.assignToKeyGroup(Row.of(n), 128) of Flink 2.3.0; other numbers would tear state apart.
    assert [key_group(number, MAX_PARALLELISM) for number in range(8)] == [
        33, 44, 97, 104, 17, 17, 125, 17,
    ]  # fmt: skip


def pieces(count: int, lanes: int) -> tuple[Piece, list[tuple[int, Piece]]]:
    pipeline = small_pipeline()
    sent = [*random_payments(1, count), payment(-1, 10**15, "future")]
    piece = Ingest.of_source(pipeline, FLIGHTS).process(raw_batch("shop.payments", sent))
    return piece, split_by_lane(piece, "user", lanes)


@pytest.mark.parametrize("lanes", [1, 2, 3, 16])
@pytest.mark.parametrize("count", [1, 200])
def test_a_cut_by_lane_keeps_the_order_and_loses_nothing(count: int, lanes: int) -> None:
    piece, parts = pieces(count, lanes)
    assert [lane for lane, _ in parts] == sorted({lane for lane, _ in parts})
    for lane, part in parts:
        rows = part.rows.to_pylist()
        assert {lane_of(row["user"], lanes) for row in rows} == {lane}
        assert [row["_offset"] for row in rows] == sorted(row["_offset"] for row in rows)
    together = [row for _, part in parts for row in part.rows.to_pylist()]
    assert sorted(together, key=lambda row: row["_offset"]) == piece.rows.to_pylist()
    assert [letter for _, part in parts for letter in part.letters.to_pylist()] == piece.letters.to_pylist()
    assert piece.letters.num_rows == 1


def test_letters_travel_without_rows_and_nothing_travels_for_nothing() -> None:
    ingest = Ingest.of_source(small_pipeline(), FLIGHTS)
    rejected = ingest.process(raw_batch("shop.payments", [payment(0, 10**15, "future")]))
    ((lane, part),) = split_by_lane(rejected, "user", 4)
    assert (lane, part.rows.num_rows, part.letters.to_pylist()) == (0, 0, rejected.letters.to_pylist())
    assert split_by_lane(ingest.process(raw_batch("shop.payments", [])), "user", 4) == []


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_piece_crosses_between_operators_unchanged(count: int) -> None:
    piece, parts = pieces(count, 4)
    for one in (piece, *(part for _, part in parts)):
        again = Piece.decode(one.encode())
        assert again.topic == "shop.payments"
        assert again.rows.equals(one.rows, check_metadata=True)
        assert again.letters.equals(one.letters, check_metadata=True)
