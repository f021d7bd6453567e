"""An id counts once within the horizon, wherever batches are cut and whenever the lane is restarted."""

import random
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import EVENTS, FLIGHTS, RATE_JOIN, Sent, cut, payment, rate, raw_batch, small_pipeline
from udfs.core.cells.segments import Segment
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError
from udfs.core.rows.batches import RawBatch
from udfs.core.rows.ingest import Ingest
from udfs.core.stage.duplicates import Duplicates, row_digests

WITHIN_MS = 4_000


@cache
def remembering(within: str = "4s") -> Pipeline:
    return small_pipeline(time={"duplicates_within": within, "future_tolerance": "1d"}, enrichments=[RATE_JOIN])


class Gate:
    """One lane's ids, fed with batches; keeps what came out, in order."""

    def __init__(self, pipeline: Pipeline | None = None) -> None:
        self._pipeline = pipeline or remembering()
        self._ingest = Ingest.of_source(self._pipeline, FLIGHTS)
        self.mapping: dict[int, bytes] = {}
        self._gate = Duplicates(self._pipeline, self.mapping)
        self._rows: list[pa.RecordBatch] = []
        self._letters: list[pa.RecordBatch] = []

    def restart(self) -> None:
        self.mapping = dict(self.mapping)
        self._gate = Duplicates(self._pipeline, self.mapping)

    def feed(self, sent: Sequence[Sent], ends: Iterable[int] = (), stops: Iterable[int] = ()) -> "Gate":
        """Feed a sequence cut at `ends`; restart before the batches whose numbers are in `stops`."""
        wanted = set(stops)
        for number, batch in enumerate(cut(sent, ends)):
            if number in wanted:
                self.restart()
            self.take(batch)
        return self

    def take(self, batch: RawBatch) -> None:
        piece = self._gate.process(self._ingest.process(batch))
        self._rows.append(piece.rows)
        self._letters.append(piece.letters)

    @property
    def held(self) -> int:
        return len(self._gate.ids.index)

    @property
    def passed(self) -> list[int]:
        """Offsets of what went on."""
        return [row["_offset"] for rows in self._rows for row in rows.to_pylist()]

    @property
    def letters(self) -> list[dict[str, Any]]:
        letters: list[dict[str, Any]] = pa.Table.from_batches(self._letters).to_pylist()
        return letters

    @property
    def judged(self) -> list[tuple[int, str, str]]:
        return [(letter["offset"], letter["reason"], letter["detail"]) for letter in self.letters]


def oracle(sent: Sequence[Sent], within_ms: int) -> tuple[list[int], list[tuple[int, str, str]]]:
    """The rule as a dict says it: what goes on, and what is judged how."""
    first: dict[str, tuple[int, dict[str, Any], int]] = {}
    passed: list[int] = []
    judged: list[tuple[int, str, str]] = []
    clock_ms: int | None = None
    for offset, one in enumerate(sent):
        row, at_ms = one.row, one.row["at_ms"]
        known = first.get(row["id"])
        if known is not None and clock_ms is not None and clock_ms - known[0] <= within_ms:
            reason, fields = (
                ("duplicate", "the same fields as") if row == known[1] else ("conflict", "other fields than")
            )
            judged.append((offset, reason, f"id: got {row['id']!r} with {fields} partition 0, offset {known[2]}"))
            continue
        first[row["id"]] = (at_ms, row, offset)
        passed.append(offset)
        clock_ms = at_ms if clock_ms is None else max(clock_ms, min(at_ms, clock_ms + within_ms // 2))
    return passed, judged


def repeating(seed: int, count: int, *, ids: int = 12, step_ms: int = 250, pauses: float = 0.03) -> list[Sent]:
    """Return payments of which many repeat an id, with the same or with one other field, soon or long after."""
    chance = random.Random(seed)
    sent: list[Sent] = []
    now_ms = chance.choice([0, -30_000])
    for _ in range(count):
        now_ms += chance.randrange(2 * step_ms)
        if chance.random() < pauses:
            now_ms += chance.randrange(20_000)
        if sent and chance.random() < 0.4:
            row = dict(chance.choice(sent[-20:]).row)
            if chance.random() < 0.4:
                field = chance.choice(["at_ms", "shop", "amount", "units"])
                row[field] = {"at_ms": now_ms, "shop": "other", "amount": -0.25, "units": -99}[field]
            sent.append(Sent(EVENTS, row["user"], row))
            continue
        number, behind_ms = chance.randrange(ids), chance.choice([0, 0, chance.randrange(9_000)])
        amount, units = chance.choice([None, 0.0, 2.5]), chance.choice([None, 3])
        sent.append(payment(number, now_ms - behind_ms, "u", shop="s", amount=amount, units=units))
    return sent


@given(st.integers(0, 2**32), st.integers(0, 120), st.sets(st.integers(1, 120)), st.sets(st.integers(0, 120)))
def test_no_cut_and_no_restart_changes_what_a_dict_says(seed: int, count: int, ends: set[int], stops: set[int]) -> None:
    sent = repeating(seed, count)
    gate = Gate().feed(sent, ends, stops)
    assert (gate.passed, gate.judged if sent else []) == oracle(sent, WITHIN_MS)


def test_compaction_and_expiry_of_the_log_do_not_show() -> None:
    sent = repeating(7, 1_200, ids=2_000, step_ms=8, pauses=0.003)
    gate = Gate()
    compactions = expiries = 0
    for number, batch in enumerate(cut(sent, range(len(sent)))):
        before = dict(gate.mapping)
        gate.take(batch)
        gone = before.keys() - gate.mapping.keys()
        left = {Segment.decode(data).bucket for data in gate.mapping.values()}
        compactions += any(Segment.decode(before[one]).bucket in left for one in gone)
        expiries += any(Segment.decode(before[one]).bucket not in left for one in gone)
        if number % 37 == 0:
            gate.restart()
    assert (gate.passed, gate.judged) == oracle(sent, WITHIN_MS)
    assert compactions > 5
    assert expiries > 5


def test_the_letter_says_why_and_where_the_first_stands_and_carries_the_bytes() -> None:
    one, other = payment(1, 0, "u", amount=1.0), payment(1, 0, "u", amount=2.0)
    gate = Gate().feed([one, one, other])
    assert gate.passed == [0]
    assert [(letter["kind"], letter["stage"], letter["reason"], letter["order"]) for letter in gate.letters] == [
        ("rejects", "duplicates", "duplicate", "{}"),
        ("rejects", "duplicates", "conflict", "{}"),
    ]
    assert gate.letters[1]["detail"] == "id: got 'p1' with other fields than partition 0, offset 0"
    assert gate.letters[1]["value"] == msgspec.json.encode(other.row)
    assert gate.letters[1]["key"] == b"u"


def test_the_fields_are_compared_not_the_bytes() -> None:
    one = payment(1, 0, "u", amount=1.0, units=None)
    batch = raw_batch(EVENTS, [one, one, one])
    text = msgspec.json.encode(one.row)
    spaced = text.replace(b",", b" , ")
    turned = msgspec.json.encode(dict(reversed(one.row.items()))).replace(b"1.0", b"1")
    assert len({text, spaced, turned}) == 3
    batch = RawBatch(EVENTS, [text, spaced, turned], batch.keys, batch.partitions, batch.offsets, batch.timestamps_ms)
    pipeline = remembering()
    piece = Duplicates(pipeline, {}).process(Ingest.of_source(pipeline, FLIGHTS).process(batch))
    assert piece.letters["reason"].to_pylist() == ["duplicate", "duplicate"]


@pytest.mark.parametrize(("ahead_ms", "known"), [(WITHIN_MS, True), (WITHIN_MS + 1, False)])
def test_an_id_is_forgotten_when_the_clock_is_more_than_the_horizon_ahead(ahead_ms: int, known: bool) -> None:
    first = payment(1, 0, "u")
    gate = Gate().feed(
        [first, *(payment(i, at_ms, "u") for i, at_ms in ((2, 2_000), (3, 3_500), (4, ahead_ms))), first]
    )
    assert gate.passed == ([0, 1, 2, 3] if known else [0, 1, 2, 3, 4])


def test_an_event_from_far_ahead_does_not_forget_all_ids_at_once() -> None:
    gate = Gate().feed([payment(1, 0, "u"), payment(2, 10**9, "u"), payment(1, 0, "u")])
    assert gate.passed == [0, 1]


def test_a_conflict_does_not_keep_its_id_alive() -> None:
    """Else a producer that uses an id again and again would never be heard again."""
    again = [payment(1, at_ms, "u") for at_ms in range(0, 14_000, 1_000)]
    others = [payment(100 + i, one.row["at_ms"], "u") for i, one in enumerate(again)]
    gate = Gate().feed([one for pair in zip(again, others, strict=True) for one in pair])
    assert [offset // 2 for offset in gate.passed if offset % 2 == 0] == [0, 6, 12]


def test_rows_of_other_topics_go_through_as_they_are() -> None:
    pipeline = remembering()
    rates = Ingest.of_enrichment(pipeline.enrichments[0], 10**9).process(
        raw_batch("shop.rates", [rate("s0", 1, 1.0)] * 2)
    )
    assert Duplicates(pipeline, {}).process(rates) is rates


def test_what_is_held_stays_bounded() -> None:
    gate = Gate()
    sizes, held = [], []
    for batch in range(200):
        gate.feed([payment(batch * 50 + i, batch * 500 + i * 10, "u") for i in range(50)])
        sizes.append(sum(map(len, gate.mapping.values())))
        held.append(gate.held)
    # 4 s of one id each 10 ms, and an eighth of the horizon that is dropped as a whole.
    assert max(held) < 1.3 * WITHIN_MS / 10
    assert max(sizes[100:]) < 1.2 * max(sizes[:100])


def test_another_horizon_refuses_the_stored_ids() -> None:
    gate = Gate().feed([payment(1, 0, "u")])
    with pytest.raises(StateFormatError, match="time buckets of 500 ms; the pipeline needs 1000 ms"):
        Duplicates(remembering("8s"), gate.mapping)


VALUES = st.fixed_dictionaries(
    {"s": st.none() | st.text(), "t": st.none() | st.text(max_size=2)}
    | {
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "f": st.none() | st.floats(allow_nan=False),
        "b": st.booleans(),
    }
)
SCHEMA = pa.schema(
    [
        ("s", pa.string()),
        ("t", pa.string()),
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("b", pa.bool_()),
        ("v", pa.list_(pa.float64(), 2)),
    ]
)


@given(st.lists(VALUES, min_size=1, max_size=20), st.integers(0, 19))
def test_digests_are_equal_exactly_where_rows_are(rows: list[dict[str, Any]], at: int) -> None:
    rows = [*rows, *rows[:3], {**rows[0], "f": -0.0}, {**rows[0], "f": 0.0}]
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA)
    digests = row_digests(batch, tuple(SCHEMA.names)).tolist()
    for row, digest in zip(rows, digests, strict=True):
        assert [row == other for other in rows] == [digest == other for other in digests]
    assert row_digests(batch.slice(at), tuple(SCHEMA.names)).tolist() == digests[at:]


def test_no_text_is_moved_from_one_field_to_the_next() -> None:
    rows = [{"s": "ab", "t": "c"}, {"s": "a", "t": "bc"}, {"s": "", "t": None}, {"s": None, "t": ""}]
    batch = pa.RecordBatch.from_pylist(rows, pa.schema(list(SCHEMA)[:2]))
    assert len(set(row_digests(batch, ("s", "t")).tolist())) == 4


def test_segments_name_what_they_hold() -> None:
    gate = Gate().feed([payment(1, 0, "u")])
    (data,) = gate.mapping.values()
    segment = Segment.decode(data)
    assert segment.keys == ["p1"]
    assert segment.tracks[0].layout == "duplicates:digest,partition,offset"
