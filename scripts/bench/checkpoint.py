"""What a lane of a million keys writes for a checkpoint, and how soon it answers after a restore.

python -m scripts.bench.checkpoint

The state is 1 million keys x 3 windows in one lane, its durable log a mapping as Flink's map state is one. What a
checkpoint uploads is what was put into the log since the one before: 1 % of the keys are touched, in micro-batches. The
restored lane must give the bits that the uninterrupted one gives.
"""

import time
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import typer

from scripts.bench.report import Ratio, report, rss_bytes
from scripts.bench.synthetic import I64, START_MS, piece, pipeline
from udfs.core.plan.features import plan_stages
from udfs.core.stage.lane import Lane

BATCH, LOAD_BATCH = 256, 65_536
SPREAD_MS = 3_600_000
CELLS_PER_KEY = 3


class Log(dict[int, bytes]):
    """A durable log that counts the bytes that are put into it."""

    put_bytes = 0

    def __setitem__(self, number: int, data: bytes) -> None:
        super().__setitem__(number, data)
        self.put_bytes += len(data)

    @property
    def held_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(map(len, self.values()))


def batches(keys: I64, times_ms: I64, size: int) -> Iterator[tuple[list[str], I64]]:
    """Cut keys and times into batches."""
    for at in range(0, keys.size, size):
        yield [f"user-{key}" for key in keys[at : at + size].tolist()], times_ms[at : at + size]


def main(
    keys: Annotated[int, typer.Option(help="Keys that the lane holds.")] = 1_000_000,
    touched: Annotated[float, typer.Option(help="Share of them that has events between two checkpoints.")] = 0.01,
) -> None:
    """Fill, touch, restore, compare, print."""
    defined, chance, log = pipeline(), np.random.default_rng(3), Log()
    stage = plan_stages(defined)[0]
    lane = Lane(defined, stage, 0, log)
    count = keys * CELLS_PER_KEY
    held = np.concatenate([chance.permutation(keys) for _ in range(CELLS_PER_KEY)])
    for users, times_ms in batches(held, START_MS + np.arange(count) * SPREAD_MS // count, LOAD_BATCH):
        lane.process(piece(users, times_ms, chance.random(len(users))))
    full_bytes, log.put_bytes = log.held_bytes, 0

    some = chance.choice(keys, round(keys * touched), replace=False)
    for users, times_ms in batches(some, START_MS + SPREAD_MS + np.arange(some.size) * 10_000 // some.size, BATCH):
        lane.process(piece(users, times_ms, chance.random(len(users))))
    put_bytes = log.put_bytes

    asked = chance.choice(keys, BATCH)
    ask = piece(
        [f"user-{key}" for key in asked.tolist()], np.full(BATCH, START_MS + SPREAD_MS + 10_000), np.ones(BATCH)
    )
    stored = Log(log)
    begun_s, begun_cpu_s, before_bytes = time.perf_counter(), time.process_time(), rss_bytes()
    restored = Lane(defined, stage, 0, stored)
    state_s, state_cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    answer = restored.process(ask)
    first_s, first_cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    if not answer.rows.equals(lane.process(ask).rows):
        msg = "the restored lane answers otherwise than the one that went on"
        raise SystemExit(msg)
    report(
        "checkpoint",
        {
            "check": f"{BATCH} rows after the restore are those of the lane that went on",
            "full state, bytes": float(full_bytes),
            "put into the log for 1 % of the keys, bytes": float(put_bytes),
            "segments": float(len(log)),
            "restore of the state, s": state_s,
            "restore of the state, CPU s": state_cpu_s,
            "restore to first output, s": first_s,
            "restore, memory grown by bytes": float(rss_bytes() - before_bytes),
        },
        [
            Ratio(f"log of {touched:.0%} touched / full state", put_bytes / full_bytes, 0.05, at_least=False),
            Ratio(f"first output after restore of {keys:,} keys, CPU", first_cpu_s, 10.0, at_least=False, unit="s"),
        ],
    )


if __name__ == "__main__":
    typer.run(main)
