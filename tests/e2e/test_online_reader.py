"""The reader against a real Redis: what a backfill wrote, in one round trip, typed, with age and drained windows."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from redis import Connection, ConnectionPool, Redis
from redis.asyncio import Connection as AsyncConnection
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.e2e.redis_server import free_port, redis_server
from tests.samples import (
    FLIGHTS,
    RATE_JOIN,
    SHOP_FEATURES,
    cut,
    payment,
    random_payments,
    small_pipeline,
    with_rates,
)
from udfs.core.offline.featurize import featurize_offline
from udfs.core.online.schema import OnlineStoreError
from udfs.core.plan.features import plan_stages
from udfs.online.backfill import write_online
from udfs.online.reader import AsyncOnlineStore, OnlineStore

USER_SHOP = {"entity": ["user", "shop"], "of": "units", "take": ["sum"], "over": ["1d"]}
PIPELINE = small_pipeline(
    enrichments=[RATE_JOIN], features=[*SHOP_FEATURES, {"entity": "user", "take": ["count"], "over": ["4s"]}, USER_SHOP]
)
FEATURE_SET = "f" * 16


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    number = free_port()
    with redis_server(number):
        yield number


@pytest.fixture(scope="module")
def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def featurized(sent: list[Any], pipeline: Any = PIPELINE) -> pa.Table:
    return featurize_offline(pipeline, FLIGHTS, cut(sent)).rows


@pytest.fixture(scope="module")
def rows(url: str) -> pa.Table:
    """Rows that stand in the store under the prefix `p`."""
    found = featurized(with_rates(random_payments(5, 400), 6))
    write_online(url, "p", PIPELINE, FEATURE_SET, found)
    return found


def newest(rows: pa.Table, entity: str) -> dict[str, dict[str, Any]]:
    """Return the last row of each key, found the plain way."""
    ordered = sorted(rows.to_pylist(), key=lambda row: (row["at_ms"], row[f"_seq_{entity}"]))
    return {row[entity]: row for row in ordered if row[entity] is not None}


def test_every_value_is_that_of_the_last_row_bit_for_bit(url: str, rows: pa.Table) -> None:
    async def read_all(entity: str, keys: list[Any], now_ms: int) -> list[Any]:
        async with AsyncOnlineStore.connect(url, "p") as store:
            return await store.read(entity, keys, now_ms=now_ms)

    with OnlineStore.connect(url, "p") as store:
        for stage in plan_stages(PIPELINE):
            names = [one.name for one in stage.features] + [name for one in stage.enrichments for name in one.take]
            for key, row in newest(rows, stage.entity).items():
                found = store.read(stage.entity, key, now_ms=row["at_ms"] + 3)
                assert repr(found.values) == repr({name: row[name] for name in names})
                assert (found.key, found.event_time_ms, found.age_ms) == (key, row["at_ms"], 3)
                assert not found.drained
                assert found.feature_set == FEATURE_SET
                assert asyncio.run(read_all(stage.entity, [key], row["at_ms"] + 3)) == [found]
    assert {stage.entity for stage in plan_stages(PIPELINE)} == {"user", "shop", "user_shop"}
    assert all(newest(rows, entity) for entity in ("user", "shop", "user_shop"))


def test_keys_come_back_in_their_order_with_empty_values_for_those_without_a_row(url: str, rows: pa.Table) -> None:
    at_ms = newest(rows, "shop")["s1"]["at_ms"]
    with OnlineStore.connect(url, "p") as store:
        found = store.read("shop", ["nobody", "s1", "s0", "s1"], now_ms=at_ms)
        assert [row.key for row in found] == ["nobody", "s1", "s0", "s1"]
        assert found[1] == found[3] == store.read("shop", "s1", now_ms=at_ms)
        assert (found[0].event_time_ms, found[0].values["shop_amount_count_1s"], found[0].values["rate"]) == (
            None,
            0,
            None,
        )
        assert store.read("shop", []) == []


def test_windows_drain_by_the_clock_alone(url: str, rows: pa.Table) -> None:
    row = newest(rows, "shop")["s1"]
    with OnlineStore.connect(url, "p", clock_ms=lambda: row["at_ms"] + 3_000) as store:
        found = store.read("shop", "s1")
    assert found.drained == {"shop_amount_count_1s", "shop_amount_mean_1s", "rate", "is_open"}
    assert found.values == {
        "shop_amount_count_1s": 0.0, "shop_amount_mean_1s": None, "rate": None, "is_open": None,
        "shop_amount_count_3s": row["shop_amount_count_3s"], "shop_amount_mean_3s": row["shop_amount_mean_3s"],
    }  # fmt: skip
    with OnlineStore.connect(url, "p") as store:
        old = store.read("shop", "s1")
        assert old.drained == set(old.values)
        assert old.age_ms == pytest.approx(time.time() * 1000 - row["at_ms"], abs=5_000)


def test_a_key_that_expired_reads_as_one_whose_windows_drained(url: str) -> None:
    features = [{"entity": "user", "take": ["count"], "over": ["200ms"], "slide": "100ms"}]
    pipeline = small_pipeline(features=features, time={"allowed_lateness": "0ms", "forget_idle_after": "0ms"})
    write_online(url, "short", pipeline, FEATURE_SET, featurized([payment(1, 5, "u")], pipeline))
    with OnlineStore.connect(url, "short") as store, Redis.from_url(url) as client:
        there = store.read("user", "u", now_ms=10_000)
        assert there.event_time_ms == 5
        while client.exists("short:user:{u}"):
            time.sleep(0.05)
        gone = store.read("user", "u", now_ms=10_000)
        assert there.values == gone.values == {"user_count_200ms": 0.0}
        assert there.drained == gone.drained == frozenset(gone.values)
        assert gone.event_time_ms is None


def test_odd_keys_and_keys_of_several_fields_are_found(url: str) -> None:
    users = ["{a}:b", "%7Ba%7D:b", "a}{b", "", "|", "\\", "ü\n\0", "{}", "%", "p:user:{x}"]
    sent = [
        payment(i, i, user, shop=shop, units=i) for i, (user, shop) in enumerate((u, s) for u in users for s in users)
    ]
    rows = featurized(sent)
    write_online(url, "odd", PIPELINE, FEATURE_SET, rows)
    with OnlineStore.connect(url, "odd") as store:
        pairs = [(user, shop) for user in users for shop in users]
        found = store.read("user_shop", list(pairs), now_ms=200)
        assert [row.values["user_shop_units_sum_1d"] for row in found] == list(range(100))
        last = store.read("user", list(users), now_ms=200)
        assert [row.event_time_ms for row in last] == [10 * i + 9 for i in range(10)]


class Counting(Connection):
    """Counts what is sent: each of it waits for its answers, so it is one round trip."""

    flights = 0

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        type(self).flights += 1
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # redis is half typed


class AsyncCounting(AsyncConnection):
    """The same on an event loop."""

    flights = 0

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        type(self).flights += 1
        await super().send_packed_command(command, check_health)


def test_a_read_is_one_round_trip_and_one_more_only_when_the_version_changes(port: int, url: str) -> None:
    rows = featurized([payment(i, i, f"u{i}") for i in range(100)])
    keys: list[Any] = [f"u{i}" for i in range(120)]
    write_online(url, "v", PIPELINE, FEATURE_SET, rows, started_ms=1)
    store = OnlineStore(Redis(connection_pool=ConnectionPool(port=port, connection_class=Counting)), "v")

    def flights_of_a_read() -> int:
        before = Counting.flights
        store.read("user", keys, now_ms=0)
        return Counting.flights - before

    assert flights_of_a_read() > 1  # connects, and fetches the schema
    assert [flights_of_a_read() for _ in range(3)] == [1, 1, 1]
    write_online(url, "v", PIPELINE, "e" * 16, rows.slice(50), started_ms=2)
    assert [flights_of_a_read() for _ in range(3)] == [2, 1, 1]
    sets = [row.feature_set for row in store.read("user", keys, now_ms=0)]
    assert sets == ["f" * 16] * 50 + ["e" * 16] * 70, "rows by their own, keys without a row by the current one"

    async def flights() -> list[int]:
        pool = AsyncConnectionPool(host="127.0.0.1", port=port, connection_class=AsyncCounting)
        found, reader = [], AsyncOnlineStore(AsyncRedis(connection_pool=pool), "v")
        for _ in range(3):
            before = AsyncCounting.flights
            await reader.read("user", keys, now_ms=0)
            found.append(AsyncCounting.flights - before)
        await pool.disconnect()
        return found

    assert asyncio.run(flights())[1:] == [1, 1]


def test_a_reader_outlives_a_restart_of_the_server() -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    rows = featurized([payment(1, 5, "u")])

    async def reads() -> int | None:
        async with AsyncOnlineStore.connect(url, "p") as reader:
            for _ in range(2):
                with redis_server(port):
                    write_online(url, "p", PIPELINE, FEATURE_SET, rows)
                    age_ms = (await reader.read("user", "u", now_ms=6)).age_ms
        return age_ms

    assert asyncio.run(reads()) == 1
    with OnlineStore.connect(url, "p", timeout_s=0.5) as store:
        for _ in range(2):
            with redis_server(port):
                write_online(url, "p", PIPELINE, FEATURE_SET, rows)
                assert store.read("user", "u", now_ms=6).age_ms == 1
        with pytest.raises(RedisConnectionError):
            store.read("user", "u")


def test_threads_may_share_a_reader(url: str, rows: pa.Table) -> None:
    expected = newest(rows, "user")
    wrong: list[Any] = []
    with OnlineStore.connect(url, "p") as store:

        def read() -> None:
            for _ in range(50):
                found = store.read("user", list(expected), now_ms=0)
                wrong.extend(r for r in found if r.values["user_count_4s"] != expected[r.key]["user_count_4s"])

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.usefixtures("rows")
def test_a_prefix_that_nobody_wrote_to_and_an_unknown_entity_are_said(url: str) -> None:
    with OnlineStore.connect(url, "nothing") as store, pytest.raises(OnlineStoreError, match="is the prefix right"):
        store.read("user", "u")
    with OnlineStore.connect(url, "p") as store, pytest.raises(OnlineStoreError, match="did you mean 'shop'"):
        store.read("shops", "s1")


CLIENT = """
import sys
from udfs.online.reader import AsyncOnlineStore, OnlineStore
with OnlineStore.connect(sys.argv[1], "p") as store:
    print(store.read("shop", "s1", now_ms=0).values["shop_amount_count_3s"])
heavy = ("pyflink", "mlflow", "apache_beam", "py4j", "pyarrow", "numpy", "numba", "pandas", "pydantic")
print(sorted(name for name in heavy if name in sys.modules))
"""


def test_a_service_needs_neither_flink_nor_arrow_to_read(url: str, rows: pa.Table) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, url],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [str(newest(rows, "shop")["s1"]["shop_amount_count_3s"]), "[]"]
