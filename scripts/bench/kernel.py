"""The window kernel alone: events per second of one core, and what more keys cost: python -m scripts.bench.kernel

Admission and fold of 3 sliding windows x 4 aggregates in micro-batches, in a steady state: before the clock runs, an
hour of the same Zipf keys has gone through, so that the hot keys have a cell in every tile. The first features are
compared with a plain loop over all events.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer

from scripts.bench.report import Ratio, report
from scripts.bench.synthetic import F64, I64, SIZES, SLIDE, START_MS, TAKES, pipeline, zipf
from udfs.core.cells.keyed import KeyedCells
from udfs.core.kernels.arrays import READS, UPDATES, Events
from udfs.core.kernels.tiles import MONDAY_MS, fold_tiles
from udfs.core.plan.features import plan_stages
from udfs.core.stage.store import track_layout

BATCH, WARM_BATCH, ROUNDS = 256, 65_536, 5
CHECKED = 3_000
HOUR_MS, LATENESS_MS = 3_600_000, 60_000
Windows = dict[str, Any]
FINE: Windows = {"over": SIZES, "slide": SLIDE}
COARSE: Windows = {"over": ["10m", "30m", "1h"], "slide": "10m"}


class Bench:
    """The cells of one track, and the kernel over them."""

    def __init__(self, keys: int, windows: Windows = FINE) -> None:
        (self.track,) = plan_stages(pipeline([{"entity": "user", "of": "amount", "take": TAKES, **windows}]))[0].tracks
        self.cells = KeyedCells([track_layout(self.track)], LATENESS_MS, 3 * HOUR_MS)
        for key in range(keys):
            self.cells.add(str(key))
        self.seq = 0

    def take(self, slots: I64, times_ms: I64, values: F64) -> F64:
        """Fold one batch and return its features, float64[n, 12]."""
        count = slots.size
        flags = np.full(count, UPDATES | READS, np.int8)
        status, reborn, _ = self.cells.admit(slots, times_ms, np.arange(self.seq, self.seq + count), flags)
        self.seq += count
        out, touched = np.empty((count, len(self.track.features))), np.empty(count, np.int64)
        events = Events(slots, times_ms, values, flags, status, reborn)
        pool = self.cells.tracks[0].pool
        fold_tiles(events, self.track.cut.tile_ms, LATENESS_MS, self.track.plan, pool, touched, out)
        return out


def check() -> None:
    """Exit unless the kernel gives what a loop over all earlier events gives."""
    bench, chance = Bench(50), np.random.default_rng(1)
    slots, values = zipf(chance, 50, CHECKED), chance.normal(0.0, 100.0, CHECKED)
    times_ms = START_MS + np.arange(CHECKED) * 3_000 + chance.integers(-50_000, 50_000, CHECKED)
    got = np.concatenate(
        [
            bench.take(slots[at : at + BATCH], times_ms[at : at + BATCH], values[at : at + BATCH, None])
            for at in range(0, CHECKED, BATCH)
        ]
    )
    tile_ms, newest_ms = bench.track.cut.tile_ms, dict[int, int]()
    before: dict[int, list[tuple[int, float]]] = defaultdict(list)
    names = [(one.aggregation, one.window.size_ms) for one in bench.track.features]
    functions: dict[str, Callable[[list[float]], float]] = {"count": len, "sum": math.fsum, "min": min, "max": max}
    for i in range(CHECKED):
        slot, time_ms = int(slots[i]), int(times_ms[i])
        if time_ms < newest_ms.get(slot, time_ms) - LATENESS_MS:
            continue
        newest_ms[slot] = max(newest_ms.get(slot, time_ms), time_ms)
        tile = (time_ms - MONDAY_MS) // tile_ms
        before[slot].append((tile, float(values[i])))
        for j, (name, size_ms) in enumerate(names):
            within = [value for at, value in before[slot] if tile - size_ms // tile_ms <= at <= tile]
            if not math.isclose(functions[name](within), got[i, j], rel_tol=1e-9, abs_tol=1e-9):
                msg = f"event {i}: {name} over {size_ms} ms: got {got[i, j]}; the events say {functions[name](within)}"
                raise SystemExit(msg)


def measure(keys: int, events: int, rate: int, windows: Windows) -> tuple[float, float, int]:
    """Return seconds of CPU per event, the best of some rounds, cells that an event walks, and live cells."""
    bench, chance = Bench(keys, windows), np.random.default_rng(2)
    warm = rate * 3_600 * 21 // 20
    total = warm + ROUNDS * events
    slots, values = zipf(chance, keys, total), chance.random((total, 1))
    times_ms = START_MS + np.arange(total) * 1_000 // rate
    for at in range(0, warm, WARM_BATCH):
        end = min(at + WARM_BATCH, warm)
        bench.take(slots[at:end], times_ms[at:end], values[at:end])
    best_s = math.inf
    for begin in range(warm, total, events):
        begun_s = time.process_time()
        for at in range(begin, begin + events, BATCH):
            end = min(at + BATCH, begin + events)
            bench.take(slots[at:end], times_ms[at:end], values[at:end])
        best_s = min(best_s, time.process_time() - begun_s)
    pool = bench.cells.tracks[0]
    per_key = np.bincount(pool.owner[pool.owner >= 0], minlength=keys)
    return best_s / events, float(per_key[slots[-events:]].mean()), pool.live


def main(
    events: Annotated[int, typer.Option(help="Events per round.")] = 500_000,
    rate: Annotated[int, typer.Option(help="Events per second of event time.")] = 1_000,
) -> None:
    """Check, measure at 10 thousand, 100 thousand and 1 million keys, print."""
    check()
    figures: dict[str, float | str] = {"check": f"{CHECKED:,} events x 12 features as a plain loop gives them"}
    cost_s = {}
    for keys, windows in ((10_000, FINE), (100_000, FINE), (1_000_000, FINE), (100_000, COARSE)):
        name = f"{keys:,} keys, tiles of {windows['slide']}"
        cost_s[name], walked, live = measure(keys, events, rate, windows)
        figures |= {
            f"{name}: million events per CPU second": 1e-6 / cost_s[name],
            f"{name}: cells of an event's key, mean": walked,
            f"{name}: live cells": float(live),
        }
    fine, coarse = (1e-6 / cost_s[f"100,000 keys, tiles of {slide}"] for slide in ("1m", "10m"))
    more_keys = cost_s["1,000,000 keys, tiles of 1m"] / cost_s["10,000 keys, tiles of 1m"]
    report(
        "kernel",
        figures,
        [
            Ratio("events per CPU second, 100,000 keys, 61 tiles a window", fine, 0.8, at_least=True, unit="M/s"),
            Ratio("events per CPU second, 100,000 keys, 7 tiles a window", coarse, 0.8, at_least=True, unit="M/s"),
            Ratio("cost at 1,000,000 keys / at 10,000", more_keys, 1.5, at_least=False),
        ],
    )


if __name__ == "__main__":
    typer.run(main)
