"""`demo`: load, call, print. Exit code 1 with a sentence when anything is not as it must be."""

import datetime as dt
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from models.training import Parameters
from scripts.demo.report import failures
from scripts.demo.run import REPORT_FILE
from scripts.demo.run import demo as run_demo
from scripts.demo.screen import show
from scripts.demo.settings import Settings

app = typer.Typer(help="Show everything on real flights.", add_completion=False)

_DAY = ["%Y-%m-%d"]
_INTERRUPTED = 130  # what a shell reports after Ctrl-C


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time())


_DEFAULT = Settings()
_START, _PACED, _END = _midnight(_DEFAULT.start), _midnight(_DEFAULT.paced_from), _midnight(_DEFAULT.end)
_HISTORY, _TRAIN = _midnight(_DEFAULT.history_start), _midnight(_DEFAULT.train_until)


@app.command()
def demo(
    start: Annotated[
        dt.datetime, typer.Option("--from", formats=_DAY, help="First scheduled day that goes through the job.")
    ] = _START,
    paced_from: Annotated[
        dt.datetime,
        typer.Option(formats=_DAY, help="First day sent at an even pace; earlier ones come as a backlog."),
    ] = _PACED,
    end: Annotated[dt.datetime, typer.Option("--to", formats=_DAY, help="Last scheduled day.")] = _END,
    history_from: Annotated[
        dt.datetime, typer.Option(formats=_DAY, help="First day of the history; its last is the one before --from.")
    ] = _HISTORY,
    train_until: Annotated[
        dt.datetime, typer.Option(formats=_DAY, help="Train on events before this day, test on those from it on.")
    ] = _TRAIN,
    trees: Annotated[int, typer.Option(help="Size of the model.", min=1)] = _DEFAULT.parameters.num_iterations,
    rate: Annotated[float, typer.Option(help="Events per second of the paced part.", min=1)] = _DEFAULT.rate_eps,
    *,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train even if an earlier demo did the same.")] = False,
    stop_services: Annotated[
        bool | None,
        typer.Option(
            "--stop-services/--keep-services",
            help="At the end, cancel the job and stop the services that this started.",
            show_default="stop where CI=true, else keep",
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder for history and report.")] = _DEFAULT.folder,
) -> None:
    """Show everything on real events: train, run the job, replay two months of flights, check every record, report."""
    console = Console()
    settings = Settings(
        history_start=history_from.date(),
        train_until=train_until.date(),
        start=start.date(),
        paced_from=paced_from.date(),
        end=end.date(),
        rate_eps=rate,
        parameters=Parameters(num_iterations=trees),
        retrain=retrain,
        folder=folder,
        stop_services=os.environ.get("CI") == "true" if stop_services is None else stop_services,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        report = run_demo(settings, console)
    except KeyboardInterrupt:
        console.print("[yellow]interrupted[/yellow]")
        raise typer.Exit(_INTERRUPTED) from None
    show(report, console)
    console.print(f"  report     {folder / REPORT_FILE}", highlight=False, soft_wrap=True)
    if not settings.stop_services:
        for name, address in report.pages.items():
            console.print(f"  {name:<10} {address}", highlight=False, soft_wrap=True)
        console.print("  job and services are still up; stop them with: headrace services down", highlight=False)
    console.print(f"  [bold]{report.wall_s:.0f} s[/bold] in all", highlight=False)
    if failures(report):
        raise typer.Exit(1)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
