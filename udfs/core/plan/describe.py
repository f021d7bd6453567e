"""The plan: what a pipeline comes to before it runs, as data: stages, features, state and its size, sinks, guarantees.

Sizes follow from the arrays of `cells.Track`; times from `lane.Lane` and `log.Log`. The tests hold them to those.
"""

from pathlib import Path

from udfs.core.declare.declarations import Enrichment, TimePolicy
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.feature import Feature
from udfs.core.plan.features import Spans, Stage, feature_columns, feature_set_hash, plan_stages
from udfs.core.plan.report import (
    ArmPlan,
    FeaturePlan,
    JoinPlan,
    LanePlan,
    LookupPlan,
    PlanReport,
    Runtime,
    SinkPlan,
    StagePlan,
    TrackPlan,
)
from udfs.core.plan.tracks import Reach, Track
from udfs.core.rows.lanes import key_group, lane_keys

CELL_BYTES, VALUE_BYTES = 4 * 8, 8
"""Of a cell: older, owner, tile and free, int64 each; and each float64 of its IRs."""
KEY_BYTES, TRACK_KEY_BYTES = 2 * 8 + 64 + 42 + 32 + 8, 8
"""Of a key: newest event time and birth, int64 each; as Python objects its text of up to 15 letters, its entry in the
index, its slot and its place in the list of names. And its head in each track. All arrays double when they are full.
"""


def describe(pipeline: Pipeline, folder: Path, runtime: Runtime) -> PlanReport:
    """Plan a pipeline.

    Parameters
    ----------
    pipeline : as declared, without a topic prefix
    folder : the pipeline folder, for its derive function
    runtime : what the environment decides

    Examples
    --------
    >>> from udfs.core.declare.loading import load_pipeline
    >>> runtime = Runtime(10, 5, 1, 5_000, 1, 128, exactly_once=True, online_store=True, topic_prefix="")
    >>> [stage.name for stage in describe(load_pipeline(Path("conf/flights")), Path("conf/flights"), runtime).stages]
    ['featurize-tailnum', 'featurize-origin', 'featurize-carrier']
    """
    feature_set = feature_set_hash(pipeline, folder)
    pipeline = pipeline.with_topic_prefix(runtime.topic_prefix)
    keys = lane_keys(pipeline.lanes, runtime.max_parallelism)
    groups = [key_group(key, runtime.max_parallelism) for key in keys]
    lanes = [
        # As Flink's KeyGroupRangeAssignment deals key groups out to subtasks.
        LanePlan(lane, key, group, group * runtime.parallelism // runtime.max_parallelism)
        for lane, (key, group) in enumerate(zip(keys, groups, strict=True))
    ]
    return PlanReport(
        pipeline=pipeline.name,
        description=pipeline.description,
        feature_set=feature_set,
        source_topic=pipeline.source.topic,
        source_key=pipeline.source.key,
        event_id=pipeline.contract.id or "",
        event_time=pipeline.contract.time,
        event_fields=len(pipeline.contract.fields),
        allowed_lateness_ms=pipeline.time.allowed_lateness_ms,
        future_tolerance_ms=pipeline.time.future_tolerance_ms,
        lookups=tuple(LookupPlan(one.name, one.file, one.key, tuple(one.take)) for one in pipeline.lookups),
        derive=pipeline.derive.function if pipeline.derive else None,
        derived=tuple(pipeline.derive.outputs) if pipeline.derive else (),
        lanes=tuple(lanes),
        stages=tuple(_stage(stage, pipeline.time) for stage in plan_stages(pipeline)),
        model=f"{pipeline.model.name}@{pipeline.model.alias}",
        arms=tuple(ArmPlan(one.name, one.role, f"{one.model}@{one.alias}", one.rows) for one in pipeline.model.models),
        routing_epoch=pipeline.model.routing_epoch(pipeline.source.key),
        routing_key=pipeline.model.routing.key or pipeline.source.key,
        fallback=pipeline.model.serving.fallback,
        inputs=feature_columns(pipeline),
        sinks=_sinks(pipeline, runtime),
        runtime=runtime,
    )


def _stage(stage: Stage, time: TimePolicy) -> StagePlan:
    lateness_ms = time.allowed_lateness_ms
    tracks = tuple(_track(track, lateness_ms) for track in stage.tracks)
    spans = Spans.of(stage, time, None)
    key_bytes = KEY_BYTES + TRACK_KEY_BYTES * len(tracks)
    return StagePlan(
        name=f"featurize-{stage.entity}",
        entity=stage.entity,
        features=tuple(_feature(feature) for feature in stage.features),
        tracks=tracks,
        joins=tuple(_join(enrichment, stage, time) for enrichment in stage.enrichments),
        key_bytes=key_bytes,
        key_bytes_max=key_bytes + sum(one.cells_per_key_max * one.cell_bytes for one in tracks),
        horizon_ms=spans.horizon_ms,
        retention_ms=spans.retention_ms,
    )


def _feature(feature: Feature) -> FeaturePlan:
    return FeaturePlan(
        feature.name,
        feature.entity,
        feature.of,
        feature.aggregation,
        feature.window.suffix,
        feature.size_ms,
        feature.slide_ms,
        Reach.of(feature).oldest + 1,
    )


def _track(track: Track, lateness_ms: int) -> TrackPlan:
    return TrackPlan(
        tile_ms=track.cut.tile_ms,
        windows=tuple(dict.fromkeys(feature.window.suffix for feature in track.features)),
        irs=tuple(str(ir) for ir in track.irs),
        cell_bytes=CELL_BYTES + VALUE_BYTES * track.width,
        cells_per_key_max=_cells_per_key(track, lateness_ms),
    )


def _cells_per_key(track: Track, lateness_ms: int) -> int:
    """Return how many cells a key may hold: a late event may still read as far behind the newest tile."""
    if track.cut.family == "tiles" and track.cut.tile_ms:
        return track.oldest + lateness_ms // track.cut.tile_ms + 2
    # Sessions within the allowed lateness, each at least its gap behind the one before.
    return 2 + lateness_ms // track.cut.tile_ms if track.cut.family == "sessions" and track.cut.tile_ms else 1


def _join(enrichment: Enrichment, stage: Stage, time: TimePolicy) -> JoinPlan:
    spans = Spans.of(stage, time, enrichment)
    return JoinPlan(
        name=enrichment.name,
        topic=enrichment.topic,
        key=enrichment.key,
        columns=tuple(enrichment.take),
        max_age_ms=enrichment.max_age_ms,
        keep_ms=enrichment.keep_ms,
        row_bytes=CELL_BYTES + VALUE_BYTES * len(enrichment.take),
        horizon_ms=spans.horizon_ms,
        retention_ms=spans.retention_ms,
    )


def _sinks(pipeline: Pipeline, runtime: Runtime) -> tuple[SinkPlan, ...]:
    sinks = pipeline.sinks
    kafka = "exactly once, visible at checkpoint" if runtime.exactly_once else "at least once, visible at once"
    topics = {"predictions": sinks.predictions, "rejects": sinks.rejects, "late": sinks.late, "order": sinks.order}
    found = [SinkPlan(name, f"topic {sink.topic}", kafka) for name, sink in topics.items()]
    if sinks.online_store is not None:
        fenced = "at least once, fenced by event time: effectively once"
        guarantee = fenced if runtime.online_store else "not written: the environment has no redis"
        found.append(SinkPlan("online_store", f"Redis {sinks.online_store.prefix}:<entity>:{{<key>}}", guarantee))
    return tuple(found)
