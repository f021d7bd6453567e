"""`headrace`: what a person does with pipelines; load, call, print. Heavy libraries are imported by the commands."""

import json
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from flink_jobs import offline, online, parts, state
from flink_jobs.config import DEFAULT_ENVIRONMENT
from flink_jobs.parity import parity
from flink_jobs.project import conf_folder, project_root, shown
from udfs.core.declare.loading import PIPELINE_FILE, load_pipeline, load_yaml, pipeline_folder
from udfs.core.errors import DefinitionError, HeadraceError

EXAMPLES = """[bold]Examples[/bold]

headrace validate conf/flights  [dim]check it, without any service[/dim]

headrace plan --pipeline conf/flights  [dim]see what it comes to[/dim]

headrace run score --pipeline conf/flights  [dim]run it[/dim]

headrace status  [dim]see services and jobs[/dim]

headrace stop headrace-flights  [dim]end a job with a savepoint[/dim]

headrace demo  [dim]see the whole path on real flights[/dim]
"""
ORDER = (
    *("validate", "plan", "run", "status", "stop", "history", "backfill", "dataset", "parity", "state", "online"),
    *("models", "deploy", "kafka", "services", "flights", "demo", "schema"),
)


class _Commands(TyperGroup):
    """Lists commands as they are used, and says an error that was raised on purpose in one red paragraph.

    Those of the parts come here, too. Anything else is a bug and keeps its traceback.
    """

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            console = Console(stderr=True)
            if ctx.params.get("debug"):
                console.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)
            console.print(f"[red]headrace: {escape(str(error))}[/red]", highlight=False, soft_wrap=True)
            raise typer.Exit(code=1) from error


app = typer.Typer(
    cls=_Commands,
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
run = typer.Typer(help="Submit a job to Flink and wait until it runs.", no_args_is_help=True)
app.add_typer(run, name="run")

PipelineOption = Annotated[
    Path, typer.Option("--pipeline", help="Pipeline folder, such as conf/flights.", callback=pipeline_folder)
]
EnvironmentOption = Annotated[
    Path, typer.Option("--environment", help="Environment file.", show_default="conf/local.yaml, the local services")
]


@app.callback()
def headrace(
    *, debug: Annotated[bool, typer.Option("--debug", envvar="HEADRACE_DEBUG", help="Show tracebacks.")] = False
) -> None:
    """Lead a Kafka stream to a model: checked rows, windowed features, ONNX scores, exactly once, on Flink."""


@app.command()
def validate(
    pipelines: Annotated[
        list[Path] | None, typer.Argument(metavar="PIPELINE…", help="Pipeline folders.", show_default="all of conf/")
    ] = None,
) -> None:
    """Check pipelines: definition, lookup files, derive function; needs no service.

    Example: headrace validate conf/flights
    """
    from udfs.core.plan.checking import check_pipeline

    named = pipelines or sorted(conf_folder().glob(f"*/{PIPELINE_FILE}"))
    folders = [pipeline_folder(path) for path in named]
    if not folders:
        msg = f"{project_root() / 'conf'}: no folder in it has a {PIPELINE_FILE}; name one: headrace validate FOLDER"
        raise DefinitionError(msg)
    console, errors, wrong = Console(), Console(stderr=True), 0
    for folder in folders:
        try:
            found = check_pipeline(folder)
        except DefinitionError as error:
            wrong += 1
            errors.print(f"[red]✗ {escape(str(error))}[/red]", highlight=False, soft_wrap=True)
            continue
        console.print(
            f"[green]✓[/green] {shown(folder)}  feature set {found.feature_set}, {len(found.columns)} model inputs",
            highlight=False,
            soft_wrap=True,
        )
    raise typer.Exit(code=1 if wrong else 0)


@app.command()
def plan(
    pipeline: PipelineOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    stored: Annotated[
        str | None,
        typer.Option("--from", metavar="STATE", help="A savepoint or state snapshot: what becomes of each feature."),
    ] = None,
    bootstrap: Annotated[
        str | None, typer.Option(metavar="SNAPSHOT", help="With --from: what new features may be filled from.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; the keys are stable.")] = False,
) -> None:
    """Show what a pipeline comes to: stages, features, state and its size, sinks and guarantees.

    With --from, what becomes of stored state instead: keep, start empty,
    bootstrap or drop, feature by feature. Nothing is changed.

    Example: headrace plan --pipeline conf/flights --json
    """
    from flink_jobs import plan as planning
    from flink_jobs.config import Environment

    if stored is not None:
        from flink_jobs import migration_plan as migration

        found = migration.plan_from(stored, pipeline, bootstrap)
        if as_json:
            typer.echo(migration.to_json(found))
        else:
            migration.print_migration(found, Console())
        return
    report = planning.plan(load_pipeline(pipeline), pipeline, load_yaml(environment, Environment))
    if as_json:
        typer.echo(planning.to_json(report))
    else:
        planning.print_plan(report)


@run.command()
def score(
    pipeline: PipelineOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    savepoint: Annotated[str | None, typer.Option("--from", metavar="SAVEPOINT", help="Go on from there.")] = None,
    bootstrap: Annotated[
        str | None, typer.Option(metavar="SNAPSHOT", help="Start with this state, see `headrace state`.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Prepare all, show the flink line, stop there.")] = False,
) -> None:
    """Score events: with the local environment, missing services and topics are made first.

    Example: headrace run score --pipeline conf/flights --from file:///savepoints/savepoint-1a2b3c
    """
    from flink_jobs.launch import Launch, launch_score

    launch_score(Launch(pipeline, environment, savepoint, bootstrap, dry_run=dry_run), Console())


@run.command()
def archive(
    pipeline: PipelineOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    savepoint: Annotated[str | None, typer.Option("--from", metavar="SAVEPOINT", help="Go on from there.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Prepare all, show the flink line, stop there.")] = False,
) -> None:
    """Write predictions, rejects, late rows, order notes and labels as Parquet files by day.

    Example: headrace run archive --pipeline conf/flights
    """
    from flink_jobs.launch import Launch, launch_archive

    launch_archive(Launch(pipeline, environment, savepoint, dry_run=dry_run), Console())


@app.command()
def status(
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    *,
    all_jobs: Annotated[bool, typer.Option("--all", help="Jobs that have ended, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Jobs only, for programs.")] = False,
) -> None:
    """Show the services and the jobs: state, age, restarts, last checkpoint, last failure.

    Example: headrace status
    """
    from flink_jobs import status as reporting
    from flink_jobs.config import load_environment
    from flink_jobs.launch import is_local
    from flink_jobs.rest import FlinkRest

    console = Console()
    if is_local(environment) and not as_json and not reporting.print_services(console):
        console.print("start them with: headrace services up", highlight=False)
        raise typer.Exit(code=1)
    rest = FlinkRest(load_environment(environment).flink.rest_url)
    if as_json:
        typer.echo(json.dumps(reporting.jobs_status(rest), indent=2))
    else:
        reporting.print_jobs(rest, console, all_jobs=all_jobs)


@app.command()
def stop(
    job: Annotated[str, typer.Argument(help="Name, id, or start of an id, as in `headrace status`.")],
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    savepoint: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where the savepoint goes.", show_default="the environment's")
    ] = None,
    *,
    cancel: Annotated[bool, typer.Option("--cancel", help="End it at once, without a savepoint.")] = False,
) -> None:
    """Stop a job with a savepoint and print its path.

    Example: headrace stop headrace-flights
    """
    from flink_jobs.config import load_environment
    from flink_jobs.rest import FlinkRest

    flink = load_environment(environment).flink
    rest, console = FlinkRest(flink.rest_url), Console()
    found = rest.find(job)
    if cancel:
        rest.cancel(found.job_id)
        console.print(f"cancelled {found.name} {found.job_id}", highlight=False)
        return
    with console.status(f"stopping {found.name}"):
        path = rest.stop_with_savepoint(found.job_id, savepoint or flink.savepoints)
    typer.echo(path)
    kind = "archive" if found.name.endswith("-archive") else "score"
    Console(stderr=True).print(
        f"go on from it with: headrace run {kind} … --from {path}", soft_wrap=True, highlight=False
    )


@app.command()
def history(
    pipeline: PipelineOption,
    out: Annotated[
        Path, typer.Option("--out", help="Parquet file to write; an older one is replaced.", dir_okay=False)
    ],
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
) -> None:
    """Write what Kafka holds of a pipeline as a history, for backfills and training.

    Every committed record of its topics, in the order of Kafka timestamps, each
    partition in its own order. At equal times: enrichments, source, label.

    Example: headrace history --pipeline conf/orders --out orders.parquet
    """
    from flink_jobs.config import load_environment
    from flink_jobs.history import export_history

    console, environment_ = Console(), load_environment(environment)
    with offline.progress_bar(console, "history") as progress:
        counts = export_history(load_pipeline(pipeline), environment_.kafka, out, progress)
    for topic, count in counts.items():
        console.print(f"{count:>12,}  {topic}", highlight=False, soft_wrap=True)
    console.print(f"{counts.total():>12,}  {shown(out)}", highlight=False, soft_wrap=True)


for command in (offline.backfill, offline.dataset, parity):
    app.command()(command)


@app.command()
def schema() -> None:
    """Write the JSON Schemas of pipeline and environment files, for editors.

    Example: headrace schema
    """
    from flink_jobs.schema import write_schemas

    for path in write_schemas(conf_folder()):
        typer.echo(shown(path))


app.add_typer(state.app, name="state")
app.add_typer(online.app, name="online")
parts.mount(app)


def main() -> None:
    """Entry point of the command."""
    app()
