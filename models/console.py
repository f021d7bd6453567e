"""What the commands of `headrace models` share: the registry's address, steps with their times, pairs and JSON."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from udfs.core.errors import HeadraceError
from udfs.core.home import services_home

MlflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow", envvar="MLFLOW_TRACKING_URI", help="MLflow URI.", show_default="the local one: build/local"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


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


class Steps:
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
def steps(console: Console) -> Iterator[Steps]:
    """Yield steps; the last one is through at the end of the block."""
    shown = Steps(console)
    try:
        yield shown
        shown.finish()
    finally:
        shown.abandon()


def print_pairs(console: Console, pairs: dict[str, str]) -> None:
    """Print names and texts in two columns."""
    width = max(map(len, pairs)) + 2
    for name, text in pairs.items():
        console.print(f"{name:<{width}}{text}", highlight=False, soft_wrap=True, markup=False)


def print_json(value: Any) -> None:
    """Print data as JSON."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
