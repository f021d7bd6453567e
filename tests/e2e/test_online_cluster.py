"""The online store on a real Redis Cluster: job, backfill and readers, with rows on every node."""

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.e2e.redis_server import redis_cluster
from tests.samples import SHOP_FEATURES, small_pipeline
from udfs.core.online.tables import online_schema, online_tables
from udfs.online.backfill import Written, write_online
from udfs.online.reader import AsyncOnlineStore, FeatureRow, OnlineStore
from udfs.online.writer import OnlineWriter

PIPELINE = small_pipeline(features=[{**SHOP_FEATURES[0], "take": ["count"], "over": ["1s"]}])
COLUMN = "shop_amount_count_1s"
SHOPS: list[Any] = [f"s{number}" for number in range(300)]


def rows(at_ms: int, value: float) -> pa.RecordBatch:
    columns = {"shop": SHOPS, "at_ms": [at_ms] * 300, "_seq_shop": list(range(300)), COLUMN: [value] * 300}
    return pa.RecordBatch.from_pydict(columns)


async def as_a_job(url: str, batch: pa.RecordBatch) -> int:
    tables = online_tables(PIPELINE, "p")
    writer = OnlineWriter(url, "p", started_ms=1)
    writer.begin(online_schema(tables, "f" * 16, batch.schema))
    for table in tables:
        writer.add(table.rows(table.newest(batch)))
    await writer.flush()
    assert writer.waiting_rows == writer.dropped_rows == 0
    return writer.fenced_rows


async def read(url: str) -> list[FeatureRow]:
    async with AsyncOnlineStore.connect(url, "p") as store:
        return await store.read("shop", SHOPS, now_ms=5)


def test_rows_are_fenced_and_read_on_all_nodes(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as nodes:
        url = f"redis://127.0.0.1:{nodes[1].get_connection_kwargs()['port']}/0?cluster=true"
        assert asyncio.run(as_a_job(url, rows(5, 1.0))) == 0
        assert write_online(url, "p", PIPELINE, "f" * 16, [rows(4, 2.0)]) == Written(written=0, fenced=300)
        held = [len(list(node.scan_iter("p:shop:*"))) for node in nodes]
        assert sum(held) == 300
        assert min(held) > 50
        with OnlineStore.connect(url, "p") as store:
            found = store.read("shop", SHOPS, now_ms=5)
            assert [row.values for row in found] == [{COLUMN: 1.0}] * 300
            assert store.read("shop", "s7", now_ms=5) == found[7]
            assert asyncio.run(read(url)) == found
            assert write_online(url, "p", PIPELINE, "e" * 16, [rows(5, 3.0)]) == Written(written=300, fenced=0)
            again = store.read("shop", SHOPS, now_ms=5)
        assert {(row.values[COLUMN], row.feature_set) for row in again} == {(3.0, "e" * 16)}
