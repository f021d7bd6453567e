"""The writer of a running job against a real Redis that is killed, restarted and flushed."""

import asyncio
import json
import logging
import time
import traceback

import pytest
from redis import Redis

from tests.e2e.redis_server import free_port, redis_server
from udfs.core.online.schema import Column, Expiry, OnlineSchema, OnlineStoreError
from udfs.core.online.tables import OnlineRow
from udfs.online.reader import OnlineStore
from udfs.online.writer import OnlineWriter

TTL_MS = 60_000
HOUR = Expiry(3_600_000)
SCHEMA = OnlineSchema("f" * 16, {"user": (Column("feature", "string", HOUR),)})


def row(key: str, event_time_ms: int, seq: int, value: str) -> OnlineRow:
    return OnlineRow(key, event_time_ms, seq, json.dumps([value]).encode(), TTL_MS)


def value_of(client: Redis, key: str) -> str:
    return str(json.loads(str(client.get(key)))[5][0])


def writer_of(port: int, started_ms: int = 1, attempt: int = 0) -> OnlineWriter:
    writer = OnlineWriter(f"redis://127.0.0.1:{port}/0", "p", started_ms, attempt)
    writer.begin(SCHEMA)
    return writer


@pytest.fixture
def port() -> int:
    return free_port()


async def until_written(writer: OnlineWriter, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while writer.waiting_rows:
            await asyncio.sleep(0.05)


def test_an_older_row_never_replaces_a_newer_one(port: int) -> None:
    sent = [(5, 1, "first"), (4, 9, "older"), (5, 0, "same time, before"), (5, 2, "same time, after"), (6, 0, "newer")]

    async def write() -> tuple[list[str], int]:
        writer, seen = writer_of(port), []
        for event_time_ms, seq, value in sent:
            writer.add([row("k", event_time_ms, seq, value)])
            await writer.flush()
            seen.append(value_of(client, "k"))
        return seen, writer.fenced_rows

    with redis_server(port) as client:
        assert asyncio.run(write()) == (["first", "first", "first", "same time, after", "newer"], 2)
        assert 0 < int(str(client.pttl("k"))) <= TTL_MS


def test_a_row_from_ahead_of_the_clock_lives_as_much_longer(port: int) -> None:
    now_ms = time.time_ns() // 1_000_000

    async def write() -> None:
        writer = writer_of(port)
        writer.add([row("ahead", now_ms + 5_000_000, 1, "a"), row("behind", now_ms - 5_000_000, 1, "b")])
        writer.add([row("absurd", 2**62, 1, "c")])
        await writer.flush()

    with redis_server(port) as client:
        asyncio.run(write())
        assert TTL_MS + 4_900_000 < int(str(client.pttl("ahead"))) <= TTL_MS + 5_000_000
        assert TTL_MS - 10_000 < int(str(client.pttl("behind"))) <= TTL_MS
        assert 0 < int(str(client.pttl("absurd"))) <= TTL_MS + 366 * 86_400_000


def test_of_several_waiting_rows_of_a_key_the_newest_is_written(port: int) -> None:
    async def write() -> None:
        writer = writer_of(port)
        writer.add([row("k", 7, 1, "newest"), row("k", 6, 2, "older"), row("other", 1, 1, "other")])
        await writer.flush()
        assert writer.waiting_rows == 0

    with redis_server(port) as client:
        asyncio.run(write())
        assert value_of(client, "k") == "newest"
        assert value_of(client, "other") == "other"


def test_rows_wait_while_redis_is_away_and_are_written_when_it_is_back(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def write() -> None:
        writer = writer_of(port)
        with redis_server(port):
            writer.add([row("k", 1, 1, "before")])
            await writer.flush()
        begun_s = time.monotonic()
        for event_time_ms in range(2, 50):
            writer.add([row("k", event_time_ms, event_time_ms, f"at {event_time_ms}")])
            await writer.flush()
        assert time.monotonic() - begun_s < 5.0, "a flush must not wait for a Redis that is away"
        assert writer.waiting_rows == 1
        with redis_server(port) as client:
            await until_written(writer)
            assert value_of(client, "k") == "at 49"

    with caplog.at_level(logging.INFO, "udfs.online.writer"):
        asyncio.run(write())
    assert [record.getMessage() for record in caplog.records] == [
        "online store: ConnectionError; 1 rows wait",
        "online store: reached again; all waiting rows are written",
    ]


def test_a_redis_that_was_flushed_gets_script_and_schema_again(port: int) -> None:
    url = f"redis://127.0.0.1:{port}/0"

    async def write(script_too: bool) -> None:
        writer = writer_of(port)
        writer.add([row("p:user:{k}", 1, 1, "a")])
        await writer.flush()
        client.flushall()
        if script_too:
            client.script_flush()
        writer.add([row("p:user:{k}", 2, 2, "b")])
        await writer.flush()
        await until_written(writer)

    with redis_server(port) as client, OnlineStore.connect(url, "p") as store:
        for script_too in (True, False):
            asyncio.run(write(script_too))
            assert store.read("user", "k", now_ms=2).values == {"feature": "b"}
            client.flushall()


def test_a_key_that_holds_something_else_is_dropped_alone(port: int) -> None:
    async def write() -> int:
        writer = writer_of(port)
        writer.add([row("list", 1, 1, "a"), row("text", 1, 1, "a"), row("k", 1, 1, "b")])
        await writer.flush()
        assert writer.waiting_rows == 0
        return writer.dropped_rows

    with redis_server(port) as client:
        client.rpush("list", "no text")
        client.set("text", "no row")
        assert asyncio.run(write()) == 2
        assert client.get("text") == "no row"
        assert value_of(client, "k") == "b"


def test_rows_wait_while_redis_has_no_memory_left(port: int, caplog: pytest.LogCaptureFixture) -> None:
    async def write(client: Redis) -> None:
        writer = writer_of(port)
        writer.add([row("k", 1, 1, "a")])
        await writer.flush()
        client.config_set("maxmemory", 1)
        writer.add([row("k", 2, 2, "b")])
        await writer.flush()
        assert (writer.waiting_rows, writer.dropped_rows) == (1, 0)
        client.config_set("maxmemory", 0)
        await until_written(writer)

    with redis_server(port) as client:
        asyncio.run(write(client))
        assert value_of(client, "k") == "b"
    assert "online store: OutOfMemoryError; 1 rows wait" in caplog.messages


def test_rows_wait_for_a_cluster_that_is_away(port: int, caplog: pytest.LogCaptureFixture) -> None:
    async def write() -> int:
        writer = OnlineWriter(f"redis://127.0.0.1:{port}/0?cluster=true", "p", 1)
        writer.begin(SCHEMA)
        writer.add([row("k", 1, 1, "a")])
        await writer.flush()
        return writer.waiting_rows

    assert asyncio.run(write()) == 1
    assert "online store: RedisClusterException; 1 rows wait" in caplog.messages


def test_a_large_backlog_is_written_after_an_outage(port: int) -> None:
    async def write() -> None:
        writer = writer_of(port)
        writer.add([row(f"k{number}", 1, number, "x" * 50) for number in range(60_000)])
        await writer.flush()
        assert writer.waiting_rows == 60_000
        with redis_server(port) as client:
            await until_written(writer, timeout_s=60.0)
            assert client.dbsize() == 60_002, "the rows, the schema, and which is current"

    asyncio.run(write())


SECRET = "s3cret-Pa55"  # noqa: S105  of nothing


@pytest.mark.parametrize("url", [f"redis://u:{SECRET}/x@127.0.0.1:6379/0", f"http://u:{SECRET}@127.0.0.1/"])
def test_a_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    for make in (lambda: OnlineWriter(url, "p", 1), lambda: OnlineStore.connect(url, "p")):
        with pytest.raises(OnlineStoreError, match="URL of the online store cannot be read; expected redis://") as e:
            make()
        assert SECRET not in "".join(traceback.format_exception(e.value))
        assert e.value.__context__ is None, "the parser's message quotes what it takes for the port"


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_no_password_is_logged(port: int, password: str, caplog: pytest.LogCaptureFixture) -> None:
    given = SECRET if password == "right" else f"{SECRET}-wrong"  # noqa: S105

    async def write() -> str:
        writer = OnlineWriter(f"redis://:{given}@127.0.0.1:{port}/0", "p", 1)
        writer.begin(SCHEMA)
        writer.add([row("k", 1, 1, "a")])
        await writer.flush()
        return f"{vars(writer)!r} {writer.waiting_rows}"

    with caplog.at_level(logging.DEBUG), redis_server(port, password=SECRET):
        shown = asyncio.run(write())
        assert shown.endswith(" 0" if password == "right" else " 1")  # noqa: S105
        with OnlineStore.connect(f"redis://:{given}@127.0.0.1:{port}/0", "p") as store:
            shown += repr(store) + repr(vars(store))
            try:
                store.read("user", "k")
            except Exception as error:  # noqa: BLE001  whatever it is, its text must not tell
                shown += repr(error)
    assert SECRET not in shown + caplog.text
