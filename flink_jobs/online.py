"""`headrace online`: rows of a backfill into the online store. Heavy libraries are imported by the command."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.dataset as ds
import typer
from rich.console import Console

from flink_jobs import offline
from flink_jobs.config import DEFAULT_ENVIRONMENT, load_environment
from flink_jobs.project import shown
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.errors import HeadraceError

BATCH_ROWS = 65_536
app = typer.Typer(
    help="The online store: rows of a backfill, written beside a running job.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


class OnlineWriteError(HeadraceError):
    """Rows cannot be written into the online store."""


@app.callback()
def online() -> None:
    """Work with the online store."""


@app.command()
def write(
    rows: Annotated[
        Path, typer.Argument(help="Folder of `headrace backfill` or `headrace dataset`.", exists=True, file_okay=False)
    ],
    pipeline: offline.PipelineOption,
    environment: Annotated[
        Path, typer.Option("--environment", help="Environment file: the store.", show_default="conf/local.yaml")
    ] = DEFAULT_ENVIRONMENT,
) -> None:
    """Write the newest row of each key of past events into the online store.

    Fenced by event time: a job may be writing at the same time, and the newer
    row stays. To write the same rows again changes nothing.

    Example: headrace online write features --pipeline conf/flights
    """
    from redis import RedisError

    from models.days import read_provenance
    from udfs.core.plan.features import feature_set_hash
    from udfs.core.references import resolve
    from udfs.online.backfill import write_online

    declared, console = load_pipeline(pipeline), Console()
    if declared.sinks.online_store is None:
        msg = f"{pipeline}: sinks.online_store: missing; the pipeline has no online store"
        raise OnlineWriteError(msg)
    redis = load_environment(environment).redis
    if redis is None:
        msg = f"{environment}: redis: missing; it says where the online store is"
        raise OnlineWriteError(msg)
    made_of, feature_set = read_provenance(rows).get("feature_set"), feature_set_hash(declared, pipeline)
    if made_of != feature_set:
        msg = f"{rows}: is of feature set {made_of}, the pipeline of {feature_set}; run the backfill again"
        raise OnlineWriteError(msg)
    store, url = declared.sinks.online_store, resolve(redis.url, os.environ)
    try:
        with offline.progress_bar(console, "online write") as progress:
            done = write_online(url, store.prefix, declared, feature_set, batches_of(rows, declared, progress))
    except RedisError as error:
        msg = f"the online store of {environment}: {error}; nothing is lost: call it again when the store is back"
        raise OnlineWriteError(msg) from error
    console.print(
        f"[green]✓[/green] {shown(rows)}  {done.written:,} rows written, {done.fenced:,} older than what is there",
        highlight=False,
        soft_wrap=True,
    )


def batches_of(folder: Path, pipeline: Pipeline, progress: Callable[[int, int], None]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a folder with the numbers by which `write_online` tells which of one time came later.

    A folder has no stamps; but rows of a day, and so those of one time, stand in it in the order of their computation.
    """
    from udfs.core.plan.features import plan_stages
    from udfs.core.rows.batches import add_columns, seq_column

    found = ds.dataset(folder, format="parquet", partitioning=None)
    read, count = 0, found.count_rows()
    for file in sorted(found.files, key=_place):
        for batch in ds.dataset(file, format="parquet").to_batches(batch_size=BATCH_ROWS, use_threads=False):
            numbers = pa.array(range(read, read + batch.num_rows), pa.int64())
            yield add_columns(batch, {seq_column(stage.entity): numbers for stage in plan_stages(pipeline)})
            read += batch.num_rows
            progress(read, count)


def _place(file: str) -> tuple[str, int]:
    """Return day and number of a file: part-10 comes behind part-9."""
    path = Path(file)
    return path.parent.name, int(path.stem.rpartition("-")[2])
