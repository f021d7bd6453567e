"""`headrace plan` as text and JSON: the data path as a tree, then features, state, sinks and settings as tables."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flink_jobs.config import Environment
from flink_jobs.environment import latency_knobs
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.durations import UNITS_MS, format_duration
from udfs.core.plan.describe import describe
from udfs.core.plan.features import plan_operators
from udfs.core.plan.report import PlanReport, Runtime, StagePlan

SHOWN_ENTITIES = 5
"""Of more models per entity than these the text says how many there are; JSON has them all."""
TEXT_WIDTH = 140
"""Columns of the text where the output is no terminal."""


def plan(pipeline: Pipeline, folder: Path, environment: Environment) -> PlanReport:
    """Plan a pipeline for an environment, whose references need not be resolved."""
    knobs = latency_knobs(pipeline.latency, len(plan_operators(pipeline)))
    flink = environment.flink
    runtime = Runtime(
        linger_ms=knobs.linger_ms,
        bundle_ms=knobs.bundle_ms,
        buffer_timeout_ms=knobs.buffer_timeout_ms,
        checkpoint_interval_ms=flink.checkpoint_interval_ms,
        parallelism=flink.parallelism,
        max_parallelism=flink.max_parallelism,
        exactly_once=flink.exactly_once,
        online_store=environment.redis is not None,
        topic_prefix=environment.kafka.topic_prefix,
    )
    return describe(pipeline, folder, runtime)


def to_json(report: PlanReport) -> str:
    """Return the plan as JSON; the keys are the names in `udfs.core.plan.report`."""
    return json.dumps(asdict(report), indent=2)


def print_plan(report: PlanReport) -> None:
    """Print the plan for people."""
    console = Console()
    if not console.is_terminal:
        console.width = TEXT_WIDTH
    console.print(render(report), highlight=False)


def render(report: PlanReport) -> RenderableType:
    """Return the plan as text for a console."""
    head = Text.assemble((report.pipeline, "bold"), f"  feature set {report.feature_set}, model {report.model}")
    parts: list[RenderableType] = [head]
    if report.description:
        parts.append(Text(report.description))
    tables = (_features(report), _state(report), _inputs(report), _sinks(report), _settings(report), _lanes(report))
    for part in (_path(report), *tables):
        parts += [Text(""), part]
    return Group(*parts)


def _path(report: PlanReport) -> Tree:
    runtime = report.runtime
    path = Tree(f"topic [bold]{report.source_topic}[/bold], key {report.source_key}")
    lanes = "1 lane" if len(report.lanes) == 1 else f"{len(report.lanes)} lanes"
    path.add(f"[bold]lanes[/bold]  {lanes} by {report.source_key}, micro-batches of {runtime.linger_ms} ms, in the JVM")
    path.add(
        f"[bold]decode, validate[/bold]  {report.event_fields} fields, id {report.event_id}, time {report.event_time}"
    )
    for lookup in report.lookups:
        path.add(f"[bold]lookup {lookup.name}[/bold]  {lookup.file} by {lookup.key}: {', '.join(lookup.columns)}")
    if report.derive is not None:
        path.add(f"[bold]derive[/bold]  {report.derive}: {', '.join(report.derived)}")
    for stage in report.stages:
        _add_stage(path, stage)
    scoring = path.add(f"[bold]score[/bold]  {report.model}, {len(report.inputs)} inputs")
    if len(report.arms) > 1:
        scoring.add(f"arms by {report.routing_key}, routing epoch {report.routing_epoch}")
        entities = [arm for arm in report.arms if arm.role == "entity"]
        for arm in report.arms:
            if arm not in entities[SHOWN_ENTITIES:]:
                scoring.add(f"[bold]{arm.name}[/bold]  {arm.model}: {escape(arm.rows)}")
        if len(entities) > SHOWN_ENTITIES:
            scoring.add(f"and {len(entities) - SHOWN_ENTITIES:,} more models per entity")
    if report.fallback:
        scoring.add(f"a batch that a model fails on: {', '.join(report.fallback)}")
    outputs = path.add("[bold]write[/bold]")
    for sink in report.sinks:
        outputs.add(f"{sink.name}  {sink.target}")
    return path


def _add_stage(path: Tree, stage: StagePlan) -> None:
    windows = dict.fromkeys(one.window for one in sorted(stage.features, key=lambda one: one.window_ms))
    what = f"{len(stage.features)} features over {', '.join(windows)}" if windows else "no features"
    branch = path.add(f"[bold]{stage.name}[/bold]  {what}")
    for join in stage.joins:
        branch.add(
            f"as-of join [bold]{join.name}[/bold]  topic {join.topic}, key {join.key}, at most "
            f"{format_duration(join.max_age_ms)} old: {', '.join(join.columns)}"
        )


def _features(report: PlanReport) -> Table:
    table = _table("feature", "is", "window", "slide", "tiles")
    for stage in report.stages:
        for one in stage.features:
            what = f"{one.aggregation} of {one.of or 'events'}"
            slide = format_duration(one.slide_ms) if one.slide_ms else ""
            table.add_row(one.column, what, one.window, slide, str(one.tiles))
    return table


def _state(report: PlanReport) -> Table:
    table = _table("state", "holds", "bytes each", "per key", "key forgotten after", "in the log for")
    for stage in report.stages:
        kept = (_span(stage.horizon_ms), _span(stage.retention_ms))
        if stage.tracks:
            table.add_row(stage.name, "keys: text, index, clocks", str(stage.key_bytes), "1", *kept)
        for track in stage.tracks:
            cut = f"of {format_duration(track.tile_ms)}" if track.tile_ms else "per key"
            holds = f"cells {cut}: {', '.join(track.irs)}"
            most = track.cells_per_key_max
            table.add_row(
                stage.name, holds, str(track.cell_bytes), f"≤ {most:,} = {most * track.cell_bytes:,} B", *kept
            )
        for join in stage.joins:
            holds = f"rows of {join.name}: {len(join.columns)} columns"
            kept = (_span(join.horizon_ms), _span(join.retention_ms))
            table.add_row(stage.name, holds, str(join.row_bytes), f"rows of {format_duration(join.keep_ms)}", *kept)
    return table


def _inputs(report: PlanReport) -> Group:
    named = [f"{i:>2} {name}" for i, name in enumerate(report.inputs)]
    return Group(Text("model inputs, in order", "bold"), Columns(named, padding=(0, 2), equal=True, column_first=True))


def _sinks(report: PlanReport) -> Table:
    table = _table("sink", "to", "guarantee")
    for sink in report.sinks:
        table.add_row(sink.name, sink.target, sink.guarantee)
    return table


def _settings(report: PlanReport) -> Table:
    runtime = report.runtime
    table = _table("setting", "", "why")
    for row in (
        ("linger", f"{runtime.linger_ms} ms", "micro-batch window in the JVM"),
        ("bundle", f"{runtime.bundle_ms} ms", "longest time a Python bundle stays open"),
        ("buffer timeout", f"{runtime.buffer_timeout_ms} ms", "longest time a record waits in a network buffer"),
        (
            "checkpoints",
            f"every {format_duration(runtime.checkpoint_interval_ms)}",
            "read_committed readers see results then" if runtime.exactly_once else "after a failure, results repeat",
        ),
        ("allowed lateness", format_duration(report.allowed_lateness_ms), "behind the newest event of the same key"),
        ("future tolerance", format_duration(report.future_tolerance_ms), "ahead of the Kafka timestamp"),
        ("parallelism", f"{runtime.parallelism} of {runtime.max_parallelism}", "the maximum is fixed with the state"),
    ):
        table.add_row(*row)
    return table


def _lanes(report: PlanReport) -> Table:
    table = _table("lane", "Flink key", "key group", "subtask")
    for lane in report.lanes:
        table.add_row(str(lane.lane), str(lane.key), str(lane.key_group), str(lane.subtask))
    return table


def _span(duration_ms: int) -> str:
    """Return a duration in its two largest units, rounded up in the second."""
    for unit, below in (("d", "h"), ("h", "m"), ("m", "s")):
        if duration_ms >= UNITS_MS[unit]:
            whole, rest_ms = divmod(duration_ms, UNITS_MS[unit])
            rest = -(-rest_ms // UNITS_MS[below])
            return f"{whole}{unit}" + (f" {rest}{below}" if rest else "")
    return format_duration(duration_ms)


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
