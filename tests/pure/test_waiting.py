"""Waiting joins of a lane against a slow oracle: what an event gets, when it goes on, in which order."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tests.pure.samples import EVENTS, FLIGHTS, Sent, cut
from tests.pure.slow_waits import SlowWaits, waiting_pipeline, with_streams
from udfs.core.batches import Piece, RawBatch
from udfs.core.definition import Pipeline
from udfs.core.features import plan_stages
from udfs.core.ingest import ingest_of_topics
from udfs.core.lane import Lane

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
    assert not [data for data in passed.mapping.values() if b"held_events" in data[:16]]
