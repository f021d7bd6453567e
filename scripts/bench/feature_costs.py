"""What each aggregation costs per event: writes docs/feature_costs.json, which `make docs` puts into docs/features.md.

python -m scripts.bench.feature_costs

The path of the kernels alone, without Flink and without decoding, as CPU time of the thread; what else runs on the
machine still shows, as it takes of the caches. The cells of `count` are checked: they hold every event that was sent.
"""

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
from rich.console import Console

from udfs.core.cells.keyed import KeyedCells
from udfs.core.cells.sketches import fold_sketches
from udfs.core.declare.catalog import CATALOG
from udfs.core.declare.expansion import group_features
from udfs.core.declare.feature_groups import FeatureGroup
from udfs.core.kernels.admit import OK
from udfs.core.kernels.arrays import READS, UPDATES, Events
from udfs.core.kernels.tiles import fold_tiles
from udfs.core.plan.tracks import Cut, Track
from udfs.core.stage.sequence import EVERY
from udfs.core.stage.store import track_layout

OUT = Path(__file__).parents[2] / "docs" / "feature_costs.json"
KEYS, BATCH, ROUNDS, SEED = 10_000, 256, 5, 7
FLAT_BATCHES, SKETCH_BATCHES = 100, 8
TILES, HOUR_MS = 12, 3_600_000
#: kind of argument -> an argument of it
ARGUMENTS: dict[str, Any] = {
    "count": 3, "share": 0.9, "duration": "1h", "column": "other", "condition": "amount > 0", "bounds": [-1, 0, 1],
}  # fmt: skip
WINDOWS = {"lifetime": "lifetime", "sliding": "1h"}


def take_of(name: str) -> Any:
    """Return an entry of `take` for an aggregation."""
    kind = CATALOG[name].argument
    return name if kind == "none" else {name: ARGUMENTS[kind]}


def measure(name: str, window: str, *, is_text: bool = False) -> float:
    """Return the CPU time of one event for one feature, in nanoseconds, the median of the rounds."""
    group = FeatureGroup.model_validate(
        {"entity": "key", "of": "text" if is_text else "amount", "take": [take_of(name)], "over": [window]}
        | {"slide": f"{HOUR_MS // TILES}ms"}
    )
    features = list(group_features(group, {"text": "string", "amount": "float64"}))
    track = Track.of(Cut.of(features[0]), features)
    batches = FLAT_BATCHES if track.is_flat else SKETCH_BATCHES
    # A key has an event per tile, so that a window folds all of its tiles.
    warm = KEYS * (TILES + 1) // BATCH + 1
    chance = np.random.default_rng(SEED)
    keyed = KeyedCells([track_layout(track)], 0, HOUR_MS)
    for cells in keyed.tracks:
        cells.reserve(KEYS, KEYS)
    events = _Events(track, keyed, chance)
    for number in range(warm):
        events.fold(number)
    spent = []
    for round_ in range(ROUNDS):
        first = warm + round_ * batches
        made = [events.made(number) for number in range(first, first + batches)]
        started = time.thread_time_ns()
        for one in made:
            events.run(*one)
        spent.append((time.thread_time_ns() - started) / (batches * BATCH))
    if name == "count" and window == "lifetime":
        events.check(warm + ROUNDS * batches)
    return statistics.median(spent)


class _Events:
    """Events of random keys that move on through the tiles, and the kernel that they are for."""

    def __init__(self, track: Track, keyed: KeyedCells, chance: np.random.Generator) -> None:
        self._track, self._cells, self._chance = track, keyed.tracks[0], chance
        self._out = np.empty((BATCH, len(track.features)))

    def made(self, number: int) -> tuple[Events, pa.RecordBatch]:
        """Return a batch."""
        slots = self._chance.integers(0, KEYS, BATCH)
        step_ms = HOUR_MS / TILES / KEYS
        times_ms = ((np.arange(BATCH) + number * BATCH) * step_ms).astype(np.int64)
        amounts = self._chance.normal(size=BATCH)
        rows = pa.RecordBatch.from_pydict(
            {"amount": amounts, "text": [f"v{one}" for one in self._chance.integers(0, 20, BATCH)]}
        )
        values = (
            np.column_stack([amounts, amounts])[:, : max(len(self._track.columns), 1)]
            if self._track.is_flat
            else (np.empty((BATCH, 0)))
        )
        flags, status = np.full(BATCH, UPDATES | READS, np.int8), np.full(BATCH, OK, np.int8)
        return Events(slots, times_ms, np.ascontiguousarray(values), flags, status, np.zeros(BATCH, np.bool_)), rows

    def run(self, events: Events, rows: pa.RecordBatch) -> None:
        """Take a batch, as a store does."""
        self._cells.reserve(BATCH, KEYS)
        touched = np.empty(BATCH, np.int64)
        track = self._track
        if track.is_flat:
            fold_tiles(events, track.cut.tile_ms, 0, track.plan, self._cells.pool, touched, self._out)
        else:
            fold_sketches(events, rows, EVERY, track, 0, self._cells, touched)

    def fold(self, number: int) -> None:
        """Make a batch and take it."""
        self.run(*self.made(number))

    def check(self, batches: int) -> None:
        """Raise if the cells do not hold as many events as were sent."""
        counted = int(self._cells.irs[self._cells.owner >= 0, 0].sum())
        if counted != batches * BATCH:
            msg = f"the cells count {counted} events; {batches * BATCH} were sent"
            raise RuntimeError(msg)


def machine() -> str:
    """Return the kind of machine, in words."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    return f"{model or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def main(out: Annotated[Path, typer.Option(help="File to write.")] = OUT) -> None:
    """Measure every aggregation of the catalog and write the costs."""
    console, costs = Console(), dict[str, dict[str, float]]()
    for name in CATALOG:
        is_text = name == "top_k"
        found = {window: measure(name, over, is_text=is_text) for window, over in WINDOWS.items()}
        costs[name] = {window: float(f"{ns:.2g}") for window, ns in found.items()}
        console.print(f"{name:18}", costs[name])
    facts = {"machine": machine(), "keys": KEYS, "batch": BATCH, "rounds": ROUNDS, "tiles": TILES}
    out.write_text(json.dumps(facts | {"ns_per_event": costs}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
