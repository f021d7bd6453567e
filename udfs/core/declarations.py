"""What a pipeline declares beside its features: source, lookups, joins, model, label, sinks, time, latency.

Frozen pydantic models; what one declares about another is checked in `definition`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from udfs.core.contract import Contract, Declared, FieldType
from udfs.core.durations import DurationMs
from udfs.core.errors import did_you_mean

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]


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
