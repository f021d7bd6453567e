"""Runs with waits in both stages: jobs computed again from their stamps, bit for bit; backfills in any chunks."""

import json
import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.slow_waits import HOURS, waiting_pipeline, with_streams
from tests.laws.test_backfill import in_chunks, together
from tests.samples import EVENTS, FLIGHTS, RATES, SHOP_FEATURES, USER_FEATURES, Sent, cut, payment, raw_batch
from udfs.core.declare.definition import Pipeline
from udfs.core.offline.backfill import Backfill
from udfs.core.offline.featurize import featurize_offline
from udfs.core.offline.follow import Follower
from udfs.core.offline.parity import Observed, Origin, as_columns, check_parity
from udfs.core.plan.features import feature_columns, order_places, plan_stages
from udfs.core.rows.batches import Piece, RawBatch
from udfs.core.rows.entities import add_entity
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.rows.lanes import split_by_lane
from udfs.core.stage.lane import Lane

PROFILES = "shop.profiles"
PROFILE_JOIN: dict[str, Any] = {
    "name": "profiles",
    "topic": PROFILES,
    "key": "user",
    "entity": "user",
    "max_age": "3s",
    "keep": "30s",
    "wait": "1500ms",
    "on_missing": "default",
    "default": {"tier": 7},
    "take": {"tier": "tier"},
    "contract": {"time": "at_ms", "fields": {"user": "string", "at_ms": "int64", "tier": "int64?"}},
}
KEYS = {EVENTS: "user", RATES: "shop", HOURS: "shop", PROFILES: "user"}


@cache
def pipeline(lanes: int = 3, allowed_lateness: str = "3s") -> Pipeline:
    """Events wait for profiles in the first stage, for rates and hours in the second one; some are late there."""
    base = waiting_pipeline({"wait": "2s", "on_missing": "stale"}, {"wait": "900ms", "on_missing": "reject"})
    joins = [PROFILE_JOIN, *(join.model_dump(mode="json", by_alias=True) for join in base.enrichments)]
    return waiting_pipeline(
        {},
        enrichments=joins,
        features=[*USER_FEATURES, *SHOP_FEATURES],
        model={"name": "shop-model", "inputs": ["amount", "tier", "rate", "staff"]},
        time={"allowed_lateness": allowed_lateness, "future_tolerance": "1d", "forget_idle_after": "0ms"},
        lanes=lanes,
    )


def stream(seed: int, count: int) -> list[Sent]:
    chance = random.Random(seed)
    sent: list[tuple[float, Sent]] = []
    for place, one in enumerate(with_streams(seed, count)):
        sent.append((place, one))
        user = one.row.get("user")
        if user is not None and chance.random() < 0.5:
            at_ms = one.row["at_ms"] - chance.choice([0, chance.randrange(9_000), -chance.randrange(3_000)])
            profile = {"user": user, "at_ms": at_ms, "tier": chance.choice([None, 1, 2])}
            sent.append((place + chance.uniform(-1, 8), Sent(PROFILES, user, profile)))
    return [one for _, one in sorted(sent, key=lambda pair: pair[0])]


class Job:
    """The stages of a job, each with its lanes: pieces come when they come, timers fire, lanes are restored."""

    def __init__(self, chance: random.Random) -> None:
        self.pipeline, self.chance = pipeline(), chance
        self.stages = plan_stages(self.pipeline)
        self.logs: list[list[dict[int, bytes]]] = [[{} for _ in range(3)] for _ in self.stages]
        self.lanes = [[self._lane(i, lane) for lane in range(3)] for i in range(len(self.stages))]
        self.now_ms = 10**12
        self.observed: list[tuple[Origin, Observed]] = []

    def _lane(self, i: int, lane: int) -> Lane:
        return Lane(self.pipeline, self.stages[i], lane, self.logs[i][lane])

    def run(self, inputs: Sequence[RawBatch]) -> "Job":
        ingests = ingest_of_topics(self.pipeline, FLIGHTS)
        for raw in inputs:
            self.now_ms += self.chance.randrange(400)
            self._pass(0, ingests[raw.topic].process(raw))
            i, lane = self.chance.randrange(len(self.stages)), self.chance.randrange(3)
            if self.chance.random() < 0.3:
                self._go_on(i, self.lanes[i][lane].expire(self.now_ms))
            if self.chance.random() < 0.1:
                self.lanes[i][lane] = self._lane(i, lane)
        return self

    def finish(self) -> "Job":
        """Let all go on that waits."""
        for i, lanes in enumerate(self.lanes):
            for lane in lanes:
                self._go_on(i, lane.expire())
        return self

    def _pass(self, i: int, piece: Piece) -> None:
        if i == len(self.stages):
            self._note(piece)
            return
        stage = self.stages[i]
        entity = stage.entity if piece.topic == EVENTS else KEYS[piece.topic]
        if piece.topic == EVENTS:
            piece = piece.with_rows(add_entity(piece.rows, stage.entity, stage.fields))
        for lane, share in split_by_lane(piece, entity, 3):
            self._go_on(i, self.lanes[i][lane].process(share, self.now_ms))

    def _go_on(self, i: int, piece: Piece | None) -> None:
        if piece is not None:
            self._pass(i + 1, piece)

    def _note(self, piece: Piece) -> None:
        for letter in piece.letters.to_pylist():
            order = {place: (lane, seq) for place, (lane, seq) in json.loads(letter["order"]).items()}
            self.observed.append((Origin(letter["topic"], 0, letter["offset"]), Observed(order, None)))
        for row in piece.rows.to_pylist() if piece.topic == EVENTS else []:
            order = {one: (row[f"_lane_{one}"], row[f"_seq_{one}"]) for one in order_places(self.pipeline)}
            features = {name: row[name] for name in feature_columns(self.pipeline)}
            self.observed.append((Origin(EVENTS, 0, row["_offset"]), Observed(order, features)))


def batches(sent: Sequence[Sent], chance: random.Random) -> Iterator[RawBatch]:
    """Cut the records of each topic into batches, in about their order."""
    offsets = dict.fromkeys(KEYS, 0)
    for start in range(0, len(sent), 6):
        for topic in chance.sample([*KEYS], len(KEYS)):
            mine = [one for one in sent[start : start + 6] if one.topic == topic]
            if mine:
                yield raw_batch(topic, mine, offsets[topic])
                offsets[topic] += len(mine)


def ran(seed: int, count: int = 40) -> tuple[list[RawBatch], Job]:
    chance = random.Random(seed)
    inputs = list(batches(stream(seed, count), chance))
    return inputs, Job(chance).run(inputs)


def waited(observed: dict[Origin, Observed], place: str, entity: str) -> int:
    return sum(place in one.order and one.order[place][1] > one.order[entity][1] for one in observed.values())


def test_the_runs_have_what_they_are_about() -> None:
    _, job = ran(1, 100)
    observed = dict(job.finish().observed)
    assert waited(observed, "wait_profiles", "user") > 10
    assert waited(observed, "wait_rates", "shop") > 10
    assert waited(observed, "wait_hours", "shop") > 10
    rejected = [seen for origin, seen in observed.items() if origin.topic == EVENTS and seen.features is None]
    assert len(rejected) > 10
    seqs = [seen.order["user"] for seen in observed.values() if seen.features is not None]
    assert seqs != sorted(seqs)


@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_what_a_job_logged_is_computed_again(seed: int) -> None:
    inputs, job = ran(seed)
    held = sum(lane.waiting.held.seqs.size for lanes in job.lanes for lane in lanes if lane.waiting is not None)
    stopped = check_parity(job.pipeline, FLIGHTS, inputs, dict(job.observed))
    assert stopped.missing == 0
    assert stopped.gaps <= 2 * held  # one in each stage
    assert held or stopped.mismatches == 0

    observed = dict(job.finish().observed)
    assert len(observed) == sum(len(raw.values) for raw in inputs)
    report = check_parity(job.pipeline, FLIGHTS, inputs, observed)
    predicted = sum(seen.features is not None for seen in observed.values())
    assert (report.rows, report.mismatches, report.missing, report.gaps) == (predicted, 0, 0, 0), report.examples
    assert all((one.equal, one.different, one.missing) == (predicted, 0, 0) for one in report.features.values())


def test_a_stamp_that_says_another_release_is_found() -> None:
    inputs, job = ran(2, 100)
    observed = dict(job.finish().observed)
    tier = {
        origin: seen
        for origin, seen in observed.items()
        if seen.features is not None
        and seen.features["tier"] not in (7, None)
        and seen.order["wait_profiles"][1] > seen.order["user"][1]
    }
    origin, seen = next(iter(tier.items()))
    lane, until = seen.order["wait_profiles"]
    early = Observed(seen.order | {"wait_profiles": (lane, until - 1)}, seen.features)
    report = check_parity(job.pipeline, FLIGHTS, inputs, observed | {origin: early})
    assert report.by_feature == {"tier": 1}
    assert f"tier: live {(seen.features or {})['tier']!r}, offline 7.0" in report.examples[0]


@settings(max_examples=3)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 0.5]))
def test_a_running_job_is_followed_through_its_waits(seed: int, share: float) -> None:
    inputs, job = ran(seed)
    job.finish()
    follower, chance = Follower(job.pipeline, FLIGHTS, share), random.Random(seed)
    read, logged = 0, 0
    while read < len(inputs) or logged < len(job.observed):
        for raw in inputs[read : read + 3]:
            follower.add_inputs(raw)
        read += 3
        step = chance.randrange(1, 12)
        follower.add_logged(as_columns(job.pipeline, dict(job.observed[logged : logged + step])))
        logged += step
        for _ in range(4):
            follower.advance(is_settled=True, now_s=1.0)
    assert follower.waiting == 0
    assert not follower.examples
    predicted = sum(seen.features is not None for _, seen in job.observed)
    assert all((one.different, one.missing) == (0, 0) for one in follower.features.values())
    found = {name: one.equal for name, one in follower.features.items()}
    # Without a shop there are no hours, which are required: every prediction has one.
    assert all(found[name] == predicted for name in ("rate", "staff", "shop_amount_count_1s") if share == 1.0)


def one_by_one(sent: Sequence[Sent]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The oracle: the records go one after the other through ingest and the stages, as in a job with one lane."""
    ingests = ingest_of_topics(pipeline(1), FLIGHTS)
    lanes = [Lane(pipeline(1), stage, 0, {}) for stage in plan_stages(pipeline(1))]
    pieces: list[Piece] = []
    for batch in cut(sent, range(len(sent))):
        piece = ingests[batch.topic].process(batch)
        for lane in lanes:
            piece = lane.process(piece)
        pieces.append(piece)
    for i, lane in enumerate(lanes):
        last = lane.expire()
        for following in lanes[i + 1 :]:
            last = following.process(last) if last is not None else None
        pieces += [last] if last is not None else []
    rows = [row for piece in pieces if piece.topic == EVENTS for row in piece.rows.to_pylist()]
    letters = [one for piece in pieces for one in piece.letters.to_pylist() if one["kind"] != "order"]
    return rows, sorted(letters, key=lambda letter: (letter["topic"], letter["offset"]))


@settings(max_examples=4)
@given(st.integers(0, 10**6), st.integers(3, 70), st.integers(1, 4))
def test_chunks_and_threads_of_a_backfill_never_show(seed: int, size: int, threads: int) -> None:
    sent = stream(seed, 30)
    found = together(list(Backfill(pipeline(1), FLIGHTS, threads).run(in_chunks(sent, size))))
    assert found == one_by_one(sent)


@settings(max_examples=4)
@given(st.integers(0, 10**6), st.integers(3, 70), st.integers(1, 3))
def test_chunks_never_show_with_several_lanes(seed: int, size: int, threads: int) -> None:
    sent = stream(seed, 30)
    whole = together(list(Backfill(pipeline(), FLIGHTS, 1).run(in_chunks(sent, 10**6))))
    assert together(list(Backfill(pipeline(), FLIGHTS, threads).run(in_chunks(sent, size)))) == whole
    assert len(whole[0]) + len(whole[1]) == sum(one.topic == EVENTS for one in sent) + sum(
        letter["topic"] != EVENTS for letter in whole[1]
    )


def test_the_short_form_goes_on_to_the_end() -> None:
    sent = [payment(0, 1_000, "u", shop="s"), payment(1, 2_000, "u", shop="s")]
    done = featurize_offline(pipeline(1), FLIGHTS, [raw_batch(EVENTS, sent)])
    assert done.rows.num_rows == 0
    assert done.letters["reason"].to_pylist() == ["enrichment_missing"] * 2


@pytest.mark.parametrize("kept", [False, True])
def test_a_state_that_is_built_keeps_what_waits(kept: bool) -> None:
    logs: dict[tuple[str, int], dict[int, bytes]] | None = {} if kept else None
    sent = [payment(0, 1_000, "u", shop="s")]
    done = list(Backfill(pipeline(1), FLIGHTS, logs=logs).run(in_chunks(sent, 5)))
    assert pa.Table.from_batches([one.letters for one in done]).num_rows == (0 if kept else 1)
    if logs is not None:
        stage = plan_stages(pipeline(1))[0]
        lane = Lane(pipeline(1), stage, 0, logs["log-user", 0])
        assert lane.waiting is not None
        assert lane.waiting.due_ms is None
        assert lane.expire(10**12) is None
        assert lane.waiting.due_ms == 10**12 + 1_500
