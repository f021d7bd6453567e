"""`headrace backfill` and `headrace dataset`: load, call, print. Heavy libraries are imported by the commands."""

import datetime as dt
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from flink_jobs.config import DEFAULT_ENVIRONMENT, load_environment
from flink_jobs.project import shown
from udfs.core.declare.durations import parse_duration_ms
from udfs.core.declare.loading import load_pipeline, pipeline_folder

if TYPE_CHECKING:
    from models.backfill import Counts
    from models.inputs import Input

DAY = ["%Y-%m-%d"]
THREADS = os.cpu_count() or 1


class ByOrder(StrEnum):
    """Orders of a backfill, see `models.inputs.Files`."""

    KAFKA = "kafka"
    EVENT_TIME = "event-time"


PipelineOption = Annotated[
    Path, typer.Option("--pipeline", help="Pipeline folder, such as conf/flights.", callback=pipeline_folder)
]
EnvironmentOption = Annotated[
    Path, typer.Option("--environment", help="Environment file, for --kafka.", show_default="conf/local.yaml")
]
InputOption = Annotated[
    Path | None,
    typer.Option("--input", help="A history, or Parquet or CSV files of the source: a file, or a folder of them."),
]
EnrichmentOption = Annotated[
    list[str] | None,
    typer.Option("--enrichment", metavar="NAME=FILES", help="Files of an enrichment, or NAME=none; not for a history."),
]
KafkaOption = Annotated[
    str | None,
    typer.Option("--kafka", metavar="FROM..TO", help="Read the topics: offsets or times of the source; .. for all."),
]
OrderOption = Annotated[
    ByOrder | None,
    typer.Option("--order", help="What windows see first.", show_default="kafka, for files of columns event-time"),
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads that work.", show_default="one per core")]


def backfill(
    pipeline: PipelineOption,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write; an older backfill is replaced.", file_okay=False)
    ],
    source: InputOption = None,
    enrichment: EnrichmentOption = None,
    kafka: KafkaOption = None,
    order: OrderOption = None,
    since: Annotated[
        dt.datetime | None, typer.Option("--since", formats=DAY, help="Rows of earlier days, UTC, only fill windows.")
    ] = None,
    threads: ThreadsOption = THREADS,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
) -> None:
    """Compute the features of past events with the code of the job, without a cluster.

    Writes Parquet, a partition per day, with _provenance.json and, in
    _letters.parquet, what was refused or late. The input may exceed memory.

    Example: headrace backfill --pipeline conf/flights --input flights.parquet --out features
    """
    from models.backfill import write_backfill

    console = Console()
    what = input_of(source, enrichment, kafka, order, environment)
    arguments = {"kafka": kafka, "order": order, "since": since and str(since.date())}
    with progress_bar(console, "backfill") as progress:
        counts = write_backfill(
            load_pipeline(pipeline), pipeline, what, out, threads, since and since.date(), arguments, progress
        )
    print_counts(console, counts, out)


def dataset(
    pipeline: PipelineOption,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write; an older training set is replaced.", file_okay=False)
    ],
    source: InputOption = None,
    enrichment: EnrichmentOption = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="Files of the labels; not for a history.")] = None,
    kafka: KafkaOption = None,
    order: OrderOption = None,
    as_of: Annotated[
        dt.datetime | None, typer.Option("--as-of", formats=DAY, help="Take labels known before this day, UTC.")
    ] = None,
    label_window: Annotated[
        str | None, typer.Option("--label-window", help="A label that comes later after its event does not count: 7d.")
    ] = None,
    train_until: Annotated[
        dt.datetime | None, typer.Option("--train-until", formats=DAY, help="With --test-until: column _split.")
    ] = None,
    test_until: Annotated[
        dt.datetime | None, typer.Option("--test-until", formats=DAY, help="Excluded, like it.")
    ] = None,
    threads: ThreadsOption = THREADS,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    *,
    unlabelled_negative: Annotated[
        bool, typer.Option("--unlabelled-negative", help="No label within the window: negative, not left out.")
    ] = False,
) -> None:
    """Make a point-in-time correct training set: features as of each event, labels as known later.

    For `headrace models train --data`. A label counts when it came after its
    event, before --as-of, and within --label-window; the last one counts.

    Example: headrace dataset --pipeline conf/flights --input flights.parquet --out training
    """
    from models.dataset import Split, midnight_ms, write_dataset
    from models.inputs import InputError
    from models.labels import Rules

    console = Console()
    if (train_until is None) != (test_until is None):
        msg = "got one of --train-until and --test-until; give both, or none"
        raise InputError(msg)
    if unlabelled_negative and label_window is None:
        msg = "--unlabelled-negative: needs --label-window, after which a label is taken to be missing for good"
        raise InputError(msg)
    rules = Rules(
        midnight_ms(as_of.date()) - 1 if as_of else None,
        parse_duration_ms(label_window) if label_window else None,
        unlabelled_negative,
    )
    split = Split(train_until.date(), test_until.date()) if train_until and test_until else None
    what = input_of(source, enrichment, kafka, order, environment, labels)
    arguments: dict[str, object] = {
        "kafka": kafka,
        "order": order,
        "label_window": label_window,
        "unlabelled_negative": unlabelled_negative,
    }
    for name, day in (("as_of", as_of), ("train_until", train_until), ("test_until", test_until)):
        arguments[name] = str(day.date()) if day else None
    with progress_bar(console, "dataset") as progress:
        made = write_dataset(load_pipeline(pipeline), pipeline, what, out, rules, split, threads, arguments, progress)
    print_counts(console, made.counts, out)
    found = made.labels.counts
    console.print(
        f"labels   {found.positive:,} positive, {found.negative:,} negative ({found.assumed_negative:,} assumed)"
    )
    console.print(f"left out {found.unlabelled:,} without a label, {found.null:,} with null")


def input_of(
    source: Path | None,
    enrichments: list[str] | None,
    kafka: str | None,
    order: ByOrder | None,
    environment: Path,
    labels: Path | None = None,
) -> "Input":
    """Return the input that options name.

    Raises
    ------
    HeadraceError : they name none, or several, or what is not there.
    """
    from flink_jobs.kafka_records import KafkaInput, Span
    from models.inputs import NONE, Files, InputError, Order, find_files

    by: Order | None = None if order is None else "kafka" if order is ByOrder.KAFKA else "event-time"
    if (source is None) == (kafka is None):
        msg = f"got {'neither' if source is None else 'both'} --input and --kafka; give one of them"
        raise InputError(msg)
    if source is None:
        if enrichments or labels:
            msg = "got --kafka with files beside it; the topics hold all records, leave the files out"
            raise InputError(msg)
        return KafkaInput(load_environment(environment).kafka, Span.parse(kafka or ""), by)
    named = {}
    for one in enrichments or []:
        name, is_pair, files = one.partition("=")
        if not is_pair:
            msg = f"--enrichment: got {one!r}; expected NAME=FILES, such as weather=weather.parquet, or NAME={NONE}"
            raise InputError(msg)
        named[name] = () if files == NONE else find_files(Path(files))
    return Files(find_files(source), named, by, find_files(labels) if labels else ())


def print_counts(console: Console, counts: "Counts", out: Path) -> None:
    """Print what became of the records."""
    lines = {
        "records": ", ".join(f"{count:,} {topic}" for topic, count in counts.records.items()),
        "rejects": _reasons(counts.letters["rejects"]),
        "late": _reasons(counts.letters["late"]),
        "rows": f"{counts.written:,} in {shown(out)}",
    }
    for name, text in lines.items():
        console.print(f"{name:<9}{text}", highlight=False, soft_wrap=True)


def _reasons(counts: Counter[str]) -> str:
    of = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()) if reason != "late")
    return f"{counts.total():,}" + (f" ({of})" if of else "")


class _Rate(ProgressColumn):
    """Records per second."""

    def render(self, task: Task) -> Text:
        """Return the text."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:>11,.0f} records/s", style="progress.data.speed")


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the block runs; yields what takes the number of records read, and of all."""
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        yield lambda read, rows: progress.update(bar, completed=read, total=max(read, rows))
        task = progress.tasks[0]
        progress.update(bar, completed=task.total or 0)
