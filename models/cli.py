"""`headrace models`: train, list and show; load, call, print."""

import datetime as dt
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from models.catalog import describe, list_models
from udfs.core.errors import HeadraceError
from udfs.core.home import services_home
from udfs.core.loading import load_pipeline

app = typer.Typer(help="Train models, register them, see what is registered.", no_args_is_help=True)

MlflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow", envvar="MLFLOW_TRACKING_URI", help="MLflow URI.", show_default="the local one: build/local"
    ),
]
DAY = ["%Y-%m-%d"]
MEASURES = {"AUC": "auc", "log loss": "log_loss", "Brier": "brier", "calibration error": "calibration_error"}


@app.command()
def train(
    pipeline: Annotated[Path, typer.Option(help="Pipeline folder.")],
    history: Annotated[Path, typer.Option(help="Parquet file of raw events, in the order of replay.")],
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
    """Train on a history, prove the ONNX export, register the model and point the pipeline's alias at it."""
    from models.lifecycle import train_and_register  # the heavy libraries of training

    console = Console()
    with _errors(), _steps(console) as steps:
        moved = _alias(alias, pipeline, no_alias=no_alias)
        outcome = train_and_register(
            pipeline, history, train_until.date(), test_until.date(), mlflow_uri(mlflow), moved, report=steps.start
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
    _print_pairs(console, {
        "rows": f"{trained.train_rows:,} trained on, {len(trained.test):,} tested on",
        "positive": f"{outcome.model.evaluation.positive_rate:.1%} of those tested on",
        "registered": f"{registered.name} version {registered.version}"
        + (f", alias {registered.alias}" if registered.alias else "; no alias points at it"),
        "feature set": trained.feature_set,
        "sha256": outcome.model.exported.contract.sha256,
    })  # fmt: skip


@app.command("list")
def list_(mlflow: MlflowOption = None) -> None:
    """List the registered models."""
    with _errors():
        found = list_models(mlflow_uri(mlflow))
    table = Table("model", "newest", "aliases", "description", box=None)
    for model in found:
        aliases = ", ".join(f"{alias} -> {version}" for alias, version in model.aliases.items())
        table.add_row(model.name, model.newest_version, aliases, model.description)
    Console().print(table if found else "no model is registered yet; train one with: headrace models train")


@app.command()
def show(
    reference: Annotated[str, typer.Argument(metavar="NAME[@ALIAS|/VERSION]", help="Default: the newest version.")],
    mlflow: MlflowOption = None,
) -> None:
    """Show one version of a model."""
    with _errors():
        found = describe(reference, mlflow_uri(mlflow))
    _print_pairs(Console(), {
        "model": f"{found.name} version {found.version}",
        "aliases": ", ".join(found.aliases) or "none",
        "pipeline": found.pipeline,
        "feature set": found.feature_set,
        "sha256": found.sha256,
        "run": found.run_id,
        **{name: f"{value:.6g}" for name, value in sorted(found.metrics.items())},
        **dict(sorted(found.params.items())),
    })  # fmt: skip


def _alias(given: str | None, pipeline: Path, *, no_alias: bool) -> str | None:
    """Return the alias to move: the given one, else the one that the pipeline scores with; None for none."""
    if no_alias and given is not None:
        msg = f"got --alias {given} and --no-alias; give one of them"
        raise HeadraceError(msg)
    return None if no_alias else given or load_pipeline(pipeline).model.alias


def mlflow_uri(given: str | None) -> str:
    """Return the MLflow URI: the given one, else the one of the local services.

    Raises
    ------
    HeadraceError : none is given and no local services were ever started.
    """
    if given:
        return given
    file = services_home() / "endpoints.json"
    try:
        return str(json.loads(file.read_text())["mlflow"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = (
            f"no MLflow URI ({file}: {type(error).__name__}); pass --mlflow, set MLFLOW_TRACKING_URI, or start"
            " the local one with: headrace services up"
        )
        raise HeadraceError(msg) from error


class _Steps:
    """Shows the step that runs, and leaves a line with its time."""

    def __init__(self, console: Console) -> None:
        self._console, self._status = console, console.status("")
        self._step, self._since_s = "", 0.0

    def start(self, step: str) -> None:
        """Note that a step starts, and with it that the one before is through."""
        self.finish()
        self._step, self._since_s = step, time.perf_counter()
        self._status.update(step)
        self._status.start()

    def finish(self) -> None:
        """Note that the running step is through."""
        self._status.stop()
        if self._step:
            self._console.print(f"{self._step:<10} {time.perf_counter() - self._since_s:6.1f} s", highlight=False)
        self._step = ""

    def abandon(self) -> None:
        """Take the spinner away."""
        self._status.stop()


@contextmanager
def _steps(console: Console) -> Iterator[_Steps]:
    steps = _Steps(console)
    try:
        yield steps
        steps.finish()
    finally:
        steps.abandon()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except HeadraceError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code=1) from error


def _print_pairs(console: Console, pairs: dict[str, str]) -> None:
    width = max(map(len, pairs)) + 2
    for name, text in pairs.items():
        console.print(f"{name:<{width}}{text}", highlight=False, soft_wrap=True)
