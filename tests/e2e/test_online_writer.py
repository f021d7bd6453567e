"""The online writer against a real Redis that is killed, restarted and flushed."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from udfs.core.online import OnlineRow
from udfs.online_writer import OnlineWriter

TTL_MS = 60_000


def row(key: str, event_time_ms: int, seq: int, value: str) -> OnlineRow:
    return OnlineRow(key, event_time_ms, seq, {"feature": value})


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@contextmanager
def redis_server(port: int) -> Iterator[Redis]:
    program = shutil.which("redis-server")
    assert program is not None
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    client = Redis(port=port, decode_responses=True)
    try:
        for _ in range(100):
            try:
                client.ping()
                break
            except RedisConnectionError:
                time.sleep(0.05)
        yield client
    finally:
        server.kill()
        server.wait()


async def until_written(writer: OnlineWriter, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while writer.waiting_rows:
            await asyncio.sleep(0.05)


def test_an_older_row_never_replaces_a_newer_one(port: int) -> None:
    async def write(client: Redis) -> list[str]:
        writer = OnlineWriter(f"redis://127.0.0.1:{port}/0")
        seen = []
        for event_time_ms, seq, value in [
            (5, 1, "first"),
            (4, 9, "older"),
            (5, 0, "same time, before"),
            (5, 1, "again"),
        ]:
            writer.add([row("k", event_time_ms, seq, value)], TTL_MS)
            await writer.flush()
            seen.append(str(client.hget("k", "feature")))
        return seen

    with redis_server(port) as client:
        assert asyncio.run(write(client)) == ["first", "first", "first", "again"]
        assert 0 < int(str(client.pttl("k"))) <= TTL_MS


def test_of_several_waiting_rows_of_a_key_the_newest_is_written(port: int) -> None:
    async def write() -> None:
        writer = OnlineWriter(f"redis://127.0.0.1:{port}/0")
        writer.add([row("k", 7, 1, "newest"), row("k", 6, 2, "older"), row("other", 1, 1, "other")], TTL_MS)
        await writer.flush()
        assert writer.waiting_rows == 0

    with redis_server(port) as client:
        asyncio.run(write())
        assert client.hget("k", "feature") == "newest"
        assert client.hget("other", "feature") == "other"


def test_rows_wait_while_redis_is_away_and_are_written_when_it_is_back(port: int) -> None:
    async def write() -> None:
        writer = OnlineWriter(f"redis://127.0.0.1:{port}/0")
        with redis_server(port):
            writer.add([row("k", 1, 1, "before")], TTL_MS)
            await writer.flush()
        begun_s = time.monotonic()
        for event_time_ms in range(2, 50):
            writer.add([row("k", event_time_ms, event_time_ms, f"at {event_time_ms}")], TTL_MS)
            await writer.flush()
        assert time.monotonic() - begun_s < 5.0, "a flush must not wait for a Redis that is away"
        assert writer.waiting_rows == 1
        with redis_server(port) as client:
            await until_written(writer)
            assert client.hget("k", "feature") == "at 49"

    asyncio.run(write())


def test_a_redis_that_has_forgotten_the_script_gets_it_again(port: int) -> None:
    async def write(client: Redis) -> None:
        writer = OnlineWriter(f"redis://127.0.0.1:{port}/0")
        writer.add([row("k", 1, 1, "a")], TTL_MS)
        await writer.flush()
        client.flushall()
        client.script_flush()
        writer.add([row("k", 2, 2, "b")], TTL_MS)
        await writer.flush()
        await until_written(writer)

    with redis_server(port) as client:
        asyncio.run(write(client))
        assert client.hget("k", "feature") == "b"


def test_a_key_that_holds_something_else_is_dropped_alone(port: int) -> None:
    async def write() -> int:
        writer = OnlineWriter(f"redis://127.0.0.1:{port}/0")
        writer.add([row("list", 1, 1, "a"), row("k", 1, 1, "b")], TTL_MS)
        await writer.flush()
        assert writer.waiting_rows == 0
        return writer.dropped_rows

    with redis_server(port) as client:
        client.rpush("list", "not a hash")
        assert asyncio.run(write()) == 1
        assert client.hget("k", "feature") == "b"


def test_a_large_backlog_is_written_after_an_outage(port: int) -> None:
    async def write() -> None:
        writer = OnlineWriter(f"redis://127.0.0.1:{port}/0")
        writer.add([row(f"k{number}", 1, number, "x" * 50) for number in range(60_000)], TTL_MS)
        await writer.flush()
        assert writer.waiting_rows == 60_000
        with redis_server(port) as client:
            await until_written(writer, timeout_s=60.0)
            assert client.dbsize() == 60_000

    asyncio.run(write())
