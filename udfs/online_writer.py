"""Writes online rows to Redis in pipelines, fenced; while Redis is away the newest row of each key waits in memory."""

import asyncio

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from udfs.core.online import OnlineRow

TIMEOUT_S = 2.0
RETRY_AFTER_S = 1.0
MAX_WAITING_ROWS = 200_000
SLICE_ROWS = 1_000

FENCED_WRITE = """
local held = redis.call('HMGET', KEYS[1], 'event_time_ms', 'seq')
local time, seq = tonumber(held[1]), tonumber(held[2])
local new_time, new_seq = tonumber(ARGV[1]), tonumber(ARGV[2])
if time and (new_time < time or (new_time == time and new_seq < seq)) then return 0 end
redis.call('HSET', KEYS[1], 'event_time_ms', ARGV[1], 'seq', ARGV[2], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class OnlineWriter:
    """Keeps the newest row per key until it is written.

    `flush` returns when everything added before it is in Redis, or at once while Redis is known to be away; a task then
    tries again every `RETRY_AFTER_S`. At most `MAX_WAITING_ROWS` keys wait; beyond that the longest waiting are dropped
    and counted.

    Parameters
    ----------
    url : Redis URL, secrets resolved
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: Redis | None = None
        self._script = ""
        self._waiting: dict[str, tuple[OnlineRow, int]] = {}
        self._retrying: asyncio.Task[None] | None = None
        self._in_flight = 0
        self.dropped_rows = 0

    @property
    def waiting_rows(self) -> int:
        """Rows not yet in Redis."""
        return len(self._waiting) + self._in_flight

    def add(self, rows: list[OnlineRow], ttl_ms: int) -> None:
        """Take rows to be written with the next flush; of several for a key the newest counts."""
        for row in rows:
            held = self._waiting.get(row.key)
            if held is None or (held[0].event_time_ms, held[0].seq) <= (row.event_time_ms, row.seq):
                self._waiting[row.key] = (row, ttl_ms)
        while len(self._waiting) > MAX_WAITING_ROWS:
            del self._waiting[next(iter(self._waiting))]
            self.dropped_rows += 1

    async def flush(self) -> None:
        """Write what waits, unless Redis is away."""
        if self._retrying is None and not await self._write() and self._retrying is None:
            self._retrying = asyncio.get_running_loop().create_task(self._retry())

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(RETRY_AFTER_S)
            if await self._write():
                self._retrying = None
                return

    async def _write(self) -> bool:
        """Write what waits, slice by slice; False if Redis is away, with what is not written waiting again."""
        taken, self._waiting = self._waiting, {}
        rows = list(taken.values())
        for start in range(0, len(rows), SLICE_ROWS):
            self._in_flight = len(rows) - start
            try:
                await asyncio.wait_for(self._write_slice(rows[start : start + SLICE_ROWS]), TIMEOUT_S)
            except (RedisError, OSError, TimeoutError):
                self._in_flight = 0
                newer, self._waiting = self._waiting, {row.key: (row, ttl_ms) for row, ttl_ms in rows[start:]}
                for row, ttl_ms in newer.values():
                    self.add([row], ttl_ms)
                return False
        self._in_flight = 0
        return True

    async def _write_slice(self, rows: list[tuple[OnlineRow, int]]) -> None:
        if self._redis is None:
            self._redis = Redis.from_url(self._url, retry=Retry(NoBackoff(), 1), socket_connect_timeout=TIMEOUT_S)
        if not self._script:
            self._script = await self._redis.script_load(FENCED_WRITE)
        pipeline = self._redis.pipeline(transaction=False)
        for row, ttl_ms in rows:
            flat = [text for pair in row.values.items() for text in pair]
            pipeline.evalsha(self._script, 1, row.key, str(row.event_time_ms), str(row.seq), str(ttl_ms), *flat)
        answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, NoScriptError):  # Redis was restarted or flushed, and has forgotten it
                self._script = ""
                raise answer
            if isinstance(answer, RedisError):  # this key alone cannot be written: it holds something else
                self.dropped_rows += 1
