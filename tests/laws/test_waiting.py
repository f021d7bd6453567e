"""Waiting joins of a lane against a slow oracle: what an event gets, when it goes on, in which order."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.slow_waits import HOURS_JOIN, SlowWaits, waiting_pipeline, with_streams
from tests.samples import EVENTS, FIELDS, FLIGHTS, Sent, cut, payment, rate, raw_batch
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError
from udfs.core.plan.features import plan_stages
from udfs.core.rows.batches import Piece, RawBatch
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.stage.held import Entry, is_entry
from udfs.core.stage.lane import Lane

GOLDEN = Path(__file__).parents[1] / "golden" / "held_v1.bin"
POLICIES: dict[str, dict[str, Any]] = {
    "null": {},
    "default": {"on_missing": "default", "default": {"rate": -1, "is_open": None}},
    "stale": {"on_missing": "stale"},
    "reject": {"on_missing": "reject"},
}
policies = st.sampled_from([*POLICIES])


@cache
def waits_for_rates(policy: str, wait: str = "2s", most: int = 10_000) -> Pipeline:
    return waiting_pipeline({"wait": wait, "waiting_max": most} | POLICIES[policy])


@cache
def waits_for_both(policy: str) -> Pipeline:
    return waiting_pipeline(
        {"wait": "2s"} | POLICIES[policy], {"wait": "800ms", "on_missing": "stale", "waiting_max": 3}
    )


class Waits:
    """The stage `shop` in one lane, and what came out of it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.mapping = pipeline, dict[int, bytes]()
        self._stage = next(stage for stage in plan_stages(pipeline) if stage.entity == "shop")
        self._ingests = ingest_of_topics(pipeline, FLIGHTS)
        self._rows: list[pa.RecordBatch] = []
        self._letters: list[pa.RecordBatch] = []
        self.restart()

    def restart(self) -> None:
        """Rebuild the lane from a copy of what it has stored; the old one goes on with the original."""
        self.mapping = dict(self.mapping)
        self.lane = Lane(self.pipeline, self._stage, 3, self.mapping)

    def feed(self, batches: Iterable[RawBatch], now_ms: int | None = None) -> "Waits":
        for raw in batches:
            self._note(self.lane.process(self._ingests[raw.topic].process(raw), now_ms))
        return self

    def expire(self, *now_ms: int) -> "Waits":
        self._note(self.lane.expire(*now_ms))
        return self

    def _note(self, piece: Piece | None) -> None:
        if piece is None:
            return
        self._letters.append(piece.letters)
        if piece.topic == EVENTS:
            self._rows.append(piece.rows)
        assert piece.topic == EVENTS or piece.rows.num_rows == 0

    @property
    def whole_rows(self) -> list[dict[str, Any]]:
        return pa.Table.from_batches(self._rows).to_pylist() if self._rows else []

    @property
    def rows(self) -> list[tuple[str, dict[str, float | None], dict[str, int]]]:
        """As the oracle has them."""
        joins = self.pipeline.enrichments
        columns = [column for join in joins for column in join.take]
        waits = [join for join in joins if join.wait_ms]
        return [
            (
                row["id"],
                {column: row[column] for column in columns},
                {join.name: row[f"_seq_{join.place}"] for join in waits},
            )
            for row in self.whole_rows
        ]

    @property
    def letters(self) -> list[dict[str, Any]]:
        return pa.Table.from_batches(self._letters).to_pylist() if self._letters else []

    @property
    def rejects(self) -> list[tuple[str, str]]:
        offsets = [(one["offset"], one["detail"].partition(":")[0]) for one in self.letters if one["kind"] == "rejects"]
        return [(f"p{offset}", name) for offset, name in offsets]


def numbered(sent: Sequence[Sent]) -> list[Sent]:
    """Give payments the number of their place, so that a letter tells its payment."""
    return [
        Sent(one.topic, one.key, one.row | {"id": f"p{i}"}) if one.topic == EVENTS else one
        for i, one in enumerate(sent)
    ]


def assert_same(passed: Waits, slow: SlowWaits) -> None:
    assert passed.rows == slow.rows
    assert passed.rejects == slow.rejects


@given(
    st.integers(0, 2**32),
    st.integers(0, 70),
    st.sets(st.integers(1, 140)),
    policies,
    st.sampled_from(["2s", "5s", "0s"]),
)
def test_rows_order_and_stamps_are_those_of_the_oracle(
    seed: int, count: int, cuts: set[int], policy: str, wait: str
) -> None:
    pipeline, sent = waits_for_rates(policy, wait), only_rates(with_streams(seed, count))
    passed, slow = Waits(pipeline).feed(cut(sent, cuts)), SlowWaits(pipeline).feed(sent)
    assert_same(passed, slow)
    assert_same(passed.expire(), slow.expire())


def only_rates(sent: Sequence[Sent]) -> list[Sent]:
    return numbered([one for one in sent if one.topic != "shop.hours"])


def test_the_oracle_meets_all_that_ends_a_wait() -> None:
    sent = only_rates(with_streams(3, 400))
    slow = SlowWaits(waits_for_rates("null")).feed(sent)
    seqs = {one.row["id"]: seq for seq, one in enumerate(sent) if one.topic == EVENTS}
    waited = {name for name, _, until in slow.rows if until["rates"] > seqs[name]}
    fitted = {name for name, columns, _ in slow.rows if columns["is_open"] is not None}
    assert len(waited & fitted) > 20
    assert len(waited - fitted) > 20
    assert len(fitted - waited) > 20
    assert [name for name, _, _ in slow.rows] != sorted((name for name, _, _ in slow.rows), key=seqs.__getitem__)


@given(
    st.integers(0, 2**32),
    st.integers(0, 60),
    st.sets(st.integers(1, 140)),
    st.sets(st.integers(0, 140)),
    policies,
    st.lists(st.integers(0, 700), min_size=1, max_size=8),
)
def test_two_streams_processing_time_and_restarts_are_as_in_the_oracle(
    seed: int, count: int, cuts: set[int], stops: set[int], policy: str, steps_ms: list[int]
) -> None:
    pipeline, sent = waits_for_both(policy), numbered(with_streams(seed, count))
    passed, slow, now_ms, start = Waits(pipeline), SlowWaits(pipeline), 10**12, 0
    for number, batch in enumerate(cut(sent, cuts)):
        now_ms += steps_ms[number % len(steps_ms)]
        if number in stops:
            passed.restart()
        if number % 3 == 0:
            passed.expire(now_ms)
            slow.expire(now_ms)
        passed.feed([batch], now_ms)
        slow.feed(sent[start : start + len(batch.values)], now_ms)
        start += len(batch.values)
        assert (passed.lane.waiting is None or passed.lane.waiting.held.seqs.size) == len(slow.waiting)
    assert_same(passed, slow)
    assert_same(passed.expire(), slow.expire(10**15))
    assert not any(map(is_entry, passed.mapping.values()))


def sale(number: int, at_ms: int, shop: str | None = "s") -> Sent:
    return payment(number, at_ms, "u", shop=shop)


def rates_of(passed: Waits) -> list[tuple[str, float | None, int]]:
    return [(name, columns["rate"], until["rates"]) for name, columns, until in passed.rows]


def test_an_event_waits_for_its_row_and_goes_on_behind_those_that_came_meanwhile() -> None:
    sent = [rate("t", 9_000, 9.0), sale(1, 10_000), sale(2, 10_000, "t"), rate("s", 10_001, 1.0), rate("s", 8_000, 2.0)]
    passed = Waits(waits_for_rates("null")).feed(cut(sent))
    assert rates_of(passed) == [("p2", 9.0, 2), ("p1", 2.0, 5)]
    assert [(row["id"], row["_lane_shop"], row["_seq_shop"], row["_lane_wait_rates"]) for row in passed.whole_rows] == [
        ("p2", 3, 2, 3),
        ("p1", 3, 1, 3),
    ]


@pytest.mark.parametrize(("clock_ms", "found"), [(12_000, [("p0", 5.0, 3)]), (12_001, [("p0", None, 2)])])
def test_a_row_may_be_exactly_as_late_as_the_wait(clock_ms: int, found: list[tuple[str, float | None, int]]) -> None:
    sent = [sale(0, 10_000), rate("t", clock_ms, 1.0), rate("s", 10_000, 5.0)]
    assert rates_of(Waits(waits_for_rates("null")).feed(cut(sent))) == found


def test_what_comes_too_late_by_the_clock_of_the_stream_does_not_wait_at_all() -> None:
    sent = [rate("t", 13_000, 1.0), sale(0, 10_999), sale(1, 11_000)]
    passed = Waits(waits_for_rates("null")).feed(cut(sent))
    assert rates_of(passed) == [("p0", None, 1)]
    assert passed.lane.waiting is not None
    assert passed.lane.waiting.held.seqs.tolist() == [2]


def test_features_are_those_of_the_arrival_and_only_the_join_waits() -> None:
    sent = [payment(i, 10_000 + i, "u", shop="s", amount=1.0) for i in range(3)]
    passed = Waits(waits_for_rates("null")).feed(cut([*sent, rate("s", 10_000, 4.0)]))
    assert [(row["shop_amount_count_1s"], row["rate"]) for row in passed.whole_rows] == [(1, 4.0), (2, 4.0), (3, 4.0)]


def test_processing_time_ends_a_wait_where_the_stream_is_idle() -> None:
    passed = Waits(waits_for_rates("default")).feed(cut([sale(0, 10_000)]), now_ms=5_000)
    waiting = passed.lane.waiting
    assert waiting is not None
    assert waiting.due_ms == 7_000
    assert passed.lane.expire(6_999) is None
    passed.restart()
    assert passed.expire(7_000).rows == [("p0", {"rate": -1.0, "is_open": None}, {"rates": 1})]
    assert waiting.due_ms == 7_000, "the lane before the restart holds it still"
    assert passed.lane.waiting is not None
    assert passed.lane.waiting.due_ms is None


def test_events_of_a_state_that_knows_no_processing_time_wait_from_when_the_lane_begins() -> None:
    passed = Waits(waits_for_rates("default")).feed(cut([sale(0, 10_000)]))
    passed.restart()
    waiting = passed.lane.waiting
    assert waiting is not None
    assert waiting.due_ms is None
    waiting.arm(5_000)
    waiting.arm(6_000)
    assert waiting.due_ms == 7_000
    assert passed.expire(7_000).rows == [("p0", {"rate": -1.0, "is_open": None}, {"rates": 1})]


def test_a_batch_also_lets_those_go_whose_time_has_come() -> None:
    passed = Waits(waits_for_rates("null")).feed(cut([sale(0, 10_000)]), now_ms=5_000)
    passed.feed(cut([sale(1, 10_000)]), now_ms=7_500)
    assert rates_of(passed) == [("p0", None, 1)]


def test_an_event_that_is_late_or_has_no_key_does_not_wait() -> None:
    changed = {"time": {"allowed_lateness": "1s", "forget_idle_after": "1h"}}
    sent = [sale(0, 10_000), sale(1, 8_999), sale(2, 10_000, None), rate("s", 10_000, 3.0)]
    passed = Waits(waiting_pipeline({"wait": "2s"}, **changed)).feed(cut(sent))
    assert rates_of(passed) == [("p2", None, 2), ("p0", 3.0, 4)]
    assert [(one["reason"], one["order"]) for one in passed.letters if one["kind"] == "late"] == [
        ("late", '{"shop":[3,1]}')
    ]


@pytest.mark.parametrize("ends", [(), range(10)])
def test_beyond_the_limit_the_first_event_waits_no_longer(ends: Iterable[int]) -> None:
    sent = [*(sale(i, 10_000 + i) for i in range(5)), rate("s", 9_900, 1.0)]
    passed = Waits(waits_for_rates("null", most=2)).feed(cut(sent, ends))
    assert rates_of(passed) == [("p0", None, 3), ("p1", None, 4), ("p2", None, 5), ("p3", 1.0, 6), ("p4", 1.0, 6)]


def test_a_reject_names_enrichment_key_and_time_and_keeps_the_bytes() -> None:
    batch = raw_batch(EVENTS, [sale(0, 10_000)])
    (letter,) = Waits(waits_for_rates("reject")).feed([batch]).expire().letters
    assert letter["reason"] == "enrichment_missing"
    assert letter["detail"] == "rates: no row of shop='s' within 2s before 10000, waited up to 2s"
    assert (letter["stage"], letter["key"], letter["value"]) == ("featurize-shop", b"u", batch.values[0])
    assert letter["order"] == '{"shop":[3,0],"wait_rates":[3,1]}'


@pytest.mark.parametrize(
    ("policy", "found"), [("null", None), ("default", -1.0), ("stale", 3.0), ("reject", "enrichment_missing")]
)
def test_without_a_wait_the_policy_applies_at_once(policy: str, found: float | str | None) -> None:
    passed = Waits(waits_for_rates(policy, "0s")).feed(cut([rate("s", 7_000, 3.0), sale(1, 10_000)]))
    got = [row["rate"] for row in passed.whole_rows]
    assert got + [one["reason"] for one in passed.letters if one["kind"] == "rejects"] == [found]
    assert passed.lane.waiting is None or passed.lane.waiting.due_ms is None


def test_what_is_stored_of_waits_stays_bounded_and_is_gone_with_them() -> None:
    pipeline = waits_for_rates("null", "5s")
    passed = Waits(pipeline)
    sizes = []
    for number in range(500):
        passed.feed(cut([sale(number, 1_000 * number, f"s{number}"), rate("other", 1_000 * number, 1.0)]))
        entries = [data for data in passed.mapping.values() if is_entry(data)]
        sizes.append((len(entries), sum(map(len, entries))))
        if number % 99 == 0:
            passed.restart()
    assert len(passed.rows) == 494
    assert max(sizes[-250:]) <= max(sizes[:250])
    passed.feed(cut([rate("other", 10**6, 1.0), rate("other", 10**6, 1.0)])).expire()
    assert not any(map(is_entry, passed.mapping.values()))


ONLY_HOURS: dict[str, Any] = {"enrichments": [HOURS_JOIN | {"wait": "1s"}]}
CHANGED: dict[str, Pipeline] = {
    "another join": waiting_pipeline({}, **ONLY_HOURS),
    "no wait": waiting_pipeline({}),
    "two joins": waiting_pipeline({"wait": "2s"}, {"wait": "1s"}),
}


WIDE: dict[str, Any] = {"contract": {"id": "id", "time": "at_ms", "fields": FIELDS | {"note": "string?"}}}


def changed(pipeline: Pipeline, before: Pipeline | None = None, **fields: Any) -> Waits:
    """Return the lane of a changed pipeline, restored from one in which two events of 10 s wait."""
    sent = [payment(i, 10_000, "u", shop="s", **fields) for i in range(2)]
    passed, after = Waits(before or waits_for_rates("null")).feed(cut(sent)), Waits(pipeline)
    after.mapping = passed.mapping
    after.restart()
    return after


@pytest.mark.parametrize("change", CHANGED)
def test_events_that_wait_for_other_enrichments_are_refused(change: str) -> None:
    with pytest.raises(StateFormatError, match="restore the"):
        changed(CHANGED[change])


def test_events_that_wait_get_the_columns_of_a_changed_pipeline() -> None:
    passed = changed(waits_for_rates("null"), waiting_pipeline({"wait": "2s"}, **WIDE), note="n")
    passed.feed(cut([sale(2, 10_000), rate("s", 10_000, 1.0)]))
    assert [(row["id"], row["rate"], "note" in row) for row in passed.whole_rows] == [
        (f"p{i}", 1.0, False) for i in range(3)
    ]


def test_events_that_wait_without_a_column_that_is_needed_now_are_refused() -> None:
    passed = changed(waiting_pipeline({"wait": "2s"}, **WIDE))
    with pytest.raises(StateFormatError, match=r"have the columns id: .*; the pipeline gives .*note: string"):
        passed.feed(cut([payment(2, 10_000, "u", shop="s", note=None)]))


def test_stored_events_of_another_version_or_program_are_refused() -> None:
    passed = Waits(waits_for_rates("null")).feed(cut([sale(0, 10_000)]))
    (number,) = (number for number, data in passed.mapping.items() if is_entry(data))
    good = passed.mapping[number]
    for bad, match in (
        (msgspec.msgpack.encode(Entry(b"", b"", version=2)), "have version 2; this code reads 1"),
        (good[:40], "cannot be read"),
    ):
        passed.mapping[number] = bad
        with pytest.raises(StateFormatError, match=match):
            passed.restart()


def test_the_golden_entry_is_read_as_ever() -> None:
    passed = Waits(waits_for_rates("null", "2s"))
    passed.mapping = {0: GOLDEN.read_bytes()}
    passed.restart()
    assert passed.lane.waiting is not None
    held = passed.lane.waiting.held
    assert (held.seqs.tolist(), held.since_ms.tolist(), held.until.tolist()) == ([0, 1], [5_000, 5_000], [[-1], [-1]])
    passed.feed(cut([rate("s", 10_000, 2.5)]))
    assert [(row["id"], row["rate"], row["shop_amount_count_1s"]) for row in passed.whole_rows] == [
        ("p0", 2.5, 1.0),
        ("p1", 2.5, 2.0),
    ]


def write_golden() -> None:
    """Write the golden file of the present version, once, when a version is new:

    python -c "from tests.laws.test_waiting import write_golden; write_golden()"
    """
    events = [payment(i, 10_000 + i, "ü 🛫", shop="s", amount=-0.5, units=2**40) for i in range(2)]
    passed = Waits(waits_for_rates("null")).feed(cut(events), now_ms=5_000)
    (entry,) = (data for data in passed.mapping.values() if is_entry(data))
    GOLDEN.write_bytes(entry)
