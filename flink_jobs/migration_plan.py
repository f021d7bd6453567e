"""`headrace plan --from`: what becomes of stored state, as text and JSON; and where a state says what wrote it."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from flink_jobs.project import build_folder
from udfs.core.declare.loading import load_pipeline
from udfs.core.errors import StateFormatError
from udfs.core.state.header import StateHeader
from udfs.core.state.migration import MigrationPlan, plan_migration
from udfs.core.state.snapshot import MANIFEST_FILE, SnapshotReader

STYLES = {"keep": "green", "bootstrap": "cyan", "start empty": "yellow", "drop": "red"}


def plan_from(place: str, pipeline: Path, bootstrap: str | None) -> MigrationPlan:
    """Plan what becomes of the state at a place when a pipeline goes on from it; `bootstrap` is a place, too."""
    new = StateHeader.of(load_pipeline(pipeline), pipeline)
    return plan_migration(header_of(place), new, SnapshotReader(bootstrap).manifest.header if bootstrap else None)


def header_of(place: str) -> StateHeader:
    """Return what wrote a state snapshot, or a savepoint in Flink's canonical format.

    Raises
    ------
    HeadraceError : it is neither, or does not say so without a job.
    """
    if "://" in place and not place.startswith("file:"):
        try:
            return SnapshotReader(place).manifest.header
        except StateFormatError:
            pass  # a savepoint, then
    elif (Path(place.removeprefix("file:")) / MANIFEST_FILE).is_file():
        return SnapshotReader(place.removeprefix("file:")).manifest.header
    logs = build_folder() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("FLINK_LOG_DIR", str(logs))
    from flink_jobs.savepoint import read_savepoint

    header = read_savepoint(place).header
    if header is None:
        msg = (
            f"{place}: is no savepoint in canonical format, which alone can be read without a job; export it first: "
            f"headrace state export {place} --out FOLDER"
        )
        raise StateFormatError(msg)
    return header


def to_json(plan: MigrationPlan) -> str:
    """Return the plan as JSON; the keys are the names in `udfs.core.state.migration`."""
    return json.dumps({**asdict(plan), "fits": plan.fits}, indent=2)


def print_migration(plan: MigrationPlan, console: Console) -> None:
    """Print the plan for people."""
    console.print(render(plan), highlight=False, soft_wrap=True)


def render(plan: MigrationPlan) -> RenderableType:
    """Return the plan as text for a console."""
    sets = f"feature set {plan.old_feature_set} → {plan.new_feature_set}, lanes {plan.old_lanes} → {plan.new_lanes}"
    table = Table("feature", "entity", "state", "why", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for change in plan.changes:
        table.add_row(change.column, change.entity, Text(change.action, STYLES[change.action]), change.why)
    parts: list[RenderableType] = [Text.assemble((plan.pipeline, "bold"), f"  {sets}"), Text(""), table, Text("")]
    parts += [Text(note) for note in plan.notes]
    if plan.fits:
        parts.append(Text("a job can go on from it as it is", "green"))
    else:
        parts.append(Text("no job can go on from it as it is; migrate it: headrace state migrate", "red"))
        parts += [Text(f"  {one}") for one in plan.obstacles]
    return Group(*parts)
