"""The plan of a pipeline as plain data: what `plan.describe` returns and `headrace plan` prints.

The names of the fields are the keys of its JSON.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the environment decides, passed in."""

    #: micro-batch window in the JVM
    linger_ms: int
    #: longest time a Python bundle stays open
    bundle_ms: int
    #: longest time a record waits in a network buffer
    buffer_timeout_ms: int
    checkpoint_interval_ms: int
    parallelism: int
    max_parallelism: int
    exactly_once: bool
    #: False: the environment has no online store
    online_store: bool
    topic_prefix: str


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """One windowed feature."""

    column: str
    entity: str
    of: str | None
    aggregation: str
    #: as in its name: 1h, tumbling_1d, session_30m, last_10, lifetime
    window: str
    #: length of a sliding or tumbling window, gap of a session, 0 for the others
    window_ms: int
    #: width of a tile of a sliding window
    slide_ms: int
    #: tiles or events folded for a value, the partial newest one included
    tiles: int


@dataclass(frozen=True, slots=True)
class TrackPlan:
    """The features of one entity that share their cells."""

    #: width of a tile, gap of a session, 0: one cell per key
    tile_ms: int
    windows: tuple[str, ...]
    #: partial aggregates of a cell, such as `mean(dep_delay_min)`
    irs: tuple[str, ...]
    #: memory of one cell
    cell_bytes: int
    #: cells of a key that has events in every tile
    cells_per_key_max: int


@dataclass(frozen=True, slots=True)
class JoinPlan:
    """One enrichment, joined as of the event's time."""

    name: str
    topic: str
    key: str
    columns: tuple[str, ...]
    max_age_ms: int
    #: history kept behind the newest row of a key
    keep_ms: int
    #: memory of one stored row
    row_bytes: int
    #: a key is forgotten once the lane's clock is this far ahead of its newest row
    horizon_ms: int
    #: a stored row leaves the durable log once the lane's clock is this far ahead of it
    retention_ms: int


@dataclass(frozen=True, slots=True)
class StagePlan:
    """All that happens for one entity type in one keyed operator."""

    #: uid of the operator
    name: str
    entity: str
    features: tuple[FeaturePlan, ...]
    tracks: tuple[TrackPlan, ...]
    joins: tuple[JoinPlan, ...]
    #: memory of one key without its cells: text, index and clocks
    key_bytes: int
    #: memory of the window state of one key, at most; the arrays double when full
    key_bytes_max: int
    #: a key is forgotten once the lane's clock is this far ahead of its newest event
    horizon_ms: int
    #: a cell leaves the durable log once the lane's clock is this far ahead of it
    retention_ms: int


@dataclass(frozen=True, slots=True)
class LookupPlan:
    """One table that is read at job start."""

    name: str
    file: str
    key: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SinkPlan:
    """One place that results go to."""

    name: str
    target: str
    guarantee: str


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """One model that the job loads."""

    name: str
    #: champion, challenger, canary, shadow or previous
    role: str
    #: registered model and alias
    model: str
    #: which rows it answers
    rows: str


@dataclass(frozen=True, slots=True)
class LanePlan:
    """One lane and where it runs."""

    lane: int
    #: integer that Flink is keyed by
    key: int
    key_group: int
    subtask: int


@dataclass(frozen=True, slots=True)
class PlanReport:
    """A pipeline, planned."""

    pipeline: str
    description: str
    feature_set: str
    source_topic: str
    source_key: str
    event_id: str
    event_time: str
    event_fields: int
    allowed_lateness_ms: int
    future_tolerance_ms: int
    lookups: tuple[LookupPlan, ...]
    derive: str | None
    derived: tuple[str, ...]
    lanes: tuple[LanePlan, ...]
    stages: tuple[StagePlan, ...]
    model: str
    #: the champion first
    arms: tuple[ArmPlan, ...]
    #: hash of all that decides which arm answers
    routing_epoch: str
    #: key by which rows are dealt out to arms
    routing_key: str
    #: what answers when a model fails, in order
    fallback: tuple[str, ...]
    #: the feature set, in the order of the model's input
    inputs: tuple[str, ...]
    sinks: tuple[SinkPlan, ...]
    runtime: Runtime
