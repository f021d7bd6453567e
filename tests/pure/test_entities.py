"""Entities of several fields: one key for each combination and no other, null where a part is; features by the pair."""

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import EVENTS, FLIGHTS, Passage, cut, payment, random_payments, raw_batch, small_pipeline
from udfs.core.plan.features import plan_stages
from udfs.core.rows.entities import add_entity
from udfs.core.rows.ingest import Ingest
from udfs.core.rows.lanes import split_by_lane

PAIR: dict[str, Any] = {"entity": ["user", "shop"], "of": "amount", "take": ["count", "sum"], "over": ["4s"]}
parts = st.lists(
    st.tuples(*[st.none() | st.text(alphabet="a|\\ü", max_size=4)] * 3), min_size=1, max_size=40
)  # fmt: skip


def keys_of(rows: list[tuple[str | None, ...]]) -> list[str | None]:
    columns = {name: pa.array(column, pa.string()) for name, column in zip("xyz", zip(*rows, strict=True), strict=True)}
    keyed = add_entity(pa.RecordBatch.from_pydict(columns), "x_y_z", ("x", "y", "z"))
    return list(keyed["x_y_z"].to_pylist())


@given(parts)
def test_two_rows_have_one_key_only_if_all_parts_are_the_same(rows: list[tuple[str | None, ...]]) -> None:
    for row, key in zip(rows, keys_of(rows), strict=True):
        assert (key is None) == (None in row)
    whole = [row for row in rows if None not in row]
    assert len(set(keys_of(whole) if whole else [])) == len(set(whole))


def test_separators_within_parts_are_told_from_those_between() -> None:
    assert keys_of([("a|b", "c", ""), ("a", "b|c", ""), ("a\\", "b", "c"), ("a", "\\b", "c")]) == [
        "a\\|b|c|", "a|b\\|c|", "a\\\\|b|c", "a|\\\\b|c",
    ]  # fmt: skip


def test_one_field_is_its_own_key_and_a_key_that_is_there_stays() -> None:
    rows = pa.RecordBatch.from_pydict({"user": ["a|b"], "shop": ["c"]})
    assert add_entity(rows, "user", ("user",)) is rows
    added = add_entity(rows, "user_shop", ("user", "shop"))
    assert add_entity(added, "user_shop", ("user", "shop")) is added


def test_features_of_a_pair_are_those_of_a_field_that_says_both() -> None:
    """The same payments, once by two fields and once with the pair written into the one field."""
    sent = [one for one in random_payments(3, 200) if one.row["user"] is not None]
    pair, single = small_pipeline(features=[PAIR]), small_pipeline(features=[PAIR | {"entity": "shop", "as": "one"}])
    both = [
        payment(number, one.row["at_ms"], one.row["user"], amount=one.row["amount"],
                shop=one.row["shop"] and f"{one.row['user']}/{one.row['shop']}")
        for number, one in enumerate(sent)
    ]  # fmt: skip
    sent = [payment(i, one.row["at_ms"], one.row["user"], amount=one.row["amount"], shop=one.row["shop"])
            for i, one in enumerate(sent)]  # fmt: skip
    passed = Passage(pair, "user_shop").feed(cut(sent, range(0, 200, 30)))
    expected = Passage(single, "shop").feed(cut(both)).rows
    assert [row["id"] for row in passed.rows] == [row["id"] for row in expected]
    for name in ("count", "sum"):
        found = [row[f"user_shop_amount_{name}_4s"] for row in passed.rows]
        assert found == [row[f"one_{name}_4s"] for row in expected]
    assert {row["user_shop_amount_count_4s"] for row in passed.rows if row["shop"] is None} == {None}
    assert {"_lane_user_shop", "_seq_user_shop", "user_shop"} <= set(passed.rows[0])


def test_a_late_row_names_the_pair() -> None:
    sent = [payment(0, 50_000, "a|b", shop="s"), payment(1, 48_000, "a|b", shop="s"), payment(2, 48_000, "a", shop="s")]
    passed = Passage(small_pipeline(features=[PAIR]), "user_shop").feed(cut(sent))
    assert [letter["detail"] for letter in passed.letters] == [
        r"event time 48000 is 2000 ms behind the newest of user_shop='a\\|b|s'"
    ]
    assert [row["id"] for row in passed.rows] == ["p0", "p2"]


def test_a_pair_has_a_stage_of_its_own_behind_that_of_the_kafka_key() -> None:
    pipeline = small_pipeline(features=[PAIR, PAIR | {"of": "units"}, PAIR | {"entity": "shop"}])
    assert [(stage.entity, stage.fields) for stage in plan_stages(pipeline)] == [
        ("user", ("user",)), ("user_shop", ("user", "shop")), ("shop", ("shop",)),
    ]  # fmt: skip


def test_all_rows_of_a_pair_share_a_lane() -> None:
    pipeline = small_pipeline(features=[PAIR])
    piece = Ingest.of_source(pipeline, FLIGHTS).process(raw_batch(EVENTS, random_payments(4, 200)))
    rows = add_entity(piece.rows, "user_shop", ("user", "shop"))
    lanes: dict[str | None, set[int]] = {}
    for lane, share in split_by_lane(piece.with_rows(rows), "user_shop", 4):
        for row in share.rows.to_pylist():
            lanes.setdefault(row["user_shop"], set()).add(lane)
    assert {len(seen) for seen in lanes.values()} == {1}
    assert len(lanes) > 8
