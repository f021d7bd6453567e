"""Writes the online rows of a running job in pipelines, fenced; while Redis is away they wait in memory."""

import asyncio
import logging

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from udfs.core.online.schema import OnlineSchema
from udfs.core.online.tables import OnlineRow
from udfs.online.client import async_client_of
from udfs.online.fence import SLICE_ROWS, WRITE, Writer, is_foreign

TIMEOUT_S = 2.0
RETRY_AFTER_S = 1.0
MAX_WAITING_ROWS = 200_000


class OnlineWriter:
    """Keeps the newest row per key until it is written.

    `flush` returns when everything added before it is in Redis, or at once while Redis is known to be away; a task then
    tries again every `RETRY_AFTER_S`. At most `MAX_WAITING_ROWS` keys wait; beyond that the longest waiting are dropped
    and counted.

    Parameters
    ----------
    url : Redis URL, secrets resolved
    prefix : name space of the store keys
    started_ms, attempt : who writes, see `online_fence.Writer`

    Raises
    ------
    OnlineStoreError : the URL cannot be read.
    """

    def __init__(self, url: str, prefix: str, started_ms: int, attempt: int = 0) -> None:
        self._redis = async_client_of(url, retry=Retry(NoBackoff(), 1), socket_connect_timeout=TIMEOUT_S)
        self._prefix, self._started_ms, self._attempt = prefix, started_ms, attempt
        self._writer: Writer | None = None
        self._script = ""
        self._waiting: dict[str, OnlineRow] = {}
        self._retrying: asyncio.Task[None] | None = None
        self._in_flight = 0
        #: rows given up: their key holds something else, or too many were waiting
        self.dropped_rows = 0
        #: rows not written because a newer one stands there
        self.fenced_rows = 0

    @property
    def waiting_rows(self) -> int:
        """Rows not yet in Redis."""
        return len(self._waiting) + self._in_flight

    @property
    def has_begun(self) -> bool:
        """Whether the schema is known."""
        return self._writer is not None

    def begin(self, schema: OnlineSchema) -> None:
        """Say what the rows will look like; to be called before any is added."""
        self._writer = Writer(self._prefix, self._started_ms, self._attempt, schema)

    def add(self, rows: list[OnlineRow]) -> None:
        """Take rows to be written with the next flush; of several for a key the newest counts."""
        for row in rows:
            held = self._waiting.get(row.key)
            if held is None or (held.event_time_ms, held.seq) <= (row.event_time_ms, row.seq):
                self._waiting[row.key] = row
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
                logging.getLogger(__name__).info("online store: reached again; all waiting rows are written")
                return

    async def _write(self) -> bool:
        """Write what waits, slice by slice; False if Redis is away, with what is not written waiting again."""
        taken, self._waiting = self._waiting, {}
        rows = list(taken.values())
        for start in range(0, len(rows), SLICE_ROWS):
            self._in_flight = len(rows) - start
            try:
                await asyncio.wait_for(self._write_slice(rows[start : start + SLICE_ROWS]), TIMEOUT_S)
            except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
                self._in_flight = 0
                newer, self._waiting = self._waiting, {row.key: row for row in rows[start:]}
                self.add(list(newer.values()))
                if self._retrying is None:  # its kind only: a message of the server may quote what was sent
                    logging.getLogger(__name__).warning(
                        "online store: %s; %d rows wait", type(error).__name__, self.waiting_rows
                    )
                return False
        self._in_flight = 0
        return True

    async def _write_slice(self, rows: list[OnlineRow]) -> None:
        writer = self._writer
        assert writer is not None  # noqa: S101  begun before there were rows
        if not self._script:
            await self._register(writer)
            self._script = await self._redis.script_load(WRITE)
        pipeline = self._redis.pipeline(transaction=False)
        for key in writer.schema_keys:
            pipeline.exists(key)
        writer.queue(pipeline, self._script, rows)
        has_schema, is_current, *answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, NoScriptError):  # Redis was restarted or flushed, and has forgotten it
                self._script = ""
            if isinstance(answer, Exception) and not is_foreign(answer):
                raise answer
        self.dropped_rows += sum(map(is_foreign, answers))
        self.fenced_rows += answers.count(0)
        if not (has_schema and is_current):  # the keys were deleted under the running job
            await self._register(writer)

    async def _register(self, writer: Writer) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        writer.register(pipeline)
        await pipeline.execute()
