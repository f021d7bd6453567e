"""What a pipeline declares beside its features: source, lookups, joins, model, label, sinks, time, latency.

Frozen pydantic models; what one declares about another is checked in `definition`.
"""

import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from udfs.core.declare.contract import Contract, Declared, FieldType
from udfs.core.declare.durations import DurationMs, format_duration
from udfs.core.errors import did_you_mean

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=249)]

Finite = Annotated[StrictFloat, Field(allow_inf_nan=False)]


def _inside(path: str) -> str:
    """Refuse what is not below the pipeline folder: nothing else travels with the job."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        msg = f"got {path!r}, which leaves the pipeline folder; put the file into it and name it from there"
        raise ValueError(msg)
    return path


def _function_inside(reference: str) -> str:
    _inside(reference.partition(":")[0])
    return reference


class Source(Declared):
    """The topic whose events are scored."""

    topic: Topic = Field(description="topic that is read from")
    format: Literal["json"] = Field("json", description="how an event is written: one JSON object")
    key: str = Field(description="field that the Kafka key repeats; it names the first entity and picks the lane")


def _no_null(got: object) -> object:
    """YAML reads a bare `null` as no value at all."""
    return "null" if got is None else got


OnMiss = Annotated[
    Literal["null", "reject", "default"],
    BeforeValidator(_no_null, json_schema_input_type=Literal["null", "reject", "default"] | None),
]
OnMissing = Annotated[
    Literal["null", "default", "stale", "reject"],
    BeforeValidator(_no_null, json_schema_input_type=Literal["null", "default", "stale", "reject"] | None),
]


def _check_default(option: str, chosen: str, default: Mapping[str, object] | None, take: Mapping[str, str]) -> None:
    """Refuse defaults without `default` being chosen, or the other way round, or not of each column once."""
    if (chosen == "default") != (default is not None):
        got = "no default" if default is None else "a default"
        msg = f"{option}: got {chosen!r} and {got}; `default` goes with `{option}: default`, and only with it"
        raise ValueError(msg)
    for column in default or ():
        if column not in take:
            msg = f"default: got {column!r}, which is no column of take{did_you_mean(column, take)}"
            raise ValueError(msg)
    missing = [column for column in take if default is not None and column not in default]
    if missing:
        msg = f"default: {', '.join(missing)} missing; say null where there is none"
        raise ValueError(msg)


class Lookup(Declared):
    """Columns added from a table that is read once at job start."""

    name: Column = Field(description="what error messages call it")
    file: Annotated[str, AfterValidator(_inside)] = Field(
        description="CSV or Parquet file, relative to the pipeline folder"
    )
    key: str = Field(description="event field that is looked up")
    file_key: str | None = Field(None, description="key column of the file; default: the same name as `key`")
    take: dict[Column, str] = Field(description="new column -> column of the file")
    on_miss: OnMiss = Field(
        "null",
        description="what a key that is not in the file gives, a null key included: nulls, a reject, or `default`",
    )
    default: dict[Column, StrictBool | StrictInt | Finite | StrictStr | None] | None = Field(
        None, description="with `on_miss: default`: new column -> its value; each column of `take` once"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_default("on_miss", self.on_miss, self.default, self.take)
        return self


class Enrichment(Declared):
    """Columns joined from another stream: its latest row at or before the event, not older than `max_age`."""

    name: Column = Field(description="names its operators; keep it for the life of the state")
    topic: Topic = Field(description="topic of the other stream")
    contract: Contract = Field(description="contract of its events")
    key: str = Field(description="field of this stream that its Kafka key repeats")
    entity: str = Field(description="entity of the pipeline that the key is matched with")
    max_age_ms: DurationMs = Field(alias="max_age", description="an older row counts as none, see `on_missing`")
    keep_ms: DurationMs = Field(
        alias="keep", description="history kept per key, behind its newest row, so that a backlog joins rightly"
    )
    take: dict[Column, str] = Field(description="new column -> field of this stream (numbers)")
    wait_ms: DurationMs = Field(
        0,
        alias="wait",
        description="how long an event without a fitting row is held back for one to come, by the clock of this stream "
        "in the lane and by the clock on the wall, whichever is first; at most `keep`",
    )
    waiting_max: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="events that may wait in a lane; one more, and the first of them waits no longer"
    )
    on_missing: OnMissing = Field(
        "null",
        description="what an event gets for which no fitting row came: nulls, `default`, the latest row at or before "
        "it whatever its age (`stale`; nulls if there is none), or a reject",
    )
    default: dict[Column, StrictBool | StrictInt | Finite | None] | None = Field(
        None, description="with `on_missing: default`: new column -> its value; each column of `take` once"
    )

    @property
    def is_awaited(self) -> bool:
        """Whether anything but nulls at once comes of a missing row."""
        return self.wait_ms > 0 or self.on_missing != "null"

    @property
    def place(self) -> str:
        """Name of its wait in the order stamps, beside the entities of the stages."""
        return f"wait_{self.name}"

    @property
    def fallback(self) -> NDArray[np.float64]:
        """float64[columns], what a missing row is replaced by, NaN for null."""
        values = [(self.default or {}).get(column) for column in self.take]
        return np.array([math.nan if value is None else float(value) for value in values])

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_default("on_missing", self.on_missing, self.default, self.take)
        if self.wait_ms > self.keep_ms:
            got = f"wait: got {format_duration(self.wait_ms)} with keep {format_duration(self.keep_ms)}"
            msg = f"{got}; a row that comes so late is behind the kept history; keep more, or wait for less"
            raise ValueError(msg)
        if self.is_awaited and not self.take:
            msg = (
                "take: got nothing, and wait or on_missing; there is nothing to wait for; name a column, or leave them"
            )
            raise ValueError(msg)
        return self


class Derive(Declared):
    """Columns computed by a Python function from Arrow columns, row by row, after lookups."""

    function: Annotated[str, AfterValidator(_function_inside)] = Field(
        description="`file.py:function`, the file in the pipeline folder", pattern=r"^.+\.py:\w+$"
    )
    outputs: dict[Column, FieldType] = Field(description="new column -> type")


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
    """What counts as late, as future, as idle and as a duplicate."""

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
    duplicates_within_ms: DurationMs = Field(
        0,
        alias="duplicates_within",
        description="an event whose id came before is rejected, as duplicate (equal fields) or conflict, until the "
        "lane's newest event is this far ahead of the first; 0: ids are not looked at",
    )
    partition_skew_ms: DurationMs | None = Field(
        None,
        alias="partition_skew",
        description="while a backlog is read, no partition gets further ahead of the others than this; default: a "
        "quarter of `allowed_lateness`; 0: each is read as fast as it comes",
    )
    partition_clock: Literal["kafka", "event"] = Field(
        "kafka",
        description="what tells how far a partition is read: the Kafka timestamp, or event time, which costs a look "
        "into each event; needed where Kafka timestamps do not follow event time, as in a topic that is loaded at once",
    )

    @property
    def drift_ms(self) -> int:
        """How far a partition may be ahead of the others; 0 for any distance."""
        return self.allowed_lateness_ms // 4 if self.partition_skew_ms is None else self.partition_skew_ms

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
