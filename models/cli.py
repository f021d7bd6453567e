"""`headrace models`: the commands, and training; load, call, print."""

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from models import commands, views
from models.console import MlflowOption, mlflow_uri, print_pairs, steps
from udfs.core.declare.loading import load_pipeline, pipeline_folder
from udfs.core.errors import HeadraceError

app = typer.Typer(help="Train models, register them, compare and promote them.", no_args_is_help=True)

DAY = ["%Y-%m-%d"]
MEASURES = {"AUC": "auc", "log loss": "log_loss", "Brier": "brier", "calibration error": "calibration_error"}


@app.command()
def train(
    pipeline: Annotated[Path, typer.Option(help="Pipeline folder.", callback=pipeline_folder)],
    history: Annotated[
        Path, typer.Option("--history", "--data", help="A history, or a training set that `headrace dataset` wrote.")
    ],
    train_until: Annotated[dt.datetime, typer.Option(formats=DAY, help="Train on events before this day, UTC.")],
    test_until: Annotated[dt.datetime, typer.Option(formats=DAY, help="Test on the events from there to this day.")],
    alias: Annotated[
        str | None,
        typer.Option(help="Point this alias at the new version.", show_default="the pipeline's model.alias"),
    ] = None,
    mlflow: MlflowOption = None,
    *,
    no_alias: Annotated[bool, typer.Option("--no-alias", help="Register only; every alias stays.")] = False,
) -> None:
    """Train on past events, prove the ONNX export, register the model and point the pipeline's alias at it."""
    from models.lifecycle import train_and_register  # the heavy libraries of training

    console = Console()
    with steps(console) as shown:
        moved = _alias(alias, pipeline, no_alias=no_alias)
        outcome = train_and_register(
            pipeline, history, train_until.date(), test_until.date(), mlflow_uri(mlflow), moved, report=shown.start
        )
    table = Table("", "model", "without windowed features", box=None)
    both = (outcome.model, outcome.baseline)
    for label, measure in MEASURES.items():
        table.add_row(label, *(f"{getattr(one.evaluation, measure):.4f}" for one in both))
    table.add_row("features", *(str(len(one.exported.contract.inputs)) for one in both))
    table.add_row("ONNX, max difference", *(f"{one.proof.max_difference:.1e}" for one in both))
    table.add_row("the same, with nulls", *(f"{one.proof.max_difference_with_nulls:.1e}" for one in both))
    console.print(table)
    trained, registered = outcome.trained, outcome.registered
    print_pairs(console, {
        "rows": f"{trained.train_rows:,} trained on, {len(trained.test):,} tested on",
        "positive": f"{outcome.model.evaluation.positive_rate:.1%} of those tested on",
        "registered": f"{registered.name} version {registered.version}"
        + (f", alias {registered.alias}" if registered.alias else "; no alias points at it"),
        "feature set": trained.feature_set,
        "sha256": outcome.model.exported.contract.sha256,
    })  # fmt: skip


def _alias(given: str | None, pipeline: Path, *, no_alias: bool) -> str | None:
    """Return the alias to move: the given one, else the one that the pipeline scores with; None for none."""
    if no_alias and given is not None:
        msg = f"got --alias {given} and --no-alias; give one of them"
        raise HeadraceError(msg)
    return None if no_alias else given or load_pipeline(pipeline).model.alias


app.command()(commands.register)
app.command("list")(views.list_)
app.command()(views.show)
app.command()(views.compare)
app.command()(commands.promote)
app.command()(commands.alias)
app.command()(commands.archive)
