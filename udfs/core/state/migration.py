"""The migration plan: what becomes of stored state when the definition of a job changes, feature by feature."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from udfs.core.declare.declarations import Enrichment
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.durations import format_duration
from udfs.core.errors import StateFormatError
from udfs.core.plan.features import Stage, plan_operators, plan_stages
from udfs.core.stage.store import Store
from udfs.core.state.header import StateHeader
from udfs.core.state.shapes import Shape, join_missing, join_name, missing_of, shape_name, shapes_of

Action = Literal["keep", "start empty", "bootstrap", "drop"]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one feature, or of one joined column."""

    column: str
    entity: str
    action: Action
    why: str


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """What becomes of a state. The names of the fields are the keys of its JSON."""

    pipeline: str
    old_feature_set: str
    new_feature_set: str
    old_lanes: int
    new_lanes: int
    changes: tuple[Change, ...]
    #: what else a person should know
    notes: tuple[str, ...]
    #: why the new definition cannot go on from the state as it is; empty: it can
    obstacles: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Say whether a job of the new definition can go on from the state as it is."""
        return not self.obstacles

    def lines(self) -> Iterator[str]:
        """Yield the plan as text: obstacles, then what is not simply kept, then notes."""
        yield from self.obstacles
        counts = Counter(change.action for change in self.changes)
        yield f"{counts['keep']} of {counts.total() - counts['drop']} features keep their state"
        for change in self.changes:
            if change.action != "keep":
                yield f"  {change.column}: {change.action}" + (f" ({change.why})" if change.why else "")
        yield from self.notes


def plan_migration(old: StateHeader, new: StateHeader, bootstrap: StateHeader | None = None) -> MigrationPlan:
    """Plan how a job goes on from the state of another definition.

    Parameters
    ----------
    old, new : of the stored state, and of the pipeline that is to go on from it
    bootstrap : of a state built by a backfill, from which features may be filled that the old state lacks

    Raises
    ------
    StateFormatError : a definition cannot be read by this code.
    """
    before, after = old.definition(), new.definition()
    built = _holdings(bootstrap.definition()) if bootstrap is not None else {}
    changes = tuple(_changes(before, after, _holdings(before), built))
    return MigrationPlan(
        after.name,
        old.feature_set,
        new.feature_set,
        before.lanes,
        after.lanes,
        changes,
        tuple(_notes(old, new, before, after)),
        tuple(_obstacles(before, after)),
    )


def refuse_unfit(old: StateHeader, new: StateHeader) -> None:
    """Raise StateFormatError, with the plan, if a job of `new` cannot go on from the state of `old` as it is."""
    plan = plan_migration(old, new)
    if not plan.fits:
        text = "\n".join(plan.lines())
        msg = f"the stored state does not fit pipeline {plan.pipeline}; {text}\nmigrate it: headrace state migrate"
        raise StateFormatError(msg)


#: (entity, name of the cut) -> what is held
Holdings = dict[tuple[str, str], Shape]


def _holdings(pipeline: Pipeline) -> Holdings:
    return {
        (stage.entity, shape.name): shape
        for stage in plan_stages(pipeline)
        for enrichment in (None, *stage.enrichments)
        for shape in shapes_of(stage, enrichment)
    }


def _changes(before: Pipeline, after: Pipeline, held: Holdings, built: Holdings) -> Iterator[Change]:
    known = dict(_columns(before))
    for column, entity in _columns(after):
        missing, missing_built = (_missing(after, column, entity, holdings) for holdings in (held, built))
        if missing is None:
            yield Change(column, entity, "keep", "" if column in known else "new, of state that is held already")
        elif missing_built is None:
            yield Change(column, entity, "bootstrap", missing)
        else:
            yield Change(column, entity, "start empty", missing)
    wanted = dict(_columns(after))
    yield from (Change(column, entity, "drop", "") for column, entity in known.items() if column not in wanted)


def _columns(pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    """Yield every column that state is kept for, with its entity."""
    for stage in plan_stages(pipeline):
        for enrichment in stage.enrichments:
            yield from ((column, stage.entity) for column in enrichment.take)
        yield from ((feature.name, stage.entity) for feature in stage.features)


def _missing(pipeline: Pipeline, column: str, entity: str, held: Holdings) -> str | None:
    stage = next(stage for stage in plan_stages(pipeline) if stage.entity == entity)
    for enrichment in stage.enrichments:
        if column in enrichment.take:
            return join_missing(enrichment, enrichment.take[column], held.get((entity, join_name(enrichment))))
    for track in stage.tracks:
        for feature in track.features:
            if feature.name == column:
                return missing_of(feature, track, held.get((entity, shape_name(track))))
    msg = f"{column} is no feature of {entity}"
    raise LookupError(msg)


def _notes(old: StateHeader, new: StateHeader, before: Pipeline, after: Pipeline) -> Iterator[str]:
    if old.derive and new.derive and old.derive != new.derive:
        columns = ", ".join(before.derive.outputs if before.derive else ())
        yield f"the derive function changed: what is kept of {columns} was computed by the old one"
    was_ms, is_ms = before.time.allowed_lateness_ms, after.time.allowed_lateness_ms
    if is_ms > was_ms:
        spans = f"from {format_duration(was_ms)} to {format_duration(is_ms)}"
        yield f"allowed_lateness grows {spans}: at first the windows of such late events lack their oldest tiles"
    if before.lanes != after.lanes:
        yield f"each key goes from its lane of {before.lanes} to its lane of {after.lanes}, with all it has"


def _obstacles(before: Pipeline, after: Pipeline) -> Iterator[str]:
    if before.lanes != after.lanes:
        yield f"it has {before.lanes} lanes, the pipeline {after.lanes}"
    for kind, was, now in (
        ("operator", _operators(before), _operators(after)),
        ("enrichment", {one.name for one in before.enrichments}, {one.name for one in after.enrichments}),
    ):
        if gone := sorted(was - now):
            yield f"{kind} {', '.join(gone)} is gone"
    stages = {stage.entity: stage for stage in plan_stages(before)}
    for stage in plan_stages(after):
        if stage.entity in stages:
            yield from _differences(stage.entity, _stores(before, stages[stage.entity]), _stores(after, stage))
    if before.time.duplicates_within_ms != after.time.duplicates_within_ms and before.time.duplicates_within_ms:
        yield "time.duplicates_within changed"


def _operators(pipeline: Pipeline) -> set[str]:
    return {stages[0].entity if len(stages) == 1 else "featurize" for stages in plan_operators(pipeline)}


def _stores(pipeline: Pipeline, stage: Stage) -> list[Store]:
    enrichments: tuple[Enrichment | None, ...] = (None, *stage.enrichments)
    return [Store(number, stage, pipeline.time, one) for number, one in enumerate(enrichments)]


def _differences(entity: str, was: list[Store], now: list[Store]) -> Iterator[str]:
    for old, new in zip(was, now, strict=False):
        layouts = [[track.layout.signature for track in store.cells.tracks] for store in (old, new)]
        if layouts[0] != layouts[1]:
            yield f"cells of {entity} are laid out as {layouts[0]}, the pipeline needs {layouts[1]}"
        elif old.log.bucket_ms != new.log.bucket_ms:
            yield f"the longest window of {entity}, its lateness or its kept history changed"
    if len(was) > len(now):
        yield f"{entity} joins fewer streams"
