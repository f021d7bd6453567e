"""`headrace state`: snapshots of what jobs know. Load, call, print; heavy libraries are imported by the commands."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flink_jobs import offline
from flink_jobs.config import DEFAULT_ENVIRONMENT, Environment, load_environment
from flink_jobs.project import shown
from udfs.core.declare.loading import load_pipeline, load_yaml, pipeline_folder
from udfs.core.errors import HeadraceError

if TYPE_CHECKING:
    from udfs.core.state.snapshot import Manifest

EXPORT_TIMEOUT_S = 1800.0
app = typer.Typer(
    help="Snapshots of what a job knows: export, build from past records, migrate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
PipelineOption = Annotated[
    Path, typer.Option("--pipeline", help="Pipeline folder, such as conf/flights.", callback=pipeline_folder)
]
EnvironmentOption = Annotated[
    Path, typer.Option("--environment", help="Environment file: topic prefix, cluster.", show_default="conf/local.yaml")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder to write, which does not exist yet.", file_okay=False)]


class ExportError(HeadraceError):
    """The export job failed."""


@app.command()
def export(
    savepoint: Annotated[str, typer.Argument(help="Path or URI of a savepoint, or of a checkpoint that was kept.")],
    out: OutOption,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
    *,
    on_cluster: Annotated[
        bool, typer.Option("--on-cluster", help="Read it on the cluster: where this machine cannot.")
    ] = False,
) -> None:
    """Export the state of a job that was stopped, with the records it had read and not featurized.

    Example: headrace state export file:///savepoints/savepoint-1a2b3c --out state
    """
    from flink_jobs.failures import submission_cause
    from flink_jobs.launch import is_local
    from flink_jobs.package import pack
    from flink_jobs.submit import EXPORT, submission
    from udfs.core.state.snapshot import SnapshotReader

    flink = (load_environment(environment) if on_cluster else load_yaml(environment, Environment)).flink
    arguments = (savepoint, str(out.absolute()))
    planned = submission(EXPORT, pack(), arguments, flink, local=is_local(environment))
    command = planned.command if on_cluster else (sys.executable, "-m", "flink_jobs.state_export", *arguments)
    console = Console()
    with console.status("reading the savepoint in a job of its own"):
        done = subprocess.run(
            command,
            env={**os.environ, **planned.variables},
            capture_output=True,
            text=True,
            timeout=EXPORT_TIMEOUT_S,
            check=False,
        )
    if done.returncode or not out.is_dir():
        cause = submission_cause(f"{done.stdout}\n{done.stderr}")
        msg = f"{savepoint} was not exported: {cause}"
        raise ExportError(msg)
    _print(SnapshotReader(str(out)).manifest, out, console)


@app.command()
def build(
    pipeline: PipelineOption,
    out: OutOption,
    source: offline.InputOption = None,
    enrichment: offline.EnrichmentOption = None,
    kafka: offline.KafkaOption = None,
    order: offline.OrderOption = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="SNAPSHOT", help="Take what this state has seen, and no more.")
    ] = None,
    threads: offline.ThreadsOption = offline.THREADS,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
) -> None:
    """Build the state that past records leave, so that long windows are right from the first minute.

    With --until, a state to migrate with: headrace state migrate … --bootstrap.

    Example: headrace state build --pipeline conf/flights --input flights.parquet --out state
    """
    from udfs.core.offline.state import build_state
    from udfs.core.state.snapshot import SnapshotReader, write_snapshot

    declared, console = load_pipeline(pipeline), Console()
    prefix = load_yaml(environment, Environment).kafka.topic_prefix
    what = offline.input_of(source, enrichment, kafka, order, environment)
    with tempfile.TemporaryDirectory(prefix="headrace-state-") as scratch, console.status("building the state"):
        records = what.open(declared, pipeline, Path(scratch))
        reader = SnapshotReader(until) if until else None
        built = build_state(declared, pipeline, records, threads, prefix, reader)
    _print(write_snapshot(out, built), out, console)


@app.command()
def migrate(
    snapshot: Annotated[str, typer.Argument(help="State snapshot, as `headrace state export` writes it.")],
    pipeline: PipelineOption,
    out: OutOption,
    bootstrap: Annotated[
        str | None, typer.Option(metavar="SNAPSHOT", help="Built from the same records, for what is new.")
    ] = None,
    environment: EnvironmentOption = DEFAULT_ENVIRONMENT,
) -> None:
    """Carry a state over to another feature set or number of lanes; the plan says what becomes of each feature.

    Example: headrace state migrate state --pipeline conf/flights --out migrated
    """
    from flink_jobs.migration_plan import print_migration
    from udfs.core.state.carry import carry
    from udfs.core.state.header import StateHeader
    from udfs.core.state.migration import plan_migration
    from udfs.core.state.snapshot import SnapshotReader, write_snapshot

    console = Console()
    prefix = load_yaml(environment, Environment).kafka.topic_prefix
    header = StateHeader.of(load_pipeline(pipeline).with_topic_prefix(prefix), pipeline)
    old = SnapshotReader(snapshot).whole()
    built = SnapshotReader(bootstrap).whole() if bootstrap else None
    print_migration(plan_migration(old.header, header, built.header if built else None), console)
    _print(write_snapshot(out, carry(old, header, built)), out, console)


def _print(manifest: "Manifest", out: Path, console: Console) -> None:
    waiting = sum(len(offsets) for partitions in manifest.pending.values() for offsets in partitions.values())
    lanes = "1 lane" if manifest.lanes == 1 else f"{manifest.lanes} lanes"
    console.print(
        f"[green]✓[/green] {shown(out)}  feature set {manifest.header.feature_set}, {lanes}, "
        f"{manifest.size_bytes / 1000:,.0f} kB, {waiting:,} records wait in it",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"start from it with: headrace run score … --bootstrap {shown(out)}", highlight=False, soft_wrap=True)
