"""Publish operator: writes the newest features of each entity to Redis and hands the piece on unchanged.

Guarantee: at least once, each write fenced by (event time, sequence number), so that neither a replay nor a restart
puts an older row over a newer one. Redis being away never stops predictions: see `OnlineWriter`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import AsyncFunction

from udfs.core.features import Stage, plan_stages
from udfs.core.loading import load_pipeline
from udfs.core.online import newest_rows
from udfs.core.references import resolve
from udfs.online_writer import OnlineWriter
from udfs.score import Scored


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
        lateness_ms = pipeline.time.allowed_lateness_ms
        self._stages: Sequence[tuple[Stage, int]] = [
            (stage, 2 * stage.longest_ms + lateness_ms) for stage in plan_stages(pipeline) if stage.features
        ]
        self._writer = OnlineWriter(resolve(self._redis_url, os.environ))
        metrics = runtime_context.get_metrics_group()
        metrics.gauge("online_store_waiting_rows", lambda: self._writer.waiting_rows)
        metrics.gauge("online_store_dropped_rows", lambda: self._writer.dropped_rows)

    async def async_invoke(self, value: Scored) -> Sequence[Scored]:
        """Write the newest row of each key of the piece, then return the piece."""
        rows = value.piece.rows
        if rows.num_rows:
            for stage, ttl_ms in self._stages:
                self._writer.add(newest_rows(rows, stage, self._time, self._prefix), ttl_ms)
            await self._writer.flush()
        return [value]
