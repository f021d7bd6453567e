"""Publish operator: writes the newest features of each entity to Redis and hands the piece on unchanged.

Guarantee: at least once, each write fenced by event time, so that a replay or a restart never puts an older row over a
newer one and the end state is the oracle's. Redis being away never stops predictions: a batch's writes are given up
after `GIVE_UP_S` and the next batches bring newer rows; what was given up is counted.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import AsyncFunction
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from udfs.core.features import Stage, plan_stages
from udfs.core.loading import load_pipeline
from udfs.core.online import OnlineRow, newest_rows
from udfs.core.references import resolve
from udfs.score import Scored

GIVE_UP_S = 2.0
FENCED_WRITE = """
local held = redis.call('HMGET', KEYS[1], 'event_time_ms', 'seq')
local time, seq = tonumber(held[1]), tonumber(held[2])
local new_time, new_seq = tonumber(ARGV[1]), tonumber(ARGV[2])
if time and (new_time < time or (new_time == time and new_seq < seq)) then return 0 end
redis.call('HSET', KEYS[1], 'event_time_ms', ARGV[1], 'seq', ARGV[2], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class Publish(AsyncFunction):
    """Writes online rows.

    Parameters
    ----------
    bundle : folder of the pipeline's files
    redis_url : where to write; may hold a reference to a secret, resolved here and never shown in the job's settings
    """

    def __init__(self, bundle: str, redis_url: str) -> None:
        self._bundle, self._redis_url = bundle, redis_url

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the pipeline; the connection is made on the event loop, at the first piece."""
        pipeline = load_pipeline(Path(self._bundle))
        assert pipeline.sinks.online_store is not None  # noqa: S101  the job has this operator only then
        self._prefix = pipeline.sinks.online_store.prefix
        self._time = pipeline.contract.time
        self._stages: Sequence[Stage] = [stage for stage in plan_stages(pipeline) if stage.features]
        self._ttl_ms = {
            stage.entity: 2 * stage.longest_ms + pipeline.time.allowed_lateness_ms for stage in self._stages
        }
        self._redis: Redis | None = None
        self._script = ""
        self._given_up = 0
        runtime_context.get_metrics_group().gauge("online_store_batches_given_up", lambda: self._given_up)

    async def async_invoke(self, value: Scored) -> Sequence[Scored]:
        """Write the newest row of each key of the piece, then return the piece."""
        if value.piece.rows.num_rows:
            try:
                await asyncio.wait_for(self._write(value), GIVE_UP_S)
            except (TimeoutError, RedisError, OSError):
                self._given_up += 1
        return [value]

    async def _write(self, scored: Scored) -> None:
        if self._redis is None:
            url = resolve(self._redis_url, dict(os.environ))
            self._redis = Redis.from_url(url, retry=Retry(NoBackoff(), 1), socket_connect_timeout=GIVE_UP_S)
        if not self._script:
            self._script = await self._redis.script_load(FENCED_WRITE)
        try:
            await self._pipeline(self._redis, scored)
        except NoScriptError:  # Redis was restarted or flushed
            self._script = await self._redis.script_load(FENCED_WRITE)
            await self._pipeline(self._redis, scored)

    async def _pipeline(self, redis: Redis, scored: Scored) -> None:
        pipeline = redis.pipeline(transaction=False)
        for stage in self._stages:
            for row in newest_rows(scored.piece.rows, stage, self._time, self._prefix):
                pipeline.evalsha(self._script, 1, row.key, *_arguments(row, self._ttl_ms[stage.entity]))
        await pipeline.execute()


def _arguments(row: OnlineRow, ttl_ms: int) -> list[str]:
    flat = [text for pair in row.values.items() for text in pair]
    return [str(row.event_time_ms), str(row.seq), str(ttl_ms), *flat]
