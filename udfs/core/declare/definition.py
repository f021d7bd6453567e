"""The pipeline definition: what a user declares in `conf/<name>/pipeline.yaml`, as one frozen pydantic model.

Only the shape and the cross-references are checked here; files are read by `loading`, features planned by `features`.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from udfs.core.declare.contract import Contract, Declared
from udfs.core.declare.declarations import (
    Derive,
    Enrichment,
    Label,
    Latency,
    Lookup,
    Name,
    Sinks,
    Source,
    TimePolicy,
)
from udfs.core.declare.feature_groups import FeatureGroup
from udfs.core.declare.group_checks import NUMBERS, check_groups
from udfs.core.declare.model_checks import check_routing
from udfs.core.declare.model_reference import ModelReference
from udfs.core.errors import did_you_mean


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
        1,
        description="units of parallelism, state and order; a state keeps its number until `headrace state migrate` "
        "gives it another",
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
        columns = self._check_columns()
        check_groups(self.features, self.enrichments, {n: s.kind for n, s in self.contract.fields.items()}, columns)
        numbers = {name for name, kind in columns.items() if kind in NUMBERS}
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
        check_routing(self.model, self.contract.fields, columns | dict.fromkeys(joined), self.features)
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
        strings = {name for name, spec in fields.items() if spec.kind == "string"}
        named = [("source.key", self.source.key)]
        named += [(f"lookups[{i}].key", lookup.key) for i, lookup in enumerate(self.lookups)]
        for path, name in named:
            if name not in strings:
                msg = f"{path}: got {name!r}, which is no string field of the contract{did_you_mean(name, strings)}"
                raise ValueError(msg)
        entities = {group.entity_name for group in self.features if len(group.fields) == 1}
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

    def _check_columns(self) -> dict[str, str | None]:
        """Refuse a column named twice; return the types of the columns known before joins and features."""
        origin_of: dict[str, str] = dict.fromkeys(self.contract.fields, "contract")
        added = [(column, f"lookups[{i}]") for i, lookup in enumerate(self.lookups) for column in lookup.take]
        added += [(column, "derive") for column in (self.derive.outputs if self.derive else ())]
        added += [(column, f"enrichments[{i}]") for i, join in enumerate(self.enrichments) for column in join.take]
        for column, where in added:
            if column in origin_of:
                msg = f"{where}: column {column!r} exists already, from {origin_of[column]}; choose another name"
                raise ValueError(msg)
            origin_of[column] = where
        types: dict[str, str | None] = {name: spec.kind for name, spec in self.contract.fields.items()}
        types |= {column: None for lookup in self.lookups for column in lookup.take}
        return types | dict((self.derive.outputs if self.derive else {}).items())
