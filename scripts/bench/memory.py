"""Whether a lane takes the memory that `headrace plan` states: python -m scripts.bench.memory

A lane gets 1 million keys, then more cells for each; what its process grows by, in RAM, is held against the statement.
The process starts warm: kernels loaded, a small lane of the same pipeline gone through.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from scripts.bench.report import Ratio, report, rss_bytes
from scripts.bench.synthetic import START_MS, piece, pipeline
from udfs.core.plan.describe import describe
from udfs.core.plan.features import plan_stages
from udfs.core.plan.report import Runtime
from udfs.core.stage.lane import Lane

BATCH = 8_192
RUNTIME = Runtime(10, 5, 1, 5_000, 1, 128, exactly_once=True, online_store=False, topic_prefix="")


def feed(lane: Lane, keys: int, round_: int) -> None:
    """Give every key an event in a tile of its own."""
    for at in range(0, keys, BATCH):
        users = [f"user-{key:07}" for key in range(at, min(at + BATCH, keys))]
        count = len(users)
        lane.process(piece(users, np.full(count, START_MS + round_ * 60_000), np.ones(count)))


def main(
    keys: Annotated[int, typer.Option(help="Keys that the lane holds.")] = 1_000_000,
    cells: Annotated[int, typer.Option(help="Cells of each key.")] = 4,
) -> None:
    """Fill, measure, print."""
    defined = pipeline()
    (stage,) = describe(defined, Path(), RUNTIME).stages
    (track,) = stage.tracks
    planned = plan_stages(defined)[0]
    feed(Lane(defined, planned, 0, None), BATCH, 0)
    pa.default_memory_pool().release_unused()
    begun_bytes = rss_bytes()
    lane = Lane(defined, planned, 0, None)
    feed(lane, keys, 0)
    first_bytes = rss_bytes()
    for round_ in range(1, cells):
        feed(lane, keys, round_)
    grown_bytes, more_bytes = rss_bytes() - begun_bytes, rss_bytes() - first_bytes
    stated_bytes = keys * (stage.key_bytes + cells * track.cell_bytes)
    per_cell = more_bytes / (keys * (cells - 1))
    report(
        "memory",
        {
            "keys": float(keys),
            "cells of each": float(cells),
            "stated, bytes per key": float(stage.key_bytes),
            "stated, bytes per cell": float(track.cell_bytes),
            "stated, bytes": float(stated_bytes),
            "grown by, bytes": float(grown_bytes),
            "grown by for the first cell and its key, bytes per key": (first_bytes - begun_bytes) / keys,
            "grown by for each further cell, bytes": per_cell,
        },
        [
            Ratio("memory grown / stated", grown_bytes / stated_bytes, 1.2, at_least=False),
            Ratio("memory grown / stated", grown_bytes / stated_bytes, 0.8, at_least=True),
        ],
    )


if __name__ == "__main__":
    typer.run(main)
