"""How fast a backfill is after decode, and beside DuckDB for the same windows: python -m scripts.bench.backfill

The flights of 2013, some years of them one behind the other, go through rules, lookups, the derive function, windows
and as-of joins; DuckDB computes the windowed features alone, from a table of its own, on as many threads. Every value
of them is compared.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import duckdb
import numpy as np
import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

from scripts.flights import events
from scripts.flights.dataset import FIRST_DAY, LAST_DAY
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.feature import Feature
from udfs.core.declare.loading import load_pipeline
from udfs.core.offline.backfill import Backfill, Chunk, Part
from udfs.core.plan.features import plan_stages
from udfs.core.rows.batches import VALUE, Piece, RawBatch, join_batches
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.rows.letters import no_letters

FOLDER = Path(__file__).parents[2] / "conf" / "flights"
FUNCTIONS = {"count": "count", "sum": "sum", "mean": "avg", "min": "min", "max": "max", "std": "stddev_samp"}
YEAR_MS = 364 * 86_400_000  # whole weeks
CHUNK_ROWS = 131_072
CLOSE = 1e-9


def decoded(pipeline: Pipeline, years: int) -> dict[str, pa.RecordBatch]:
    """Return the rows of each input topic, in the order of event time, without their original bytes."""
    ingests = ingest_of_topics(pipeline, FOLDER)
    sent = {events.WEATHER: events.weather, events.DEPARTURES: events.departures}
    found = {}
    for topic, read in sent.items():
        raw = read(FIRST_DAY, LAST_DAY)
        count = len(raw)
        batch = RawBatch(topic, raw.values, raw.keys, [0] * count, range(count), raw.times_ms.tolist())
        rows = ingests[topic].decode(batch).rows
        rows = rows.drop_columns([VALUE]).append_column(VALUE, pa.repeat(b"", rows.num_rows))
        time_column = (
            pipeline.contract.time if topic == pipeline.source.topic else pipeline.enrichments[0].contract.time
        )
        found[topic] = join_batches([_shifted(rows, time_column, year * YEAR_MS) for year in range(years)])
    return found


def _shifted(rows: pa.RecordBatch, time_column: str, by_ms: int) -> pa.RecordBatch:
    shifted = {name: pa.array(rows[name].to_numpy() + by_ms) for name in (time_column, "_timestamp_ms")}
    arrays = [shifted.get(name, rows[name]) for name in rows.schema.names]
    return pa.RecordBatch.from_arrays(arrays, names=rows.schema.names)


def chunks(pipeline: Pipeline, rows: dict[str, pa.RecordBatch]) -> Iterator[Chunk]:
    """Cut the rows of all topics, put in the order of event time, into chunks."""
    times = [rows[one.topic][one.contract.time].to_numpy() for one in pipeline.enrichments]
    times.append(rows[pipeline.source.topic][pipeline.contract.time].to_numpy())
    topics = [*(one.topic for one in pipeline.enrichments), pipeline.source.topic]
    place = np.empty(sum(map(len, times)), np.int64)
    place[np.argsort(np.concatenate(times), kind="stable")] = np.arange(place.size)
    places = np.split(place, np.cumsum([one.size for one in times])[:-1])
    for start in range(0, place.size, CHUNK_ROWS):
        chunk = []
        for topic, mine in zip(topics, places, strict=True):
            low, high = np.searchsorted(mine, [start, start + CHUNK_ROWS]).tolist()
            piece = Piece(topic, rows[topic].slice(low, high - low), no_letters())
            chunk.append(Part(piece, mine[low:high] - start))
        yield chunk


def in_duckdb(features: list[Feature], departed: pa.Table, threads: int) -> tuple[float, pa.Table]:
    """Return the seconds DuckDB takes for the windowed features, and these.

    A sawtooth window reaches from the start of a tile to the event itself. Rows are ordered by a number that tells the
    events of one millisecond apart, so that an event does not see those behind it.
    """
    with duckdb.connect() as database:
        database.execute(f"SET threads = {threads}")
        database.register("departed", departed)
        database.execute("""CREATE TABLE events AS SELECT *, departed_at_ms * 1000 + place AS at_us FROM (
            SELECT *, row_number() OVER (PARTITION BY departed_at_ms ORDER BY seq) - 1 AS place FROM departed)""")
        windows, columns = {}, []
        for one in features:
            name = f"{one.entity}_{one.size_ms}_{one.slide_ms}"
            start = f"(departed_at_ms // {one.slide_ms} - {one.size_ms // one.slide_ms}) * {one.slide_ms * 1000}"
            windows[name] = f"""{name} AS (PARTITION BY {one.entity} ORDER BY at_us
                RANGE BETWEEN at_us - {start} PRECEDING AND CURRENT ROW)"""
            columns.append(f"CAST({FUNCTIONS[one.aggregation]}({one.of}) OVER {name} AS DOUBLE) AS {one.name}")
        query = f"SELECT seq, {', '.join(columns)} FROM events WINDOW {', '.join(windows.values())}"  # noqa: S608
        took_s = timed(lambda: database.execute(f"CREATE TABLE done AS {query}"))
        return took_s, database.execute("SELECT * EXCLUDE seq FROM done ORDER BY seq").to_arrow_table()


def timed(call: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def worst_difference(found: pa.Table, wanted: pa.Table, names: list[str]) -> float:
    """Return the largest relative difference of any value; infinite where one side only is null."""
    worst = 0.0
    for name in names:
        one, other = (table[name].to_numpy(zero_copy_only=False) for table in (found, wanted))
        if (np.isnan(one) != np.isnan(other)).any():
            return np.inf
        difference = np.abs(one - other) / np.maximum(np.abs(other), 1.0)
        worst = max(worst, float(np.nanmax(difference, initial=0.0)))
    return worst


def main(
    years: Annotated[
        int, typer.Option(min=1, help="How many times the year 2013 goes through, one after the other.")
    ] = 6,
    duckdb_years: Annotated[int, typer.Option(min=0, help="How many of them DuckDB is given; 0: none.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of both.")] = 2,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs; the fastest counts.")] = 3,
) -> None:
    """Measure and compare; exit code 1 if a value differs."""
    pipeline, console = load_pipeline(FOLDER), Console()
    features = [one for stage in plan_stages(pipeline) for one in stage.features]
    rows = decoded(pipeline, years)
    cut, count = list(chunks(pipeline, rows)), rows[pipeline.source.topic].num_rows
    list(Backfill(pipeline, FOLDER, threads).run(cut[:1]))  # compiles the kernels
    wall_s, cpu_s = min(_run(pipeline, cut, threads) for _ in range(runs))
    table = Table("", "events", "seconds", "events/s", "CPU us/event", box=None)
    table.add_row("headrace", f"{count:,}", f"{wall_s:.2f}", f"{count / wall_s:,.0f}", f"{cpu_s / count * 1e6:.2f}")
    worst = 0.0
    if duckdb_years:
        few = {topic: batch.slice(0, batch.num_rows // years * duckdb_years) for topic, batch in rows.items()}
        done = list(Backfill(pipeline, FOLDER, threads).run(chunks(pipeline, few)))
        mine = pa.Table.from_batches([one.rows for one in done])
        names = list(
            dict.fromkeys(
                [pipeline.contract.time, *(one.entity for one in features), *(one.of for one in features if one.of)]
            )
        )
        departed = mine.select(names).append_column("seq", pa.array(np.arange(mine.num_rows)))
        took_s, theirs = in_duckdb(features, departed, threads)
        table.add_row("DuckDB, windows alone", f"{mine.num_rows:,}", f"{took_s:.2f}", f"{mine.num_rows / took_s:,.0f}")
        worst = worst_difference(mine, theirs, [one.name for one in features])
        ratio = (wall_s / count) / (took_s / mine.num_rows)
        console.print(f"time of headrace for an event, all of its path, to DuckDB's for the windows: {ratio:.2f}")
        console.print(f"largest relative difference of {len(features)} features: {worst:.1e}")
    console.print(table)
    console.print(f"{threads} threads, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", highlight=False)
    if worst > CLOSE:
        sys.exit(f"values differ by {worst}")


def _run(pipeline: Pipeline, cut: list[Chunk], threads: int) -> tuple[float, float]:
    backfill, cpu_s = Backfill(pipeline, FOLDER, threads), time.process_time()
    wall_s = timed(lambda: sum(one.rows.num_rows for one in backfill.run(cut)))
    return wall_s, time.process_time() - cpu_s


if __name__ == "__main__":
    typer.run(main)
