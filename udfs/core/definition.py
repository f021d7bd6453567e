"""The pipeline definition: what a user declares in `conf/<name>/pipeline.yaml`, as frozen pydantic models.

Only the shape and the cross-references are checked here; files are read by `loading`, features planned by `features`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from udfs.core.aggregations import AGGREGATIONS
from udfs.core.contract import Contract, Declared, FieldType
from udfs.core.durations import DurationMs, format_duration
from udfs.core.errors import did_you_mean

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]
AggregationName = Literal["count", "sum", "mean", "min", "max", "std"]


def feature_name(entity: str, of: str | None, aggregation: str, size_ms: int) -> str:
    """Name of a windowed feature's column.

    Examples
    --------
    >>> feature_name("origin", "dep_delay_min", "mean", 3_600_000)
    'origin_dep_delay_min_mean_1h'
    """
    return "_".join([entity, *([of] if of else []), aggregation, format_duration(size_ms)])


MAX_TILES = 20_000


class Source(Declared):
    """The topic whose events are scored."""

    topic: Topic = Field(description="topic that is read from")
    format: Literal["json"] = Field("json", description="how an event is written: one JSON object")
    key: str = Field(description="field that the Kafka key repeats; it names the first entity and picks the lane")


class Lookup(Declared):
    """Columns added from a table that is read once at job start; a key that is not in the table gives nulls."""

    name: Column = Field(description="what error messages call it")
    file: str = Field(description="CSV or Parquet file, relative to the pipeline folder")
    key: str = Field(description="event field that is looked up")
    file_key: str | None = Field(None, description="key column of the file; default: the same name as `key`")
    take: dict[Column, str] = Field(description="new column -> column of the file")


class Enrichment(Declared):
    """Columns joined from another stream: its latest row at or before the event, not older than `max_age`."""

    name: Column = Field(description="names its operators; keep it for the life of the state")
    topic: Topic = Field(description="topic of the other stream")
    contract: Contract = Field(description="contract of its events")
    key: str = Field(description="field of this stream that its Kafka key repeats")
    entity: str = Field(description="entity of the pipeline that the key is matched with")
    max_age_ms: DurationMs = Field(alias="max_age", description="an older row counts as none (nulls)")
    keep_ms: DurationMs = Field(
        alias="keep", description="history kept per key, behind its newest row, so that a backlog joins rightly"
    )
    take: dict[Column, str] = Field(description="new column -> field of this stream (numbers)")


class Derive(Declared):
    """Columns computed by a Python function from Arrow columns, row by row, after lookups."""

    function: str = Field(description="`file.py:function`, the file in the pipeline folder", pattern=r"^.+\.py:\w+$")
    outputs: dict[Column, FieldType] = Field(description="new column -> type")


class FeatureGroup(Declared):
    """Windowed features: every aggregation of `take` over every window of `over`, per `entity`."""

    entity: str = Field(description="field that says what the feature is about; null has no features")
    of: str | None = Field(None, description="number that is aggregated; may be left out for `count`")
    take: Annotated[tuple[AggregationName, ...], Field(min_length=1, description="aggregations, see their table")]
    over: Annotated[tuple[DurationMs, ...], Field(min_length=1, description="window sizes")]
    slide_ms: DurationMs = Field(60_000, alias="slide", description="width of a tile; sizes are whole multiples")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its columns, in their order."""
        return tuple(feature_name(self.entity, self.of, one, size_ms) for size_ms in self.over for one in self.take)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.slide_ms == 0:
            msg = "slide: got 0; a tile is at least 1ms wide"
            raise ValueError(msg)
        for size_ms in self.over:
            if size_ms // self.slide_ms > MAX_TILES:
                msg = (
                    f"over: got {format_duration(size_ms)} with a slide of {format_duration(self.slide_ms)}; a window "
                )
                msg += f"has at most {MAX_TILES} tiles: choose a wider slide"
                raise ValueError(msg)
            if size_ms == 0 or size_ms % self.slide_ms:
                slide = format_duration(self.slide_ms)
                msg = f"over: got {format_duration(size_ms)}; a window is a whole multiple of its slide ({slide})"
                raise ValueError(msg)
        if self.of is None and any(AGGREGATIONS[name].needs_value for name in self.take):
            msg = f"of: missing; only count can do without a value, got take: [{', '.join(self.take)}]"
            raise ValueError(msg)
        return self


class ModelReference(Declared):
    """The model that scores, by its registry alias, and its inputs."""

    name: str = Field(description="registered model name in MLflow", pattern=r"^[^/:.%\"']+$")
    alias: str = Field("champion", description="registry alias, resolved to a version once, at submission")
    inputs: tuple[str, ...] = Field(
        (), description="number columns fed to the model before the windowed features: fields, lookups, joins, derived"
    )


class Label(Declared):
    """The truth that arrives later, for training and evaluation."""

    topic: Topic = Field(description="topic of the labels")
    contract: Contract = Field(description="contract of its events; its `id` is matched with the id of the event")
    of: str = Field(description="number that decides the class")
    above: float = Field(description="the event is positive when `of` is above this")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.of not in self.contract.fields:
            msg = f"of: got {self.of!r}, which is no field of its contract{did_you_mean(self.of, self.contract.fields)}"
            raise ValueError(msg)
        return self


class TopicSink(Declared):
    """A Kafka topic written exactly once."""

    topic: Topic = Field(description="topic that is written to")


class PredictionSink(TopicSink):
    """The topic of the predictions."""

    features: bool = Field(True, description="write the feature values into each prediction")


class OnlineStore(Declared):
    """Latest feature values per entity in Redis: at least once, fenced by event time."""

    prefix: Name = Field(description="start of every key: `<prefix>:<entity>:{<key>}`")


class Sinks(Declared):
    """Where results go."""

    predictions: PredictionSink = Field(description="one record per scored event, its id as the key")
    rejects: TopicSink = Field(
        description="events that failed decode, contract or rule: original bytes, reason as headers"
    )
    late: TopicSink = Field(description="events behind the allowed lateness: original bytes, reason as headers")
    order: TopicSink = Field(description="where each row of an enrichment came in its lane's order, for exact replay")
    online_store: OnlineStore | None = Field(None, description="latest features per entity; absent: not written")


class TimePolicy(Declared):
    """What counts as late, as future and as idle."""

    allowed_lateness_ms: DurationMs = Field(
        3_600_000, alias="allowed_lateness", description="behind the newest event of the same key; beyond it: late"
    )
    future_tolerance_ms: DurationMs = Field(
        86_400_000, alias="future_tolerance", description="ahead of the Kafka timestamp; beyond it: rejected as future"
    )
    forget_idle_after_ms: DurationMs = Field(
        604_800_000,
        alias="forget_idle_after",
        description="a key this far behind the lane's newest event starts anew; never below the longest window plus "
        "lateness; must exceed the skew between partitions of a backlog",
    )

    def horizon_ms(self, reach_ms: int, lateness_ms: int) -> int:
        """Return how far a key may fall behind the lane's clock before it is forgotten."""
        return max(self.forget_idle_after_ms, reach_ms + lateness_ms)


class Latency(Declared):
    """One target; the knobs that make it follow from it and can each be set by hand."""

    target_ms: DurationMs = Field(200, alias="target", description="wanted p99, Kafka append to Kafka append")
    linger_ms: DurationMs | None = Field(
        None, alias="linger", description="micro-batch window in the JVM; default: from the target"
    )
    bundle_ms: DurationMs | None = Field(
        None, alias="bundle", description="`python.fn-execution.bundle.time`; default: from the target"
    )
    buffer_timeout_ms: DurationMs | None = Field(
        None, alias="buffer_timeout", description="`execution.buffer-timeout`; default: from the target"
    )


class Pipeline(Declared):
    """One pipeline: a source, its contract, features, a model and sinks."""

    name: Name = Field(description="names the job, its consumer group and its transactions")
    description: str = Field("", description="one sentence for people")
    source: Source = Field(description="the topic whose events are scored")
    contract: Contract = Field(description="names, types and bounds of its events")
    lookups: tuple[Lookup, ...] = Field((), description="columns from tables that are read once at job start")
    derive: Derive | None = Field(None, description="columns from a Python function of the pipeline folder")
    enrichments: tuple[Enrichment, ...] = Field(
        (), description="columns joined from other streams, as of the event's time"
    )
    features: Annotated[tuple[FeatureGroup, ...], Field(min_length=1, description="windowed features")]
    model: ModelReference = Field(description="the model that scores")
    label: Label | None = Field(None, description="the truth that arrives later, for training and evaluation")
    sinks: Sinks = Field(description="where results go")
    time: TimePolicy = Field(TimePolicy(), description="what counts as late and as future")
    lanes: Annotated[int, Field(ge=1, le=128)] = Field(
        1, description="units of parallelism, state and order; fixed for the life of the state"
    )
    latency: Latency = Field(Latency(), description="one target, and the knobs that follow from it")

    def with_topic_prefix(self, prefix: str) -> "Pipeline":
        """Return the same pipeline on topics whose names start with `prefix`, as one cluster for several uses needs."""
        declared = self.model_dump(mode="json", by_alias=True)
        places = [declared["source"], *declared["enrichments"], *([declared["label"]] if declared["label"] else [])]
        places += [declared["sinks"][name] for name in ("predictions", "rejects", "late", "order")]
        for place in places:
            place["topic"] = prefix + place["topic"]
        return Pipeline.model_validate(declared)

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_topics()
        self._check_keys()
        numbers = self._check_columns()
        for position, group in enumerate(self.features):
            if group.of is not None and group.of not in numbers:
                msg = f"features[{position}].of: got {group.of!r}, which is no number column known here" + (
                    did_you_mean(group.of, numbers)
                )
                raise ValueError(msg)
        self._check_feature_names()
        joined = {column for enrichment in self.enrichments for column in enrichment.take}
        for position, column in enumerate(self.model.inputs):
            if column in self.model.inputs[:position]:
                msg = f"model.inputs[{position}]: {column!r} stands twice; the model takes each column once"
                raise ValueError(msg)
            if column not in numbers | joined:
                msg = f"model.inputs[{position}]: got {column!r}, which is no number column known here" + (
                    did_you_mean(column, numbers | joined)
                )
                raise ValueError(msg)
        return self

    def _check_topics(self) -> None:
        """Refuse a topic that would be read twice, or written and read."""
        topics = [self.source.topic]
        for position, enrichment in enumerate(self.enrichments):
            if enrichment.name in [other.name for other in self.enrichments[:position]]:
                msg = f"enrichments[{position}].name: got {enrichment.name!r} twice; choose another"
                raise ValueError(msg)
            if enrichment.topic in topics:
                msg = f"enrichments[{position}].topic: got {enrichment.topic!r}, which is read already; join it once"
                raise ValueError(msg)
            topics.append(enrichment.topic)
        sinks = self.sinks
        for name, topic in (("rejects", sinks.rejects), ("late", sinks.late), ("order", sinks.order)):
            if topic.topic in (*topics, sinks.predictions.topic):
                msg = f"sinks.{name}.topic: got {topic.topic!r}, which is read or holds the predictions; choose another"
                raise ValueError(msg)
        if sinks.predictions.topic in topics:
            msg = f"sinks.predictions.topic: got {sinks.predictions.topic!r}, which is read; choose another"
            raise ValueError(msg)

    def _check_keys(self) -> None:
        fields = self.contract.fields
        if self.contract.id is None:
            msg = "contract.id: missing; say which field identifies an event"
            raise ValueError(msg)
        strings = {name for name, spec in fields.items() if spec.type == "string"}
        named = [("source.key", self.source.key)]
        named += [(f"features[{i}].entity", group.entity) for i, group in enumerate(self.features)]
        named += [(f"lookups[{i}].key", lookup.key) for i, lookup in enumerate(self.lookups)]
        for path, name in named:
            if name not in strings:
                msg = f"{path}: got {name!r}, which is no string field of the contract{did_you_mean(name, strings)}"
                raise ValueError(msg)
        entities = {group.entity for group in self.features}
        for position, enrichment in enumerate(self.enrichments):
            if enrichment.entity not in entities:
                msg = f"enrichments[{position}].entity: got {enrichment.entity!r}, which is no entity of a feature" + (
                    did_you_mean(enrichment.entity, entities)
                )
                raise ValueError(msg)
            known = enrichment.contract.fields
            for path, name in (
                ("key", enrichment.key),
                *((f"take.{new}", old) for new, old in enrichment.take.items()),
            ):
                wanted = {"string"} if path == "key" else {"int64", "float64", "bool"}
                if name not in known or known[name].type not in wanted:
                    kinds = " or ".join(sorted(wanted))
                    msg = f"enrichments[{position}].{path}: got {name!r}, which is no {kinds} field of its contract"
                    msg += did_you_mean(name, known)
                    raise ValueError(msg)

    def _check_feature_names(self) -> None:
        """Refuse two features of one name, also when they differ in what the name does not say: the slide."""
        origin_of: dict[str, str] = dict.fromkeys(self._columns(), "as a column that is no feature")
        for position, group in enumerate(self.features):
            here = f"in features[{position}] with slide {format_duration(group.slide_ms)}"
            for name in group.names:
                if name in origin_of:
                    msg = f"feature {name!r} stands twice: {origin_of[name]}, and {here}; keep one or change its window"
                    raise ValueError(msg)
                origin_of[name] = here

    def _columns(self) -> list[str]:
        """Names of all columns but the windowed features."""
        taken = [column for lookup in self.lookups for column in lookup.take]
        taken += [column for enrichment in self.enrichments for column in enrichment.take]
        return [*self.contract.fields, *taken, *(self.derive.outputs if self.derive else ())]

    def _check_columns(self) -> set[str]:
        """Refuse a column named twice; return the number columns known before features."""
        origin_of: dict[str, str] = dict.fromkeys(self.contract.fields, "contract")
        added = [(column, f"lookups[{i}]") for i, lookup in enumerate(self.lookups) for column in lookup.take]
        added += [(column, "derive") for column in (self.derive.outputs if self.derive else ())]
        added += [(column, f"enrichments[{i}]") for i, join in enumerate(self.enrichments) for column in join.take]
        for column, where in added:
            if column in origin_of:
                msg = f"{where}: column {column!r} exists already, from {origin_of[column]}; choose another name"
                raise ValueError(msg)
            origin_of[column] = where
        numbers = {name for name, spec in self.contract.fields.items() if spec.type != "string"}
        numbers |= {column for lookup in self.lookups for column in lookup.take}
        return numbers | {
            name for name, kind in (self.derive.outputs if self.derive else {}).items() if kind != "string"
        }
