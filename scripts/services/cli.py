"""`up`, `down` and `status` of the local services; load, call, print."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from scripts.services import services

app = typer.Typer(help="Kafka, Redis, MLflow and Flink on 127.0.0.1.", no_args_is_help=True, add_completion=False)

HomeOption = Annotated[
    Path | None,
    typer.Option(help="Folder of this set of services.", envvar="HEADRACE_HOME", show_default="build/local"),
]


@app.command()
def up(
    names: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None, home: HomeOption = None
) -> None:
    """Start services and wait until they are ready."""
    console = Console()
    found = services.up(home, names or services.ALL, console)
    for key, value in asdict(found).items():
        console.print(f"{key:<15} {value}", highlight=False, soft_wrap=True)


@app.command()
def down(home: HomeOption = None) -> None:
    """Stop all services; what they stored stays."""
    services.down(home, Console())


@app.command()
def status(*, home: HomeOption = None, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Say how each service is; exit code 1 when one is not up."""
    found = services.status(home)
    if as_json:
        typer.echo(json.dumps([asdict(service) for service in found], indent=2))
    else:
        table = Table("service", "state", "address", "pids", box=None)
        for service in found:
            table.add_row(service.name, service.state, service.address, " ".join(map(str, service.pids)))
        Console().print(table)
    raise typer.Exit(code=0 if all(service.state == "up" for service in found) else 1)
