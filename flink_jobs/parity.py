"""`headrace parity`: load, call, print. Heavy libraries are imported by the command."""

import json
import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from flink_jobs.config import DEFAULT_ENVIRONMENT, load_environment
from flink_jobs.offline import EnvironmentOption, PipelineOption
from udfs.core.declare.durations import parse_duration_ms
from udfs.core.declare.loading import load_pipeline
from udfs.core.errors import HeadraceError

if TYPE_CHECKING:
    from flink_jobs.compare import Compared
    from udfs.core.offline.follow import Follower

METRICS_PORT = 9108


def parity(
    pipeline: PipelineOption,
    source: Annotated[
        Path | None, typer.Option("--input", help="History of what the job read.", show_default="its topics")
    ] = None,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    sample: Annotated[str, typer.Option("--sample", help="With --follow: share of the keys of each entity.")] = "1%",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="With --follow: loopback port of the metrics; 0: none.")
    ] = METRICS_PORT,
    during: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="With --follow: end after 10m.", show_default="Ctrl-C"),
    ] = None,
    *,
    archive: Annotated[bool, typer.Option("--archive", help="Read what it logged from the archive.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on beside a running job.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; the keys are stable.")] = False,
) -> None:
    """Compare the features that a job logged with a backfill of the same events, bit by bit.

    Each stage sees the rows in the order that the job has stamped on them. Exit
    code 1 if any value differs. Without --follow, all rows are held in memory.

    Example: headrace parity --pipeline conf/flights
    """
    from flink_jobs.compare import compare_logged, of_follower

    console = Console()
    if follow:
        if source is not None or archive:
            msg = "--follow: reads the topics of a running job; leave --input and --archive out"
            raise HeadraceError(msg)
        found = of_follower(_followed(pipeline, environment, share_of(sample), port, during, console))
    else:
        with console.status("comparing"):
            found = compare_logged(
                load_pipeline(pipeline), pipeline, load_environment(environment), source, archive=archive
            )
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
    else:
        _print(console, found)
    raise typer.Exit(code=0 if found.is_equal else 1)


def share_of(text: str) -> float:
    """Return a share such as `1%` or `0.01`, above 0 and up to 1.

    Raises
    ------
    HeadraceError : it is none.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        msg = f"--sample: got {text!r}; a share is above 0% and up to 100%, such as 1% or 0.01"
        raise HeadraceError(msg)
    return share


def _followed(
    pipeline: Path, environment: Path, share: float, port: int, during: str | None, console: Console
) -> "Follower":
    from flink_jobs.follow import follow_job, metrics

    definition = load_pipeline(pipeline)
    over_s = time.monotonic() + parse_duration_ms(during) / 1000 if during else math.inf
    with ExitStack() as stack:
        publish = stack.enter_context(metrics(definition.name, port)) if port else None
        status = stack.enter_context(console.status("following"))
        if publish is not None:
            Console(stderr=True).print(f"metrics: http://127.0.0.1:{port}/metrics", highlight=False)

        def report(follower: "Follower") -> None:
            if publish is not None:
                publish(follower)
            rows = max(one.rows for one in follower.features.values())
            status.update(f"{rows:,} rows compared, {follower.mismatches:,} differ, {follower.waiting:,} wait")

        return follow_job(
            definition, pipeline, load_environment(environment).kafka, share, lambda: time.monotonic() > over_s, report
        )


def _print(console: Console, found: "Compared") -> None:
    report = found.report
    counts = (Column(name, justify="right") for name in ("rows", "equal", "different", "missing"))
    table = Table("feature", *counts, box=None)
    for name, one in report.features.items():
        bad = (f"[red]{count:,}[/red]" if count else "0" for count in (one.different, one.missing))
        table.add_row(name, f"{one.rows:,}", f"{one.equal:,}", *bad)
    console.print(table)
    lines = [f"{report.rows:,} predictions compared, {report.mismatches:,} of them not bit-equal", *report.examples]
    if found.others:
        lines.append(f"{found.others:,} predictions of other feature sets were left out")
    if report.gaps:
        lines.append(f"{report.gaps:,} rows that a stage has seen were not logged; what they changed differs")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
