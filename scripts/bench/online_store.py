"""How fast online rows are read and written, beside bare redis-py on the same server; what is read is checked first.

python -m scripts.bench.online_store --url redis://127.0.0.1:6379/0
"""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from redis import Redis
from rich.console import Console
from rich.table import Table

from udfs.core.declare.definition import Pipeline
from udfs.core.online.schema import row_key
from udfs.core.online.tables import online_schema, online_tables
from udfs.core.plan.features import plan_stages
from udfs.online.backfill import write_online
from udfs.online.fence import SLICE_ROWS, WRITE, Writer
from udfs.online.reader import AsyncOnlineStore, FeatureRow, OnlineStore

AT_MS, SEED, WARM_UP, ROUNDS = 1_700_000_000_000, 7, 200, 5
TAKES, SIZES = ["count", "sum", "mean", "min", "max"], ["1m", "2m", "5m", "10m", "30m", "1h", "2h", "6h", "12h", "1d"]


@dataclass(frozen=True, slots=True)
class Measured:
    """Latencies of one way to read, in milliseconds."""

    name: str
    keys_per_read: int
    latencies_ms: list[float]

    def quantile(self, share: float) -> float:
        """Return the latency that this share of the reads stays within."""
        return sorted(self.latencies_ms)[min(int(len(self.latencies_ms) * share), len(self.latencies_ms) - 1)]

    @property
    def keys_per_s(self) -> float:
        """Keys read per second, one read after the other."""
        return self.keys_per_read * 1000 / statistics.mean(self.latencies_ms)


def bench_pipeline(prefix: str) -> Pipeline:
    """Return a pipeline of one entity with 50 windowed features."""
    topics = {name: {"topic": f"bench.{name}"} for name in ("predictions", "rejects", "late", "order")}
    return Pipeline.model_validate(
        {
            "name": "bench",
            "source": {"topic": "bench.events", "key": "user"},
            "contract": {
                "id": "id", "time": "at_ms",
                "fields": {"id": "string", "at_ms": "int64", "user": "string", "amount": "float64"},
            },
            "features": [{"entity": "user", "of": "amount", "take": TAKES, "over": SIZES, "slide": "1m"}],
            "model": {"name": "none"},
            "sinks": topics | {"online_store": {"prefix": prefix}},
        }
    )  # fmt: skip


def featurized(pipeline: Pipeline, keys: Sequence[str]) -> pa.Table:
    """Return one row per key, random doubles with a twentieth of nulls."""
    chance = np.random.default_rng(SEED)
    columns = {"user": pa.array(keys), "at_ms": pa.array(np.full(len(keys), AT_MS)), "_seq_user": np.arange(len(keys))}
    for feature in plan_stages(pipeline)[0].features:
        values = chance.normal(100.0, 1e6, len(keys))
        columns[feature.name] = pa.array(values, mask=chance.random(len(keys)) < 0.05)
    return pa.table(columns)


def check(url: str, prefix: str, rows: pa.Table) -> None:
    """Exit unless sync and async reader give every value bit for bit."""
    wanted = [
        {name: value for name, value in row.items() if name not in ("user", "at_ms", "_seq_user")}
        for row in rows.to_pylist()
    ]
    keys = rows["user"].to_pylist()

    async def read() -> list[FeatureRow]:
        async with AsyncOnlineStore.connect(url, prefix) as store:
            found: list[FeatureRow] = await store.read("user", keys, now_ms=AT_MS)
            return found

    with OnlineStore.connect(url, prefix) as store:
        for found in (store.read("user", keys, now_ms=AT_MS), asyncio.run(read())):
            if repr([row.values for row in found]) != repr(wanted):
                msg = "the reader gives other values than were written"
                raise SystemExit(msg)


async def measure(url: str, prefix: str, keys: Sequence[str], reads: int) -> list[Measured]:
    """Measure each way to read, in turns, so that a busy moment of the machine hits all of them."""
    client, store = Redis.from_url(url), OnlineStore.connect(url, prefix)
    async_store = AsyncOnlineStore.connect(url, prefix)

    async def hgetall(drawn: Sequence[str]) -> object:
        if len(drawn) == 1:
            return client.hgetall(f"{prefix}:hash:{drawn[0]}")
        pipeline = client.pipeline(transaction=False)
        for key in drawn:
            pipeline.hgetall(f"{prefix}:hash:{key}")
        return pipeline.execute()

    async def mget(drawn: Sequence[str]) -> object:
        return client.mget([row_key(prefix, "user", key) for key in drawn])

    async def read(drawn: Sequence[str]) -> object:
        return store.read("user", drawn, now_ms=AT_MS)

    async def read_async(drawn: Sequence[str]) -> object:
        return await async_store.read("user", drawn, now_ms=AT_MS)

    ways = {"redis-py HGETALL": hgetall, "redis-py MGET": mget, "OnlineStore": read, "AsyncOnlineStore": read_async}
    measured = [Measured(name, keys_per_read, []) for keys_per_read in (1, 100) for name in ways]
    for turn in range(ROUNDS):
        for one in measured:
            chance, count = random.Random(turn), reads if one.keys_per_read == 1 else max(reads // 20, 50)
            drawn = [chance.choices(keys, k=one.keys_per_read) for _ in range(count // ROUNDS)]
            one.latencies_ms.extend(await _timed(ways[one.name], drawn))
    await async_store.close()
    store.close()
    client.close()
    return measured


async def _timed(way: Callable[[Sequence[str]], Awaitable[object]], drawn: Sequence[Sequence[str]]) -> list[float]:
    latencies_ms = []
    for keys in drawn[:WARM_UP]:
        await way(keys)
    for keys in drawn:
        begun_ns = time.perf_counter_ns()
        await way(keys)
        latencies_ms.append((time.perf_counter_ns() - begun_ns) / 1e6)
    return latencies_ms


async def _at_once(url: str, prefix: str, keys: Sequence[str], reads: int, readers: int) -> float:
    """Return keys read per second by that many coroutines of one process."""
    async with AsyncOnlineStore.connect(url, prefix) as store:

        async def read(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(reads // readers):
                await store.read("user", chance.choice(keys), now_ms=AT_MS)

        begun_s = time.perf_counter()
        await asyncio.gather(*(read(seed) for seed in range(readers)))
        return reads // readers * readers / (time.perf_counter() - begun_s)


def write(url: str, prefix: str, pipeline: Pipeline, rows: pa.Table) -> dict[str, float]:
    """Write the rows fenced, and plainly as hashes with a field per feature; return rows per second.

    Texts are made beforehand, except in `write_online`.
    """
    (table,), rates = online_tables(pipeline, prefix), {}

    def timed(name: str, write_rows: Callable[[], object]) -> None:
        begun_s = time.perf_counter()
        write_rows()
        rates[name] = rows.num_rows / (time.perf_counter() - begun_s)

    hashes = [
        {name: "" if value is None else repr(value) for name, value in row.items()}
        for row in rows.select(table.columns).to_pylist()
    ]
    found = table.rows(table.newest(rows.combine_chunks().to_batches()[0]))
    with Redis.from_url(url) as client:
        script = str(client.script_load(WRITE))
        writer = Writer(prefix, 1, 0, online_schema((table,), "bench", rows.schema))

        def slices(queue: Callable[[Any, int, int], object]) -> None:
            for start in range(0, rows.num_rows, SLICE_ROWS):
                pipe = client.pipeline(transaction=False)
                queue(pipe, start, start + SLICE_ROWS)
                pipe.execute()

        def queue_hashes(pipe: Any, start: int, end: int) -> None:
            for key, fields in zip(rows["user"][start:end].to_pylist(), hashes[start:end], strict=True):
                pipe.hset(f"{prefix}:hash:{key}", mapping=fields)

        timed("redis-py HSET", lambda: slices(queue_hashes))
        timed("fenced", lambda: slices(lambda pipe, start, end: writer.queue(pipe, script, found[start:end])))
    timed("write_online", lambda: write_online(url, prefix, pipeline, "bench", rows))
    return rates


def main(
    url: Annotated[str, typer.Option(help="Redis; keys of a prefix of its own are written, and deleted at the end.")],
    keys: Annotated[int, typer.Option(help="Entity keys.")] = 10_000,
    reads: Annotated[int, typer.Option(help="Single reads per way; a twentieth of it of 100 keys.")] = 20_000,
) -> None:
    """Write rows of 50 features, check what is read, measure, print."""
    prefix, console = f"bench-{os.getpid()}", Console()
    pipeline, names = bench_pipeline(prefix), [f"user-{number}" for number in range(keys)]
    rows = featurized(pipeline, names)
    try:
        rates = write(url, prefix, pipeline, rows)
        check(url, prefix, rows)
        measured = asyncio.run(measure(url, prefix, names, reads))
        at_once = asyncio.run(_at_once(url, prefix, names, reads, 32))
        with Redis.from_url(url) as client:
            info: Any = client.info()
    finally:
        with Redis.from_url(url) as client:
            for key in client.scan_iter(f"{prefix}:*", count=1_000):
                client.unlink(key)
    heads = ("way", "keys", "p50 ms", "p99 ms", "p99.9 ms", "keys/s", "to HGETALL")
    table = Table(*heads, box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for one in measured:
        ratio = one.quantile(0.5) / next(m for m in measured if m.keys_per_read == one.keys_per_read).quantile(0.5)
        cells = [f"{one.quantile(share):.3f}" for share in (0.5, 0.99, 0.999)]
        table.add_row(one.name, str(one.keys_per_read), *cells, f"{one.keys_per_s:,.0f}", f"{ratio:.2f}")
    console.print(table)
    console.print(f"AsyncOnlineStore, 32 reads of one key at once: {at_once:,.0f} keys/s")
    console.print("rows written/s:", ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()))
    where = f"Redis {info['redis_version']}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    console.print(f"{keys:,} keys of 50 features, {where}")


if __name__ == "__main__":
    typer.run(main)
