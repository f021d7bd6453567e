"""The feature plan: the stages, tracks and windows that feature groups come to, and the hash of the feature set."""

import ast
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from udfs.core.declare.declarations import Enrichment, TimePolicy
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.expansion import group_features
from udfs.core.declare.feature import Feature
from udfs.core.declare.feature_groups import FeatureGroup
from udfs.core.plan.tracks import Cut, Track


@dataclass(frozen=True, slots=True)
class Stage:
    """All that happens for one entity type in one keyed operator."""

    entity: str
    tracks: tuple[Track, ...]
    enrichments: tuple[Enrichment, ...]
    #: windowed features in the order of declaration
    features: tuple[Feature, ...]
    #: fields that make the entity; one or more
    fields: tuple[str, ...]

    @property
    def longest_ms(self) -> int:
        """Size of the longest window; 0 for a stage without windows."""
        return max((feature.size_ms + (feature.window.delay_ms or 0) for feature in self.features), default=0)


@dataclass(frozen=True, slots=True)
class Spans:
    """How long one stream's state is kept, all in ms of event time."""

    #: how far behind the newest event of its key a row may be
    lateness_ms: int
    #: a key that the lane's clock has left this far behind is forgotten
    horizon_ms: int
    #: how far behind an event its windows and joins read
    longest_ms: int
    #: a cell leaves the durable log once the lane's clock is this far ahead of it
    retention_ms: int

    @staticmethod
    def of(stage: Stage, policy: TimePolicy, enrichment: Enrichment | None) -> "Spans":
        """Return the spans of the scored events, or of an enrichment, in a stage."""
        tracks = tuple(one for one in stage.tracks if one.cut.stream == (enrichment.name if enrichment else None))
        longest_ms = max(reach_ms(tracks), enrichment.max_age_ms if enrichment else 0)
        lateness_ms = enrichment.keep_ms if enrichment else policy.allowed_lateness_ms
        horizon_ms = policy.horizon_ms(longest_ms, lateness_ms)
        if any(track.cut.start is not None for track in tracks):
            longest_ms = max(longest_ms, horizon_ms)  # what a condition started goes on until it was idle for a horizon
        tile_ms = max([1, *(track.cut.tile_ms for track in tracks if track.cut.family == "tiles")])
        # One tile more: how far a read from afar reaches is counted in tiles, and a cell is as old as its tile's start.
        return Spans(lateness_ms, horizon_ms, longest_ms, horizon_ms + lateness_ms + longest_ms + tile_ms)


def reach_ms(tracks: tuple[Track, ...]) -> int:
    """Return how far behind an event the windows of some tracks read: the longest window and one slide."""
    return max((track.reach_ms for track in tracks), default=0)


def windowed_features(pipeline: Pipeline) -> tuple[Feature, ...]:
    """Return the windowed features of all groups, in the order of declaration."""
    return tuple(one for group in pipeline.features for one in group_features(group, _types(pipeline, group)))


def _types(pipeline: Pipeline, group: FeatureGroup) -> dict[str, str]:
    """Return the types of the columns of a group's stream, as far as the definition tells."""
    contracts = {one.name: one.contract for one in pipeline.enrichments}
    contract = contracts[group.stream] if group.stream else pipeline.contract
    derived = pipeline.derive.outputs if pipeline.derive and not group.stream else {}
    return {name: spec.kind for name, spec in contract.fields.items()} | derived


def plan_stages(pipeline: Pipeline) -> tuple[Stage, ...]:
    """Return the stages in data-path order: the entity of the Kafka key first, the others as declared."""
    key = pipeline.source.key
    entities = {key: (key,)} | {group.entity_name: group.fields for group in pipeline.features}
    windowed = windowed_features(pipeline)
    stages = []
    for entity, fields in entities.items():
        features = tuple(feature for feature in windowed if feature.entity == entity)
        kinds: dict[tuple[Cut, bool], list[Feature]] = {}
        for feature in features:
            kinds.setdefault((Cut.of(feature), feature.is_flat), []).append(feature)
        tracks = sorted((Track.of(cut, some) for (cut, _), some in kinds.items()), key=lambda track: track.layout)
        joins = tuple(enrichment for enrichment in pipeline.enrichments if enrichment.entity == entity)
        stages.append(Stage(entity, tuple(tracks), joins, features, fields))
    return tuple(stages)


def order_places(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the places of which a row carries a stamp [lane, number] once it has passed all stages.

    They are the entities of the stages, where the number is the row's own in its lane, and the joins that are waited
    for (`Enrichment.place`), where it says how many rows the lane had seen when the row was joined.
    """
    stages = plan_stages(pipeline)
    waits = (join.place for stage in stages for join in stage.enrichments if join.wait_ms)
    return (*(stage.entity for stage in stages), *waits)


def plan_operators(pipeline: Pipeline) -> tuple[tuple[Stage, ...], ...]:
    """Return the stages of each keyed operator: one operator for all where they share the one lane, else one each.

    Between two operators a batch is cut by the lane of the next entity; with one lane there is nothing to cut.
    """
    stages = plan_stages(pipeline)
    return (stages,) if pipeline.lanes == 1 else tuple((stage,) for stage in stages)


def feature_columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the ordered feature set: the model's event inputs, then the windowed features as declared."""
    numbers = (one.name for one in windowed_features(pipeline) if one.gives == "float64")
    return (*pipeline.model.inputs, *numbers)


def other_columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the windowed features that are no numbers, which no model takes: texts, lists and mappings."""
    return tuple(one.name for one in windowed_features(pipeline) if one.gives != "float64")


def feature_set_hash(pipeline: Pipeline, folder: Path) -> str:
    """SHA-256 (first 16 hex digits) of the declarations that decide the value of a feature.

    The derive function enters by its syntax: formatting and comments do not change the hash. The contents of lookup
    files do not enter either, since they may be renewed under a model.
    """
    definition = pipeline.model_dump(
        mode="json", by_alias=True, include={"contract", "lookups", "enrichments", "derive", "features"}
    )
    for enrichment in definition["enrichments"]:
        del enrichment["topic"]
    definition["columns"] = feature_columns(pipeline)
    if pipeline.derive is not None:
        source = folder / pipeline.derive.function.partition(":")[0]
        definition["derive_source"] = ast.unparse(ast.parse(source.read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:16]
