"""The parts of the command line that live elsewhere: imported only when they are called."""

from collections.abc import Callable
from importlib import import_module

import typer

from udfs.core.errors import HeadraceError

#: name -> (module that has the typer `app`, extra that brings its libraries, what it does)
PARTS = {
    "services": ("scripts.services.cli", "server", "Kafka, Redis, MLflow and Flink on this machine: up, down, status."),
    "models": ("models.cli", "train", "Train models, register them, see what is registered."),
    "deploy": ("flink_jobs.deploy.commands", "train", "Redeploy when a model is promoted, roll back, keep a ledger."),
    "kafka": ("scripts.kafka.cli", "server", "What jobs left open in Kafka: transactions list, abort."),
    "flights": ("scripts.flights.cli", "demo", "The flights of 2013 as event streams: replay, export, lookups."),
    "demo": ("scripts.demo.cli", "demo", "The whole path on real flights, on this machine."),
}
# Everything behind the name, `--help` too, is for the part to read.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def mount(app: typer.Typer) -> None:
    """Add every part as a command that hands its arguments over."""
    for name, (module, extra, help_) in PARTS.items():
        app.command(name, help=help_, context_settings=_PASS_ON, add_help_option=False)(_part(name, module, extra))


def _part(name: str, module: str, extra: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        try:
            part = import_module(module).app
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("flink_jobs", "models", "scripts", "udfs"):
                msg = f"headrace {name}: {error.name} is not installed here; install from a checkout of the project"
            else:
                msg = f"headrace {name} needs {package}; install it with: pip install 'headrace[{extra}]'"
            raise HeadraceError(msg) from error
        typer.main.get_command(part)(args=context.args, prog_name=f"headrace {name}")

    return run
