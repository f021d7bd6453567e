"""Online rows: one per key, the newest by event time and then by sequence number, whatever the order of the batch."""

import random
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from tests.pure.samples import RATE_JOIN, SHOP_FEATURES, small_pipeline
from udfs.core.features import Stage, plan_stages
from udfs.core.online import OnlineRow, newest_rows

COLUMNS = ("shop_amount_count_1s", "shop_amount_mean_1s", "rate", "is_open")
NOTHING = dict.fromkeys(COLUMNS)


def stage() -> Stage:
    features = [{**SHOP_FEATURES[0], "over": ["1s"]}]
    pipeline = small_pipeline(enrichments=[RATE_JOIN], features=features)
    return next(one for one in plan_stages(pipeline) if one.entity == "shop")


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
    return newest_rows(scored(*rows), stage(), "at_ms", "store")


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
        written = {one.key: (one.event_time_ms, one.seq, one.values[COLUMNS[0]]) for one in found(*rows)}
        assert written == {
            f"store:shop:{{{shop}}}": (one["at_ms"], one["_seq_shop"], repr(one[COLUMNS[0]]))
            for shop, one in expected.items()
        }


def test_values_are_text_that_gives_the_same_double_back_and_null_is_empty() -> None:
    values = {"shop_amount_count_1s": 3.0, "shop_amount_mean_1s": 0.1 + 0.2, "rate": None, "is_open": 1.0}
    (one,) = found(row(5, 10, "s ü") | values)
    assert one == OnlineRow(
        key="store:shop:{s ü}",
        event_time_ms=10,
        seq=5,
        values={
            "shop_amount_count_1s": "3.0", "shop_amount_mean_1s": "0.30000000000000004", "rate": "", "is_open": "1.0",
        },
    )  # fmt: skip


def test_a_null_key_and_an_empty_batch_write_nothing() -> None:
    assert found() == []
    assert found(row(0, 10, None)) == []
    assert [one.key for one in found(row(0, 10, None), row(1, 10, "s"))] == ["store:shop:{s}"]


def test_a_stage_without_columns_writes_nothing_but_its_order() -> None:
    bare = replace(stage(), features=(), enrichments=())
    (one,) = newest_rows(scored(row(3, 10, "s")), bare, "at_ms", "store")
    assert one == OnlineRow("store:shop:{s}", 10, 3, {})
