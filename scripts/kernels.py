"""Compiles the kernels before anyone waits for them: a few events through every kind of window, join and check.

    python -m scripts.kernels

The compiled forms stay in the cache of `udfs.core.jit`, which all jobs of a machine share; a second run takes a second.
"""

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from udfs.core.declare.definition import Pipeline
from udfs.core.offline.featurize import featurize_offline
from udfs.core.plan.features import plan_stages
from udfs.core.rows.batches import RawBatch
from udfs.core.rows.ingest import Ingest
from udfs.core.stage.lane import Lane

PAYMENTS, LIMITS = "warm.payments", "warm.limits"
WINDOWS = ["10m", {"tumbling": "1h"}, {"session": "5m"}, {"last": 3}, "lifetime"]
DECLARED: dict[str, Any] = {
    "name": "warm",
    "source": {"topic": PAYMENTS, "key": "user"},
    "contract": {
        "id": "id",
        "time": "at_ms",
        "fields": {"id": "string", "at_ms": "int64", "user": "string", "amount": "float64"},
    },
    "enrichments": [
        {
            "name": "limits",
            "topic": LIMITS,
            "key": "user",
            "entity": "user",
            "max_age": "1h",
            "keep": "2h",
            "take": {"limit": "limit"},
            "contract": {"time": "at_ms", "fields": {"user": "string", "at_ms": "int64", "limit": "float64"}},
        }
    ],
    "features": [{"entity": "user", "of": "amount", "take": ["sum"], "over": WINDOWS, "slide": "1m"}],
    "model": {"name": "warm"},
    "sinks": {name: {"topic": f"warm.{name}"} for name in ("predictions", "rejects", "late", "order")},
    "time": {"allowed_lateness": "1m", "duplicates_within": "1h", "future_tolerance": "1d"},
}


def events(count: int) -> list[RawBatch]:
    """Return limits and payments of one user."""
    limits = [{"user": "ann", "at_ms": 1_000 * at, "limit": 1.0} for at in range(count)]
    payments = [{"id": f"p{at}", "at_ms": 1_000 * at, "user": "ann", "amount": 1.0} for at in range(count)]
    return [raw(LIMITS, limits), raw(PAYMENTS, payments)]


def raw(topic: str, rows: list[dict[str, Any]]) -> RawBatch:
    """Return rows as the records of a topic."""
    count = len(rows)
    values = [msgspec.json.encode(row) for row in rows]
    return RawBatch(topic, values, [b"ann"] * count, [0] * count, list(range(count)), [1_000] * count)


def main() -> None:
    """Take events through the offline path, and through a lane that is restored from what it stored."""
    pipeline = Pipeline.model_validate(DECLARED)
    with tempfile.TemporaryDirectory() as folder:
        featurize_offline(pipeline, Path(folder), events(3))
        limits, payments = events(3)
        ingest = Ingest.of_source(pipeline, Path(folder))
        (stage,) = plan_stages(pipeline)
        log: dict[int, bytes] = {}
        for _ in range(2):
            pieces = [Ingest.of_enrichment(pipeline.enrichments[0], 10**9).process(limits), ingest.process(payments)]
            lane = Lane(pipeline, stage, 0, log)
            for piece in pieces:
                lane.process(piece)


if __name__ == "__main__":
    main()
