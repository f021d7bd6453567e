"""Publish operator: writes the newest features of each entity to Redis and hands the piece on unchanged.

Guarantee: at least once, each write fenced as `online_fence` says, so that no replay, restart or backfill puts an older
row over a newer one. Redis being away never stops predictions: see `OnlineWriter`.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import AsyncFunction

from udfs.core.declare.loading import load_pipeline
from udfs.core.online.tables import online_schema, online_tables
from udfs.core.plan.features import feature_set_hash
from udfs.core.references import resolve
from udfs.online.writer import OnlineWriter
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
        # Taken where the job is submitted, so that its restarts count as the same writer.
        self._started_ms = time.time_ns() // 1_000_000

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the pipeline; the connection is made on the event loop, at the first piece."""
        folder = Path(self._bundle)
        pipeline = load_pipeline(folder)
        assert pipeline.sinks.online_store is not None  # noqa: S101  the job has this operator only then
        prefix = pipeline.sinks.online_store.prefix
        self._tables = online_tables(pipeline, prefix)
        self._feature_set = feature_set_hash(pipeline, folder)
        url, attempt = resolve(self._redis_url, os.environ), runtime_context.get_attempt_number()
        self._writer = OnlineWriter(url, prefix, self._started_ms, attempt)
        metrics = runtime_context.get_metrics_group()
        metrics.gauge("online_store_waiting_rows", lambda: self._writer.waiting_rows)
        metrics.gauge("online_store_dropped_rows", lambda: self._writer.dropped_rows)
        metrics.gauge("online_store_fenced_rows", lambda: self._writer.fenced_rows)

    async def async_invoke(self, value: Scored) -> Sequence[Scored]:
        """Write the newest row of each key of the piece, then return the piece."""
        rows = value.piece.rows
        if rows.num_rows:
            if not self._writer.has_begun:  # the rows say what types the columns have
                self._writer.begin(online_schema(self._tables, self._feature_set, rows.schema))
            for table in self._tables:
                self._writer.add(table.rows(table.newest(rows)))
            await self._writer.flush()
        return [value]
