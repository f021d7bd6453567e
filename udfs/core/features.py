"""The feature plan: the stages, tracks and windows that feature groups come to, and the hash of the feature set."""

import ast
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from udfs.core.aggregations import AGGREGATIONS
from udfs.core.declarations import Enrichment
from udfs.core.definition import Pipeline
from udfs.core.durations import format_duration
from udfs.core.feature_groups import feature_name

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Feature:
    """One windowed feature: a column of the output."""

    entity: str
    #: aggregated column; None counts events
    of: str | None
    aggregation: str
    size_ms: int
    slide_ms: int

    @property
    def name(self) -> str:
        """Name of the column, such as `origin_dep_delay_min_mean_1h`."""
        return feature_name(self.entity, self.of, self.aggregation, self.size_ms)


@dataclass(frozen=True)
class Track:
    """The features of one entity that share a slide, hence their tiles; laid out for `kernels.windows`."""

    slide_ms: int
    features: tuple[Feature, ...]
    #: per IR: aggregated column and aggregation
    irs: tuple[tuple[str | None, str], ...]
    #: window sizes in tiles, ascending
    sizes: I64 = field(compare=False)

    @staticmethod
    def of(slide_ms: int, features: tuple[Feature, ...]) -> "Track":
        """Lay out the features, each IR once, the features ordered by window."""
        irs = tuple(dict.fromkeys((feature.of, feature.aggregation) for feature in features))
        sizes = np.array(sorted({feature.size_ms // slide_ms for feature in features}), np.int64)
        return Track(slide_ms, tuple(sorted(features, key=lambda feature: feature.size_ms)), irs, sizes)

    @property
    def opcodes(self) -> I64:
        """int64[k], the aggregation of each IR."""
        return np.array([AGGREGATIONS[name].opcode for _, name in self.irs], np.int64)

    @property
    def offsets(self) -> I64:
        """int64[k + 1], where each IR lies in a cell, in float64 values."""
        return np.cumsum([0, *(AGGREGATIONS[name].ir_width for _, name in self.irs)], dtype=np.int64)

    @property
    def columns(self) -> tuple[str, ...]:
        """The aggregated columns, each once."""
        return tuple(dict.fromkeys(of for of, _ in self.irs if of is not None))

    @property
    def inputs(self) -> I64:
        """int64[k], per IR the position of its column in `columns`, -1 where events are counted."""
        return np.array([-1 if of is None else self.columns.index(of) for of, _ in self.irs], np.int64)

    @property
    def feature_window(self) -> I64:
        """int64[f], per feature the position of its window in `sizes`."""
        return np.searchsorted(self.sizes, [feature.size_ms // self.slide_ms for feature in self.features])

    @property
    def feature_ir(self) -> I64:
        """int64[f], per feature the position of its IR in `irs`."""
        return np.array([self.irs.index((feature.of, feature.aggregation)) for feature in self.features], np.int64)

    @property
    def layout(self) -> str:
        """Text that changes whenever stored cells of this track would mean something else."""
        return format_duration(self.slide_ms) + ":" + ",".join(f"{name}({of or ''})" for of, name in self.irs)


@dataclass(frozen=True, slots=True)
class Stage:
    """All that happens for one entity type in one keyed operator."""

    entity: str
    tracks: tuple[Track, ...]
    enrichments: tuple[Enrichment, ...]
    #: windowed features in the order of declaration
    features: tuple[Feature, ...]

    @property
    def longest_ms(self) -> int:
        """Size of the longest window; 0 for a stage without windows."""
        return max((feature.size_ms for feature in self.features), default=0)

    @property
    def reach_ms(self) -> int:
        """How far behind an event its windows read: the longest window and one slide."""
        return self.longest_ms + max((track.slide_ms for track in self.tracks), default=0)


def plan_stages(pipeline: Pipeline) -> tuple[Stage, ...]:
    """Return the stages in data-path order: the entity of the Kafka key first, the others as declared."""
    entities = dict.fromkeys([pipeline.source.key, *(group.entity for group in pipeline.features)])
    stages = []
    for entity in entities:
        features = tuple(
            dict.fromkeys(
                Feature(entity, group.of, aggregation, size_ms, group.slide_ms)
                for group in pipeline.features
                if group.entity == entity
                for size_ms in group.over
                for aggregation in group.take
            )
        )
        slides = sorted({feature.slide_ms for feature in features})
        tracks = tuple(Track.of(s, tuple(feature for feature in features if feature.slide_ms == s)) for s in slides)
        joins = tuple(enrichment for enrichment in pipeline.enrichments if enrichment.entity == entity)
        stages.append(Stage(entity, tracks, joins, features))
    return tuple(stages)


def plan_operators(pipeline: Pipeline) -> tuple[tuple[Stage, ...], ...]:
    """Return the stages of each keyed operator: one operator for all where they share the one lane, else one each.

    Between two operators a batch is cut by the lane of the next entity; with one lane there is nothing to cut.
    """
    stages = plan_stages(pipeline)
    return (stages,) if pipeline.lanes == 1 else tuple((stage,) for stage in stages)


def feature_columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the ordered feature set: the model's event inputs, then the windowed features as declared."""
    windowed = {
        Feature(group.entity, group.of, aggregation, size_ms, group.slide_ms).name: None
        for group in pipeline.features
        for size_ms in group.over
        for aggregation in group.take
    }
    return (*pipeline.model.inputs, *windowed)


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
