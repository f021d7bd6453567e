"""`headrace kafka`: what a job left open in Kafka; load, call, print."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flink_jobs.config import DEFAULT_ENVIRONMENT, Environment, load_environment
from flink_jobs.rest import FlinkError, FlinkRest
from scripts.kafka import transactions as found_of
from scripts.kafka.errors import TopicError
from scripts.kafka.transactions import Transaction
from udfs.core.declare.loading import load_pipeline, pipeline_folder

app = typer.Typer(help="What jobs left in Kafka.", no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
transactions = typer.Typer(
    help="The transactions of a job: readers of committed records wait behind those that are open.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(transactions, name="transactions")

PipelineOption = Annotated[
    Path, typer.Option("--pipeline", help="Pipeline folder, such as conf/flights.", callback=pipeline_folder)
]
EnvironmentOption = Annotated[
    Path, typer.Option("--environment", help="Environment file.", show_default="conf/local.yaml, the local services")
]


@app.callback()
def kafka() -> None:
    """Hold `transactions` as a command of its own."""


@transactions.command("list")
def list_(
    pipeline: PipelineOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Those that are through, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; the keys are stable.")] = False,
) -> None:
    """Show the open transactions of a pipeline's job. A running job always has one.

    Example: headrace kafka transactions list --pipeline conf/flights
    """
    where = load_environment(environment)
    found = _found(pipeline, where, only_open=not all_)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    _print(found, Console(), _job_name(pipeline, where))


@transactions.command()
def abort(
    pipeline: PipelineOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also when Flink cannot say that no such job runs.")] = False,
) -> None:
    """Abort the open transactions of a job that will never go on.

    A job that was cancelled, or lost with its cluster, leaves a transaction
    open; readers of committed records wait behind it until the broker ends
    it, after `kafka.transaction_timeout`. This ends it now.

    [bold]The risk:[/bold] a checkpoint may hold what this transaction wrote as
    written. A job that goes on from that checkpoint reads on behind those
    events, and their outputs are lost for good. So: if the job is to go on,
    start it first (`headrace run score … --from CHECKPOINT`); it commits or
    aborts what it left. Abort only what nothing will ever be restored from.
    Readers never see what was aborted. A job that runs is never touched.

    Example: headrace kafka transactions abort --pipeline conf/flights
    """
    where = load_environment(environment)
    name, console = _job_name(pipeline, where), Console()
    _refuse_live(name, where.flink.rest_url, force=force)
    found = _found(pipeline, where, only_open=True)
    _print(found, console, name)
    if not found or not (yes or typer.confirm("Abort them? What they wrote is never seen, and cannot come back")):
        return
    found_of.abort(where.kafka.bootstrap_servers, [one.name for one in found])
    console.print(f"aborted {len(found)}", highlight=False)


def _found(pipeline: Path, where: Environment, *, only_open: bool) -> list[Transaction]:
    return found_of.transactions(where.kafka.bootstrap_servers, _job_name(pipeline, where), only_open=only_open)


def _job_name(pipeline: Path, where: Environment) -> str:
    return where.job_name(load_pipeline(pipeline).name)


def _refuse_live(name: str, rest_url: str, *, force: bool) -> None:
    try:
        live = [job for job in FlinkRest(rest_url).jobs() if job.name == name and not job.ended]
    except FlinkError as error:
        if force:
            return
        msg = f"{error}\nso nobody says that {name} does not run; if you are sure, add --force"
        raise TopicError(msg) from error
    if live:
        msg = f"{name} is {live[0].state}: its transactions are its own; stop it first: headrace stop {name}"
        raise TopicError(msg)


def _print(found: list[Transaction], console: Console, name: str) -> None:
    if not found:
        console.print(f"{name}: no open transaction", highlight=False)
        return
    table = Table("transaction", "state", "open for", "ends by itself after", "holds back", box=None)
    for one in found:
        age = "" if one.started_ms is None else f"{max(time.time() - one.started_ms / 1000, 0):.0f} s"
        places = ", ".join(f"{topic}/{partition}" for topic, partition in one.places)
        table.add_row(one.name, one.state, age, f"{one.timeout_ms / 1000:.0f} s", places)
    console.print(table)
