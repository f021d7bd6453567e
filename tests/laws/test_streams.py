"""Features `from:` an enrichment: updated by its rows, read by the events between them; against the slow oracle.

And the lane's other way in: pieces of several topics that are one sequence are the same as its runs, one by one.
"""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.slow_windows import Asked, Keys, features
from tests.samples import (
    EVENTS,
    FLIGHTS,
    RATE_JOIN,
    RATES,
    Passage,
    Sent,
    cut,
    payment,
    random_payments,
    rate,
    raw_batch,
    small_pipeline,
    with_rates,
)
from tests.slow_aggregations import Event
from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import plan_stages, windowed_features
from udfs.core.rows.batches import Piece
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.rows.letters import no_letters
from udfs.core.stage.lane import Lane

KEEP_MS, HORIZON_MS, IDLE = 5_000, 15_000, "15s"
HIGH = "rate > 20"
CONDITIONS = {HIGH: lambda row: row["rate"] is not None and row["rate"] > 20, "is_open": lambda row: row["is_open"]}


def group(name: str, take: list[Any], over: list[Any], **more: Any) -> dict[str, Any]:
    found = {"entity": "shop", "of": "rate", "take": take, "over": over, "slide": "1s", "as": name, "from": "rates"}
    return found | more


GROUPS = (
    group("tiles", ["sum", "mean", "count", {"lag": 1}, {"last_n": 2}], ["4s", "1s"]),
    group("delayed", ["count", "sum"], [{"sliding": "4s", "delay": "2s"}]),
    group("kinds", ["sum", "first", "time_since_last"], [{"tumbling": "5s"}, {"session": "800ms"}, "lifetime"]),
    group("more", ["count", "sum", "time_since_first"], [{"session_from": HIGH}, {"last": 5}, {"last": 3}]),
    group("sketches", ["distinct", {"unique": 3}, {"top_k": 2}, {"quantile": 0.5}], ["4s", {"tumbling": "5s"}, "1s"]),
    group("some", ["count", "sum"], ["4s", "2s"], where="is_open", include_event=False),
)
OWN: dict[str, Any] = {"entity": "shop", "of": "amount", "take": ["count"], "over": ["1s"], "slide": "1s"}


def with_groups(groups: Sequence[dict[str, Any]], *, joins: bool) -> Pipeline:
    join = RATE_JOIN | {"keep": f"{KEEP_MS}ms"} | ({} if joins else {"take": {}})
    return small_pipeline(features=[*groups, OWN], enrichments=[join], time={"forget_idle_after": IDLE})


@cache
def streamed(*, joins: bool) -> Pipeline:
    return with_groups(GROUPS, joins=joins)


def expected(sent: Sequence[Sent]) -> dict[str, list[Any]]:
    """Return the features of each payment, by its id."""
    keys, found = Keys(KEEP_MS, HORIZON_MS), {}
    for seq, one in enumerate(sent):
        shop = one.row["shop"]
        if shop is None:
            continue
        if one.topic == RATES:
            time_ms = one.row["seen_ms"]
            life = keys.admit(shop, time_ms)
            if life is not None:
                Asked(keys, life, time_ms, Event(time_ms, seq, one.row), CONDITIONS).enter([HIGH])
        else:
            found[one.row["id"]] = features(GROUPS, Asked(keys, keys.find(shop), one.row["at_ms"], None, CONDITIONS))
    return found


def stream(seed: int, count: int, *, run: int = 6) -> list[Sent]:
    """Return payments and rates, within each `run` of them the rates first: a batch is of one topic."""
    mixed = with_rates(random_payments(seed, count, disorder_ms=9_000), seed + 1)
    runs = (mixed[start : start + run] for start in range(0, len(mixed), run))
    return [one for some in runs for one in sorted(some, key=lambda one: one.topic == EVENTS)]


streams = st.builds(stream, st.integers(0, 2**32), st.integers(0, 50))
cuts = st.sets(st.integers(1, 90))


@pytest.mark.parametrize("joins", [True, False], ids=["joined too", "features alone"])
@settings(max_examples=5)  # each asks for some forty features of each event
@given(streams, cuts)
def test_events_read_what_the_rows_before_them_left(joins: bool, sent: list[Sent], ends: set[int]) -> None:
    pipeline, found = streamed(joins=joins), expected(sent)
    names = [feature.name for feature in windowed_features(pipeline) if feature.stream]
    passed = Passage(pipeline, "shop").feed(cut(sent, ends))
    assert {row["id"] for row in passed.rows} >= found.keys() - late_of(passed)
    for row in passed.rows:
        assert ("rate" in row) is joins
        if row["shop"] is None:
            assert {row[name] for name in names} == {None}
        else:
            assert dict(zip(names, found[row["id"]], strict=True)) == {name: row[name] for name in names}, row["id"]


def late_of(passed: Passage) -> set[str]:
    return {json.loads(letter["value"])["id"] for letter in passed.letters if letter["topic"] == EVENTS}


def test_a_long_stream_meets_reads_from_afar_and_forgotten_keys() -> None:
    sent = stream(3, 150)
    pipeline, found = streamed(joins=True), expected(sent)
    names = [feature.name for feature in windowed_features(pipeline) if feature.stream]
    passed = Passage(pipeline, "shop").feed(cut(sent, range(0, len(sent), 40)))
    rows = [row for row in passed.rows if row["shop"] is not None]
    assert [[row[name] for name in names] for row in rows] == [found[row["id"]] for row in rows]
    late = [letter for letter in passed.letters if letter["kind"] == "late" and letter["topic"] == RATES]
    assert len(late) > 2


def test_an_unknown_key_has_the_features_of_nothing() -> None:
    sent = [rate("s", 1_000, 5.0), payment(0, 1_000, "u", shop="t"), payment(1, 1_000, "u", shop="s")]
    unknown, known = Passage(streamed(joins=True), "shop").feed(cut(sent)).rows
    empty: dict[str, Any] = {"tiles_sum_4s": None, "tiles_count_4s": 0.0, "kinds_first_lifetime": None}
    empty |= {"more_count_last_3": 0.0, "sketches_distinct_4s": 0.0, "sketches_unique_3_4s": []}
    assert {name: unknown[name] for name in empty} == empty
    assert (known["tiles_sum_4s"], known["tiles_count_4s"], known["sketches_unique_3_4s"]) == (5.0, 1.0, [5.0])


@settings(max_examples=4)
@given(streams, cuts, cuts)
def test_no_cut_and_no_restart_changes_a_value(sent: list[Sent], ends: set[int], stops: set[int]) -> None:
    pipeline = streamed(joins=True)
    passed = restarted(pipeline, sent, ends, stops)
    whole = Passage(pipeline, "shop").feed(cut(sent))
    assert passed.rows == whole.rows
    assert sorted(map(str, passed.letters)) == sorted(map(str, whole.letters))


def restarted(pipeline: Pipeline, sent: Sequence[Sent], ends: set[int], stops: set[int]) -> Passage:
    passed = Passage(pipeline, "shop")
    for number, batch in enumerate(cut(sent, ends)):
        if number in stops:
            passed.restart()
        passed.feed([batch])
    return passed


@pytest.mark.parametrize("stop", range(6))
def test_the_oldest_tile_that_a_read_from_afar_finds_is_stored(stop: int) -> None:
    """The rate of 8.5 s lies in the oldest tile that is not gone; its time bucket begins just behind it."""
    join = RATE_JOIN | {"keep": "1500ms", "max_age": "0ms", "take": {}}
    rates = group("x", ["count"], ["2s"])
    pipeline = small_pipeline(features=[rates, OWN], enrichments=[join], time={"forget_idle_after": "60s"})
    sent = [rate("s", 8_500, 1.0), rate("s", 12_999, 1.0), rate("t", 42_999, 1.0), rate("t", 72_999, 1.0)]
    sent.append(payment(4, 10_000, "u", shop="s"))
    assert [row["x_count_2s"] for row in restarted(pipeline, sent, set(range(6)), {stop}).rows] == [1.0]


def test_a_feature_does_not_depend_on_what_else_is_declared() -> None:
    sent = list(cut(stream(7, 60), range(0, 99, 25)))
    together = Passage(streamed(joins=True), "shop").feed(sent).rows
    for one in GROUPS:
        alone = with_groups((one | {"over": one["over"][-1:]},), joins=False)
        names = [feature.name for feature in windowed_features(alone)]
        for row, other in zip(Passage(alone, "shop").feed(sent).rows, together, strict=True):
            assert {name: row[name] for name in names} == {name: other[name] for name in names}


@pytest.mark.parametrize(
    ("at_ms", "count_1s", "count_4s"),
    [(10_500, 2, 3), (9_500, 2, 3), (8_500, 0, 1), (6_500, 0, 1), (5_500, 0, 0)],
)
def test_a_read_from_afar_looks_from_where_the_last_late_event_may_be(at_ms: int, count_1s: int, count_4s: int) -> None:
    """With 1.5 s kept behind a rate of 12 s, that is from the tile of 10 s; whatever other windows hold on to."""
    sent = [rate("s", seen_ms, 1.0) for seen_ms in (5_000, 6_000, 9_000, 9_999, 12_000)]
    join = RATE_JOIN | {"keep": "1500ms"}
    for over in (["1s"], ["4s"], ["1s", "4s"]):
        tiles, sketches = group("x", ["count"], over), group("y", ["distinct", {"first_n": 1}], over)
        pipeline = small_pipeline(features=[tiles, sketches, OWN], enrichments=[join], time={"forget_idle_after": IDLE})
        (row,) = Passage(pipeline, "shop").feed(cut([*sent, payment(9, at_ms, "u", shop="s")])).rows
        for window, count in {"1s": count_1s, "4s": count_4s}.items():
            if window in over:
                assert row[f"x_count_{window}"] == count
                assert row[f"y_distinct_{window}"] == min(count, 1)


def pieces_of(pipeline: Pipeline, sent: Sequence[Sent]) -> dict[str, Piece]:
    """Return the rows of each topic as one piece."""
    ingests = ingest_of_topics(pipeline, FLIGHTS)
    return {
        topic: ingest.process(raw_batch(topic, [one for one in sent if one.topic == topic]))
        for topic, ingest in ingests.items()
    }


def by_runs(lane: Lane, pieces: dict[str, Piece], order: np.ndarray[Any, Any]) -> dict[str, list[Piece]]:
    """Process the pieces run by run, each of rows of one topic that follow one another."""
    done: dict[str, list[Piece]] = {topic: [] for topic in pieces}
    taken = dict.fromkeys(pieces, 0)
    starts = np.flatnonzero(np.append(True, np.diff(order)))
    for start, end in zip(starts, [*starts[1:], order.size], strict=True):
        topic = list(pieces)[order[start]]
        rows = pieces[topic].rows.slice(taken[topic], end - start)
        taken[topic] += int(end - start)
        done[topic].append(lane.process(Piece(topic, rows, no_letters())))
    return done


@pytest.mark.parametrize("is_durable", [True, False])
@settings(max_examples=4)
@given(st.integers(0, 2**32), st.integers(1, 50))
def test_an_interleaved_sequence_is_its_runs_one_by_one(is_durable: bool, seed: int, count: int) -> None:
    pipeline = streamed(joins=True)
    stage = next(one for one in plan_stages(pipeline) if one.entity == "shop")
    sent = stream(seed, count, run=1)
    order = np.array([[EVENTS, RATES].index(one.topic) for one in sent], np.int8)
    pieces = pieces_of(pipeline, sent)
    assert sum(piece.rows.num_rows for piece in pieces.values()) == order.size
    mappings: list[dict[int, bytes] | None] = [{}, {}] if is_durable else [None, None]
    lanes = [Lane(pipeline, stage, 1, mapping) for mapping in mappings]
    runs = by_runs(lanes[0], pieces, order)
    together = lanes[1].process_interleaved(pieces, order)
    for topic, found in together.items():
        if topic == EVENTS:
            assert pa.Table.from_batches([one.rows for one in runs[topic]]).to_pylist() == found.rows.to_pylist()
        assert [letter for one in runs[topic] for letter in one.letters.to_pylist()] == found.letters.to_pylist()
    # What both have stored is the same state, too: the rest of the sequence cannot tell.
    after = pieces_of(pipeline, stream(seed + 1, 20))
    rest = np.concatenate([np.full(piece.rows.num_rows, i, np.int8) for i, piece in enumerate(after.values())][::-1])
    if is_durable:
        lanes = [Lane(pipeline, stage, 1, mapping) for mapping in mappings]
    left, right = (lane.process_interleaved(after, rest)[EVENTS].rows for lane in lanes)
    assert left.equals(right)


def test_rows_that_another_stage_joins_pass_through_and_take_no_place() -> None:
    pipeline = streamed(joins=True)
    stage = next(one for one in plan_stages(pipeline) if one.entity == "user")
    sent = [rate("s", 1_000, 1.0), payment(0, 1_000, "u"), rate("s", 2_000, 2.0), payment(1, 2_000, "u")]
    pieces = pieces_of(pipeline, sent)
    done = Lane(pipeline, stage, 0, {}).process_interleaved(pieces, np.array([1, 0, 1, 0], np.int8))
    assert done[RATES] is pieces[RATES]
    assert done[EVENTS].rows["_seq_user"].to_pylist() == [0, 1]


def test_each_element_of_a_vector_has_the_features_of_a_column() -> None:
    fields = {"id": "string", "at_ms": "int64", "user": "string?"}
    fields |= {"pair": "float64[2]?", "x": "float64?", "y": "float64?"}
    take: dict[str, Any] = {"take": ["count", "mean", {"first_n": 2}, {"delta": 1}], "over": ["4s", {"last": 2}]}
    names = {"pair": "v", "x": "col_v_0", "y": "col_v_1"}
    groups = [{"entity": "user", "of": of, "as": name} | take for of, name in names.items()]
    pipeline = small_pipeline(contract={"id": "id", "time": "at_ms", "fields": fields}, features=groups)
    pairs = [(1.0, -2.0), None, (3.5, 0.25), (2.0, 8.0)]
    sent = [
        Sent(EVENTS, "u", {"id": f"p{i}", "at_ms": 900 * i, "user": "u", "pair": pair,
                           "x": pair and pair[0], "y": pair and pair[1]})
        for i, pair in enumerate(pairs)
    ]  # fmt: skip
    for row in Passage(pipeline, "user").feed(cut(sent)).rows:
        of_vector = {name: value for name, value in row.items() if name.startswith("v_")}
        assert of_vector == {name.removeprefix("col_"): value for name, value in row.items() if name.startswith("col_")}
        assert len(of_vector) == 2 * 2 * 5


def test_features_of_texts_booleans_and_buckets_have_their_types() -> None:
    fields = {"id": "string", "at_ms": "int64", "user": "string?", "shop": "string?", "ok": "bool?", "n": "int64?"}
    groups: list[dict[str, Any]] = [
        {"entity": "user", "of": "shop", "take": ["last", {"unique": 2}, {"top_k": 1}, "count"], "over": ["lifetime"]},
        {"entity": "user", "of": "ok", "take": ["distinct", {"unique": 2}, {"top_k": 1}, "mean"], "over": ["lifetime"]},
        {"entity": "user", "of": "n", "take": [{"unique": 2}, {"top_k": 1}], "over": ["lifetime"]},
        {"entity": "user", "of": "n", "take": ["std", {"first_n": 2}], "over": ["lifetime"], "by": "shop"},
    ]
    pipeline = small_pipeline(contract={"id": "id", "time": "at_ms", "fields": fields}, features=groups)
    values = [("b", True, 3), ("a", None, None), (None, False, 5), ("a", True, 4), ("b", True, 3)]
    sent = [Sent(EVENTS, "u", {"id": f"p{i}", "at_ms": i, "user": "u", "shop": shop, "ok": ok, "n": n})
            for i, (shop, ok, n) in enumerate(values)]  # fmt: skip
    passed = Passage(pipeline, "user")
    passed.feed(cut(sent))
    types = {field.name: field.type for field in passed._rows[0].schema if field.name.startswith("user_")}
    assert types["user_shop_last_lifetime"] == pa.string()
    assert types["user_shop_unique_2_lifetime"] == pa.list_(pa.string())
    assert types["user_ok_unique_2_lifetime"] == pa.list_(pa.float64())
    assert types["user_n_by_shop_std_lifetime"] == pa.map_(pa.string(), pa.float64())
    last = {name.removesuffix("_lifetime"): value for name, value in passed.rows[-1].items()}
    assert last["user_shop_last"] == "b"
    assert (last["user_shop_unique_2"], last["user_shop_top_k_1"], last["user_shop_count"]) == (["a", "b"], ["a"], 4)
    assert (last["user_ok_distinct"], last["user_ok_unique_2"], last["user_ok_top_k_1"]) == (2.0, [0.0, 1.0], ["1"])
    assert (last["user_n_unique_2"], last["user_n_top_k_1"], last["user_ok_mean"]) == ([3.0, 4.0], ["3"], 0.75)
    assert last["user_n_by_shop_std"] == [("a", None), ("b", 0.0)]
    assert last["user_n_by_shop_first_n_1"] == [("a", 4.0), ("b", 3.0)]
    assert last["user_n_by_shop_first_n_2"] == [("a", None), ("b", 3.0)]
