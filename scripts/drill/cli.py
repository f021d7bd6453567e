"""`python -m scripts.drill`: load, call, print. Exit code 1 where exactness fails; times are only reported."""

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from scripts.drill.report import failures, show
from scripts.drill.run import REPORT_FILE, hold
from scripts.drill.settings import FOLDER, DrillError, Settings
from udfs.core.errors import HeadraceError

DEFAULT = Settings()
app = typer.Typer(
    help="Promote, roll back and refuse models under load, and account for every event.", add_completion=False
)


@app.command()
def drill(
    rate: Annotated[float, typer.Option(help="Payments per second, in an open loop.", min=1)] = DEFAULT.rate,
    promotions: Annotated[int, typer.Option(help="Of good versions.", min=1)] = DEFAULT.promotions,
    rollbacks: Annotated[int, typer.Option(help="Promotions whose new job is ended from outside.", min=0)] = (
        DEFAULT.rollbacks
    ),
    interval_ms: Annotated[int, typer.Option(help="Checkpoint interval.", min=500)] = DEFAULT.checkpoint_interval_ms,
    calm_s: Annotated[float, typer.Option(help="Even running before each promotion.", min=0)] = DEFAULT.calm_s,
    folder: Annotated[Path, typer.Option(help="For services, logs and report; emptied first.")] = FOLDER,
    *,
    bad_models: Annotated[bool, typer.Option(help="Promote each kind of bad model, too.")] = True,
    keep_services: Annotated[bool, typer.Option("--keep-services", help="Leave them up, to look at.")] = False,
) -> None:
    """Hold a drill: about six minutes with the defaults, on services of its own."""
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console()
    settings = Settings(
        *(rate, promotions, rollbacks, bad_models, interval_ms, calm_s, folder.resolve(), keep_services)
    )
    try:
        report = hold(settings, console)
    except DrillError as error:
        console.print(f"[red]drill: {error}[/red]; logs are in {folder}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except HeadraceError as error:
        console.print(f"[red]drill: {error}[/red]", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    show(report, console)
    console.print(f"  report  {folder / REPORT_FILE}, {report.wall_s:.0f} s in all", highlight=False, soft_wrap=True)
    if failures(report):
        raise typer.Exit(1)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
