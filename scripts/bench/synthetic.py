"""Events for the benchmarks: Zipf keys at a steady rate of event time, and the pipeline that has windows over them."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.declare.definition import Pipeline
from udfs.core.rows.batches import OFFSET, PARTITION, TIMESTAMP_MS, VALUE, Piece
from udfs.core.rows.letters import no_letters

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

START_MS = 1_700_000_000_000
TAKES = ["count", "sum", "min", "max"]
SIZES = ["1m", "10m", "1h"]
SLIDE = "1m"
EXPONENT = 1.1


def zipf(chance: np.random.Generator, keys: int, count: int) -> I64:
    """Return int64[count] of 0 .. keys - 1, key k with a chance in proportion to (k + 1) ** -EXPONENT."""
    shares = np.cumsum(np.arange(1, keys + 1) ** -EXPONENT)
    drawn: I64 = np.searchsorted(shares, chance.random(count) * shares[-1]).astype(np.int64)
    return np.minimum(drawn, keys - 1)


def pipeline(features: list[dict[str, Any]] | None = None, **more: Any) -> Pipeline:
    """Return a pipeline of one entity, `user`, with 3 sliding windows x 4 aggregates unless told otherwise."""
    group = {"entity": "user", "of": "amount", "take": TAKES, "over": SIZES, "slide": SLIDE}
    topics = {name: {"topic": f"bench.{name}"} for name in ("predictions", "rejects", "late", "order")}
    return Pipeline.model_validate(
        {
            "name": "bench",
            "source": {"topic": "bench.events", "key": "user"},
            "contract": {
                "id": "id", "time": "at_ms",
                "fields": {"id": "string", "at_ms": "int64", "user": "string", "amount": "float64"},
            },
            "features": [group] if features is None else features,
            "model": {"name": "none"},
            "sinks": topics,
        }
        | more
    )  # fmt: skip


def piece(users: list[str], times_ms: I64, values: F64) -> Piece:
    """Return events as they come to a featurize stage, past decode and rules."""
    count = len(users)
    columns = {
        "id": pa.array([""] * count),
        "at_ms": pa.array(times_ms),
        "user": pa.array(users),
        "amount": pa.array(values),
        PARTITION: pa.array(np.zeros(count, np.int32)),
        OFFSET: pa.array(np.arange(count)),
        TIMESTAMP_MS: pa.array(times_ms),
        VALUE: pa.array([b""] * count),
    }
    return Piece("bench.events", pa.RecordBatch.from_pydict(columns), no_letters())
