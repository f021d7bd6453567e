"""`headrace deploy`: load, call, print; heavy libraries are imported by the commands."""

import datetime as dt
import getpass
import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flink_jobs.config import DEFAULT_ENVIRONMENT
from udfs.core.declare.loading import pipeline_folder

if TYPE_CHECKING:
    from flink_jobs.deploy.controller import Controller

POLL_S = 0.5
app = typer.Typer(
    help="Redeploy when a model is promoted: watch, apply, roll back; every step in a ledger.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
PipelineOption = Annotated[
    Path, typer.Option("--pipeline", help="Pipeline folder, such as conf/flights.", callback=pipeline_folder)
]
EnvironmentOption = Annotated[
    Path, typer.Option("--environment", help="Environment file.", show_default="conf/local.yaml, the local services")
]
VersionOption = Annotated[
    str | None, typer.Option("--version", help="Model version.", show_default="the one that the alias points at")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs; the keys are stable.")]


@app.command()
def watch(
    pipelines: Annotated[list[Path], typer.Option("--pipeline", help="Pipeline folder; repeatable.")],
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
) -> None:
    """Follow the model aliases of pipelines: a promotion redeploys, a failure rolls back. Ends with Ctrl-C or SIGTERM.

    Example: headrace deploy watch --pipeline conf/flights
    """
    from flink_jobs.deploy.watch import watch as follow

    console = Console()
    controllers = [_controller(pipeline_folder(one), environment, console) for one in pipelines]
    names = ", ".join(one.target.job_name for one in controllers)
    _say(console, f"following {names}; ledgers in {controllers[0].folder.parent}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        follow(controllers, lambda text: _say(console, text))
    except KeyboardInterrupt:
        _say(console, "ended; what was begun is finished by the next `headrace deploy watch`")


@app.command()
def apply(
    pipeline: PipelineOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    version: VersionOption = None,
    savepoint: Annotated[
        str | None, typer.Option("--from", metavar="SAVEPOINT", help="Where the job goes on if none runs.")
    ] = None,
) -> None:
    """Deploy now: a version in place of the one that runs, or a first job; also a version that went wrong before.

    Example: headrace deploy apply --pipeline conf/flights
    """
    console = Console()
    one = _controller(pipeline, environment, console)
    _ask(one, console, version, f"by hand: apply{f' {version}' if version else ''}", savepoint)


@app.command()
def rollback(
    pipeline: PipelineOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    version: Annotated[
        str | None, typer.Option("--version", help="Back to this one.", show_default="the one that ran before")
    ] = None,
) -> None:
    """Go back to the version that ran before; the one that runs now is not followed to again.

    Example: headrace deploy rollback --pipeline conf/flights
    """
    from flink_jobs.deploy.attempts import previous
    from flink_jobs.deploy.controller import DeployError

    console = Console()
    one = _controller(pipeline, environment, console)
    _, running = one.running()
    back = version or previous(one.ledger.lines(), running)
    if back is None:
        msg = f"{one.target.job_name}: the ledger knows no version before {running}; name one with --version"
        raise DeployError(msg)
    if running is not None:
        one.note("held", version=running, who=getpass.getuser(), why="rolled back from by hand")
    _ask(one, console, back, f"by hand: rollback from version {running}", None)


@app.command()
def status(
    pipeline: PipelineOption, environment: EnvironmentOption = DEFAULT_ENVIRONMENT, *, as_json: JsonOption = False
) -> None:
    """Say what runs, what the alias points at, and what is kept from being deployed.

    Example: headrace deploy status --pipeline conf/flights
    """
    from flink_jobs.deploy.attempts import why_not
    from flink_jobs.deploy.controller import process_of_lock
    from udfs.core.errors import ModelError

    one = _controller(pipeline, environment, Console(stderr=True))
    now, (job, running), lines = one.now(), one.running(), one.ledger.lines()
    alias: str | None = None
    try:
        alias = one.alias_version()
        is_manual, at_ms = one.rules.approve == "manual", int(time.time() * 1000)
        kept = why_not(now, alias, running, at_ms, one.rules.cooldown_ms, is_manual=is_manual)
    except ModelError as error:
        kept = str(error)
    last = now.last
    found = {
        "job": one.target.job_name,
        "job_id": job.job_id if job else None,
        "state": job.state if job else "none",
        "version": running,
        "alias_version": alias,
        "not_deployed_because": kept,
        "is_controlled": process_of_lock(one),
        "is_paused": now.is_paused,
        "held_versions": sorted(now.held),
        "last_attempt": {**last.asked, "ended": last.ended} if last else None,
        "ledger_lines": len(lines),
        "ledger_head": lines[-1].sha256 if lines else None,
    }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    result = last.ended["result"] if last and last.ended else "still open"
    table = Table(box=None, show_header=False)
    rows = {
        "job": f"{found['job']} {found['job_id'] or ''} {found['state']}",
        "version": running or "not known",
        "alias": f"version {alias}" if alias else "not known",
        "next": kept or "is to be deployed",
        "controller": "works" if found["is_controlled"] else "none; start one: headrace deploy watch",
        "last": f"version {last.asked['version']}: {result}" if last else "none",
        "ledger": f"{len(lines)} lines, head {found['ledger_head'] or 'none'}",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    Console(soft_wrap=True).print(table)


@app.command()
def history(
    pipeline: PipelineOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    *,
    lines: Annotated[bool, typer.Option("--lines", help="Every line of the ledger, as JSON.")] = False,
) -> None:
    """List the attempts: when, who, why, which version, how it ended.

    Example: headrace deploy history --pipeline conf/flights
    """
    from flink_jobs.deploy.attempts import attempts_of

    console = Console()
    written = _controller(pipeline, environment, console).ledger.lines()
    if lines:
        for line in written:
            typer.echo(line.encode().decode().rstrip())
        return
    table = Table("when", "attempt", "version", "was", "result", "who", "why", "reason", box=None)
    when = {line.fields["attempt"]: line.at_ms for line in written if line.event == "begun"}
    for one in attempts_of(written):
        asked, ended = one.asked, one.ended or {"result": "open", "reason": ""}
        at = dt.datetime.fromtimestamp(when[one.id] / 1000, dt.UTC).isoformat(sep=" ", timespec="seconds")
        was = asked["old_version"] or ""
        row: list[str] = [at, one.id, asked["version"], was, ended["result"], asked["who"], asked["why"]]
        table.add_row(*row, ended["reason"].partition("\n")[0])
    console.print(table)


@app.command()
def pause(pipeline: PipelineOption, environment: EnvironmentOption = DEFAULT_ENVIRONMENT) -> None:
    """Leave the job as it is, wherever the alias goes; `apply` and `rollback` still work.

    Example: headrace deploy pause --pipeline conf/flights
    """
    _note(pipeline, environment, "paused")


@app.command()
def resume(pipeline: PipelineOption, environment: EnvironmentOption = DEFAULT_ENVIRONMENT) -> None:
    """Follow the alias again.

    Example: headrace deploy resume --pipeline conf/flights
    """
    _note(pipeline, environment, "resumed")


@app.command()
def approve(
    pipeline: PipelineOption, environment: EnvironmentOption = DEFAULT_ENVIRONMENT, version: VersionOption = None
) -> None:
    """Let a version go out, where the environment says `deploy: {approve: manual}`.

    Example: headrace deploy approve --pipeline conf/flights --version 7
    """
    one = _controller(pipeline, environment, Console())
    chosen = version or one.alias_version()
    _note(pipeline, environment, "approved", version=chosen)


@app.command()
def verify(
    pipeline: PipelineOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    head: Annotated[
        str | None, typer.Option(help="Digest of a line that was noted elsewhere; it must be in the ledger.")
    ] = None,
) -> None:
    """Find the first line of the ledger that was edited, moved, removed or cut.

    Example: headrace deploy verify --pipeline conf/flights
    """
    one = _controller(pipeline, environment, Console(stderr=True))
    lines = one.ledger.verify(head)
    console = Console()
    last = lines[-1].sha256 if lines else "none"
    _say(console, f"{one.ledger.file}: {len(lines)} lines are as they were written; head {last}")
    if not one.ledger.has_head and lines:
        _say(console, "there is no head.json: lines cut off at the end would not be seen")


@app.command()
def render(
    pipeline: PipelineOption,
    version: Annotated[str, typer.Option("--version", help="Model version.")],
    image: Annotated[str, typer.Option(help="Image with Flink, Python, this package and its jars.")],
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    savepoint: Annotated[str | None, typer.Option("--from", metavar="SAVEPOINT", help="Start from there.")] = None,
    namespace: str = "default",
    *,
    patch: Annotated[bool, typer.Option("--patch", help="Only what a promotion changes, for kubectl patch.")] = False,
) -> None:
    """Print the FlinkDeployment of a version, for the Flink Kubernetes operator; nothing is sent to a cluster.

    Example: headrace deploy render --pipeline conf/flights --version 7 --image registry/headrace:0.1 --patch
    """
    from flink_jobs.config import load_environment
    from flink_jobs.deploy.kubernetes import manifest, patch_of, to_yaml
    from udfs.core.declare.loading import load_pipeline

    declared, settings = load_pipeline(pipeline), load_environment(environment)
    found = manifest(declared, pipeline, settings, environment, version, image, namespace, savepoint)
    typer.echo(to_yaml(patch_of(found) if patch else found), nl=False)


def _controller(pipeline: Path, environment: Path, console: Console) -> "Controller":
    from flink_jobs.deploy.controller import Controller
    from flink_jobs.deploy.target import Target

    return Controller(Target(pipeline, environment), lambda text: _say(console, text))


def _ask(one: "Controller", console: Console, version: str | None, why: str, savepoint: str | None) -> None:
    """Ask for a version; do it, or wait until the controller that works on the pipeline did."""
    from flink_jobs.deploy.attempts import attempts_of
    from flink_jobs.deploy.controller import DeployError, process_of_lock
    from flink_jobs.deploy.watch import look

    asked = one.note("requested", version=version, why=why, who=getpass.getuser(), savepoint=savepoint)
    if process_of_lock(one):
        _say(console, "a controller works on it; asked it to")
    while True:
        lines = one.ledger.lines()
        mine = [attempt for attempt in attempts_of(lines) if attempt.asked.get("request") == asked.number]
        ended = mine[-1].ended if mine else None
        refusals = [line.fields for line in lines if line.event == "answered"]
        refused = next((found["reason"] for found in refusals if found["request"] == asked.number), None)
        if ended is not None and ended["result"] == "deployed":
            return
        if ended is not None or refused is not None:
            msg = refused if ended is None else f"{ended['result']}: {ended['reason']}"
            raise DeployError(msg)
        if process_of_lock(one):
            time.sleep(POLL_S)
            continue
        with one.alone():
            look(one)


def _note(pipeline: Path, environment: Path, event: str, **fields: Any) -> None:
    console = Console()
    one = _controller(pipeline, environment, console)
    line = one.note(event, who=getpass.getuser(), **fields)
    _say(console, f"{one.target.job_name}: {event}{''.join(f' {value}' for value in fields.values())}")
    _say(console, f"line {line.number}, {line.sha256}")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
