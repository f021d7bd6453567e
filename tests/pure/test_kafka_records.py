"""Kafka as one sequence, without Kafka: how partitions are merged, and how a range is written."""

import datetime as dt
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flink_jobs.kafka_records import Merge, Place, Span, full_pieces
from models.inputs import InputError
from scripts.kafka.consume import Record

A0, A1, B0 = Place(0, 0), Place(0, 1), Place(1, 0)


def record(place: Place, offset: int, timestamp_ms: int) -> Record:
    return Record("ab"[place.topic], place.partition, offset, timestamp_ms, None, b"", ())


def taken(merge: Merge) -> list[tuple[str, int, int]]:
    return [(one.topic, one.partition, one.offset) for one in merge.take()]


def test_nothing_goes_on_before_every_partition_has_come_as_far() -> None:
    merge = Merge([A0, B0])
    merge.add(A0, [record(A0, 0, 10), record(A0, 1, 30)])
    assert taken(merge) == []
    merge.add(B0, [record(B0, 0, 20)])
    assert taken(merge) == [("a", 0, 0), ("b", 0, 0)]
    assert (merge.held(A0), merge.held(B0)) == (1, 0)
    merge.end(B0)
    assert taken(merge) == [("a", 0, 1)]
    merge.end(A0)
    assert taken(merge) == []


def test_records_of_one_time_have_the_order_of_topics_then_partitions_then_offsets() -> None:
    merge = Merge([A0, A1, B0])
    for place in (B0, A1, A0):
        merge.add(place, [record(place, 0, 10), record(place, 1, 10)])
        merge.end(place)
    assert taken(merge) == [("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("a", 1, 1), ("b", 0, 0), ("b", 0, 1)]


@given(st.integers(0, 10**6))
def test_the_order_does_not_depend_on_how_records_come_and_keeps_each_partition(seed: int) -> None:
    chance = random.Random(seed)
    places = [A0, A1, B0]
    held = {place: [record(place, i, chance.randrange(30)) for i in range(chance.randrange(20))] for place in places}
    keys = []
    for place, records in held.items():
        clock = -1
        for one in records:
            clock = max(clock, one.timestamp_ms)
            keys.append((clock, *place, one.offset))
    merge, found, read = Merge(places), [], dict.fromkeys(places, 0)
    while any(read[place] < len(held[place]) for place in places) or places:
        place = chance.choice(places)
        size = chance.randrange(1, 5)
        merge.add(place, held[place][read[place] : read[place] + size])
        read[place] += size
        if read[place] >= len(held[place]):
            merge.end(place)
            places = [one for one in places if one != place]
        found += taken(merge)
    assert found == [("ab"[topic], partition, offset) for _, topic, partition, offset in sorted(keys)]


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_pieces_are_full_but_for_the_last(size: int) -> None:
    records = [record(A0, i, 0) for i in range(11)]
    pieces = list(full_pieces(iter([records[:1], records[1:9], [], records[9:]]), size))
    assert [one for piece in pieces for one in piece] == records
    assert all(len(piece) == size for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("..", Span()),
        ("10..", Span(10)),
        ("..20", Span(None, 20)),
        ("2013-11-05..", Span(dt.datetime(2013, 11, 5, tzinfo=dt.UTC))),
        ("2013-11-05T06:00+01:00..", Span(dt.datetime(2013, 11, 5, 5, tzinfo=dt.UTC))),
    ],
)
def test_a_range_is_of_offsets_or_times(text: str, wanted: Span) -> None:
    assert Span.parse(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"), [("10", "expected FROM..TO"), ("yesterday..", "got 'yesterday'; a bound is")]
)
def test_another_range_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Span.parse(text)
