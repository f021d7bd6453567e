"""Online rows: one per key, the newest by event time and then by sequence number, and what a schema says of them."""

import json
import random
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from tests.samples import FLIGHTS, RATE_JOIN, SHOP_FEATURES, Passage, cut, payment, rate, small_pipeline
from udfs.core.declare.catalog import CATALOG
from udfs.core.declare.definition import Pipeline
from udfs.core.offline.featurize import featurize_offline
from udfs.core.online.schema import Expiry, OnlineStoreError, values_decoder
from udfs.core.online.tables import OnlineRow, OnlineTable, online_schema, online_tables, row_texts, type_name

COLUMNS = ("shop_amount_count_1s", "shop_amount_mean_1s", "rate", "is_open")
NOTHING = dict.fromkeys(COLUMNS)
SECOND = 1_000


def shop_pipeline() -> Pipeline:
    return small_pipeline(enrichments=[RATE_JOIN], features=[{**SHOP_FEATURES[0], "over": ["1s"]}])


def table() -> OnlineTable:
    (one,) = online_tables(shop_pipeline(), "store")
    return one


SCHEMA = pa.schema(
    [
        pa.field("at_ms", pa.int64()),
        pa.field("shop", pa.string()),
        *(pa.field(name, pa.float64()) for name in COLUMNS),
        pa.field("_lane_shop", pa.int32()),
        pa.field("_seq_shop", pa.int64()),
    ]
)


def scored(*rows: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([NOTHING | {"_lane_shop": 0} | row for row in rows], schema=SCHEMA)


def row(seq: int, at_ms: int, shop: str | None, count: float | None = None) -> dict[str, Any]:
    return {"_seq_shop": seq, "at_ms": at_ms, "shop": shop, "shop_amount_count_1s": count}


def found(*rows: dict[str, Any]) -> list[OnlineRow]:
    one = table()
    return one.rows(one.newest(scored(*rows)))


@pytest.mark.parametrize(
    ("rows", "wins"),
    [
        ([row(0, 10, "s"), row(1, 20, "s")], (20, 1)),
        ([row(0, 20, "s"), row(1, 10, "s")], (20, 0)),  # an older event that comes later changes nothing
        ([row(1, 10, "s"), row(0, 10, "s")], (10, 1)),
        ([row(7, -20, "s"), row(8, -30, "s")], (-20, 7)),
    ],
)
def test_the_newest_event_wins_and_then_the_later_number(rows: list[dict[str, Any]], wins: tuple[int, int]) -> None:
    (one,) = found(*rows)
    assert (one.event_time_ms, one.seq) == wins


def test_no_order_of_the_rows_changes_what_is_written() -> None:
    chance = random.Random(4)
    rows = [row(seq, chance.randrange(20), chance.choice("abcde"), float(seq)) for seq in range(60)]
    expected = {
        shop: max((one for one in rows if one["shop"] == shop), key=lambda one: (one["at_ms"], one["_seq_shop"]))
        for shop in "abcde"
    }
    for _ in range(5):
        chance.shuffle(rows)
        written = {one.key: (one.event_time_ms, one.seq, json.loads(one.values)[0]) for one in found(*rows)}
        assert written == {
            f"store:shop:{{{shop}}}": (one["at_ms"], one["_seq_shop"], one[COLUMNS[0]])
            for shop, one in expected.items()
        }


def test_values_are_json_that_gives_the_same_double_back() -> None:
    values = {"shop_amount_count_1s": 3.0, "shop_amount_mean_1s": 0.1 + 0.2, "rate": None, "is_open": -0.0}
    assert found(row(5, 10, "s ü") | values) == [
        OnlineRow("store:shop:{s ü}", 10, 5, b"[3.0,0.30000000000000004,null,-0.0]", table().ttl_ms)
    ]


def test_a_null_key_and_an_empty_batch_write_nothing() -> None:
    assert found() == []
    assert found(row(0, 10, None)) == []
    assert [one.key for one in found(row(0, 10, None), row(1, 10, "s"))] == ["store:shop:{s}"]


def test_rows_of_another_pipeline_are_refused_by_the_names_of_what_they_lack() -> None:
    with pytest.raises(OnlineStoreError, match=r"lack _seq_shop, rate; they must come from the featurize stages"):
        table().newest(scored(row(0, 10, "s")).drop_columns(["_seq_shop", "rate"]))


def test_the_schema_says_type_expiry_and_empty_value_of_each_column() -> None:
    schema = online_schema((table(),), "f" * 16, SCHEMA)
    assert list(schema.entities) == ["shop"]
    by_name = {column.name: column for column in schema.entities["shop"]}
    assert tuple(by_name) == COLUMNS
    assert {column.type for column in by_name.values()} == {"float64"}
    assert by_name["shop_amount_count_1s"].empty == 0.0
    assert by_name["shop_amount_mean_1s"].empty is None
    assert by_name["rate"].expiry == Expiry(reach_ms=2 * SECOND)
    assert by_name["shop_amount_mean_1s"].expiry.tile_ms == SECOND


def test_the_version_of_a_schema_follows_its_content() -> None:
    one = online_schema((table(),), "f" * 16, SCHEMA)
    assert one.version == online_schema((table(),), "f" * 16, SCHEMA).version
    others = [
        online_schema((table(),), "0" * 16, SCHEMA),
        online_schema((replace(table(), empties=(None,) * 4),), "f" * 16, SCHEMA),
        online_schema((table(),), "f" * 16, SCHEMA.set(2, pa.field(COLUMNS[0], pa.int64()))),
    ]
    assert len({one.version, *(other.version for other in others)}) == 4


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (pa.timestamp("ms"), r"timestamp\[ms\]"),
        (pa.float32(), "float"),
        (pa.list_(pa.list_(pa.int64())), "list<item: list"),
        (pa.list_(pa.map_(pa.string(), pa.int64())), "list<item: map"),
        (pa.map_(pa.float64(), pa.int64()), "map<double"),
    ],
)
def test_a_type_that_would_not_come_back_as_it_was_is_refused(kind: pa.DataType, said: str) -> None:
    types = SCHEMA.set(2, pa.field(COLUMNS[0], kind))
    with pytest.raises(OnlineStoreError, match=rf"column 'shop_amount_count_1s' is {said}.*; the store holds float64"):
        online_schema((table(),), "f" * 16, types)


@pytest.mark.parametrize(
    ("kind", "name", "values", "written"),
    [
        (pa.string(), "string", ["", 'ü"\n', None], ['""', '"ü\\"\\n"', "null"]),
        (pa.large_string(), "string", ["a"], ['"a"']),
        (pa.dictionary(pa.int8(), pa.string()), "string", ["a", None], ['"a"', "null"]),
        (pa.int64(), "int64", [2**63 - 1, None], ["9223372036854775807", "null"]),
        (pa.bool_(), "bool", [True, None], ["true", "null"]),
        (pa.float64(), "float64", [float("inf"), float("nan"), 1e300], ["null", "null", "1e300"]),
        (pa.list_(pa.float64()), "list<float64>", [[0.1, None], [], None], ["[0.1,null]", "[]", "null"]),
        (pa.large_list(pa.string()), "list<string>", [["b", "a"]], ['["b","a"]']),
        (pa.map_(pa.string(), pa.float64()), "map<string, float64>", [[("b", 1.0), ("a", None)], []],
         ['{"b":1.0,"a":null}', "{}"]),
    ],
)  # fmt: skip
def test_other_types_are_json(kind: pa.DataType, name: str, values: list[Any], written: list[str]) -> None:
    assert type_name(kind, "c") == name
    rows = pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["c"])
    assert row_texts(rows, ["c"]) == [f"[{text}]".encode() for text in written]


def test_rows_without_columns_are_empty_arrays() -> None:
    assert row_texts(scored(row(0, 10, "s"), row(1, 11, "t")), []) == [b"[]", b"[]"]


# The rule of expiry against the kernels: a probe that does not count itself finds nothing just when the rule says so.
WINDOWS: dict[str, Any] = {
    "3s": "3s", "3s_delay_2s": {"sliding": "3s", "delay": "2s"},
    "tumbling_7s": {"tumbling": "7s"}, "session_2s": {"session": "2s"},
}  # fmt: skip


@pytest.mark.parametrize("suffix", WINDOWS)
def test_a_window_has_drained_just_when_the_engine_finds_it_empty(suffix: str) -> None:
    group = {"entity": "user", "take": ["count"], "over": [WINDOWS[suffix]], "include_event": False}
    features = [group | ({"slide": "1s"} if suffix.startswith("3s") else {})]
    pipeline = small_pipeline(features=features, time={"forget_idle_after": "7d"})
    (one,) = online_tables(pipeline, "p")
    (expiry,) = one.expiries
    delay_ms = 2 * SECOND if "delay" in suffix else 0
    chance = random.Random(11)
    # In steps of 100 ms, so that the edges themselves are met.
    times_ms = [(t := chance.randrange(0, 20_000, 100), t + chance.randrange(0, 12_000, 100)) for _ in range(400)]
    sent = [payment(2 * i + n, at, f"u{i}") for i, pair in enumerate(times_ms) for n, at in enumerate(pair)]
    counts = {row["id"]: row[f"user_count_{suffix}"] for row in Passage(pipeline, "user").feed(cut(sent)).rows}
    judged = []
    for i, (event_ms, now_ms) in enumerate(times_ms):
        if now_ms < event_ms + delay_ms + (SECOND if delay_ms else 0):
            assert not expiry.lapsed(event_ms, now_ms), "what has not entered a delayed window yet is still to come"
            continue
        judged.append(expiry.lapsed(event_ms, now_ms))
        assert (counts[f"p{2 * i + 1}"] == 0) == judged[-1], (event_ms, now_ms)
    assert 50 < sum(judged) < len(judged) - 50


def test_a_joined_row_is_stale_at_the_latest_when_its_event_is_older_than_it_may_be() -> None:
    """Its own time is not kept, so it is returned for at most `max_age` longer than a new event would get it."""
    (one,) = online_tables(shop_pipeline(), "p")
    expiry = dict(zip(one.columns, one.expiries, strict=True))["rate"]
    chance = random.Random(12)
    rates_sent, sent, probes = [], [], []
    for i in range(200):
        event_ms = chance.randrange(10_000)
        seen_ms, now_ms = event_ms - chance.randrange(2 * SECOND), event_ms + chance.randrange(6 * SECOND)
        rates_sent.append(rate(f"s{i}", seen_ms, 1.0))
        sent.append(payment(i, now_ms, "u", shop=f"s{i}"))
        probes.append((f"p{i}", event_ms, seen_ms, now_ms))
    pipeline = small_pipeline(
        enrichments=[RATE_JOIN], features=[{**SHOP_FEATURES[0], "over": ["1s"]}], time={"forget_idle_after": "7d"}
    )
    rates = {row["id"]: row["rate"] for row in Passage(pipeline, "shop").feed(cut([*rates_sent, *sent])).rows}
    lapsed = [name for name, event_ms, _, now_ms in probes if expiry.lapsed(event_ms, now_ms)]
    assert 20 < len(lapsed) < 180
    assert [name for name in lapsed if rates[name] is not None] == []
    for name, event_ms, seen_ms, now_ms in probes:
        if rates[name] is None and not expiry.lapsed(event_ms, now_ms):
            assert now_ms - seen_ms <= 2 * RATE_MAX_AGE_MS


def test_the_empty_value_of_every_feature_is_what_the_engine_gives_without_an_event() -> None:
    """Read by a probe that does not count itself, once before all events and once long after them."""
    group = {"entity": "user", "include_event": False, "over": ["3s"], "slide": "1s"}
    numbers: list[Any] = [name for name, one in CATALOG.items() if one.argument == "none"]
    features: list[Any] = [
        {**group, "of": "amount", "take": [*numbers, {"quantile": 0.5}, {"unique": 3}, {"histogram": [0, 5]}]},
        {**group, "of": "shop", "take": ["distinct", "first", {"top_k": 2}, {"unique": 2}]},
        {**group, "of": "amount", "by": "shop", "take": ["sum", "count"]},
    ]
    pipeline = small_pipeline(features=features, time={"forget_idle_after": "7d"})
    (one,) = online_tables(pipeline, "p")
    sent = [payment(i, at_ms, "u", shop="s", amount=2.5) for i, at_ms in enumerate((1_000, 2_000, 90_000))]
    rows = featurize_offline(pipeline, FLIGHTS, cut(sent)).rows.combine_chunks()
    schema = online_schema((one,), "f" * 16, rows.schema)
    texts = row_texts(rows.to_batches()[0], one.columns)
    decode = values_decoder([column.type for column in schema.entities["user"]]).decode
    before, between, after = (dict(zip(one.columns, decode(text), strict=True)) for text in texts)
    assert before == after == dict(zip(one.columns, one.empties, strict=True))
    assert sum(between[name] != before[name] for name in one.columns) > 15


RATE_MAX_AGE_MS = 2 * SECOND


def test_a_key_lives_until_nothing_of_its_event_is_within_reach_and_the_lateness_on_top() -> None:
    over = ["4s", {"sliding": "3s", "delay": "1d"}, {"tumbling": "5s"}, {"session": "2s"}, {"last": 3}, "lifetime"]
    features = [{"entity": "user", "take": ["count"], "over": over, "slide": "1s"}]
    (one,) = online_tables(small_pipeline(features=features, time={"forget_idle_after": "2d"}), "p")
    lateness_ms = 3_600_000
    for event_ms in range(0, 30_000, 77):
        assert all(expiry.lapsed(event_ms, event_ms + one.ttl_ms - lateness_ms) for expiry in one.expiries)
    assert one.ttl_ms - lateness_ms <= 2 * 86_400_000 + 10_000, "and not much longer"
    assert online_tables(shop_pipeline(), "p")[0].ttl_ms == 2 * SECOND + 1 + 1_500
