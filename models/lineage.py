"""Lineage: how each feature of a pipeline is declared and what it is made of; which of a model's features have changed.

A model keeps the declarations of its features as they were when it was registered, so that a change of the pipeline
can be held against every model that exists.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from udfs.core.declare.definition import Pipeline
from udfs.core.model.contract import FeatureSource, ModelContract
from udfs.core.plan.features import feature_columns


@dataclass(frozen=True, slots=True)
class FeatureChange:
    """A feature that a model needs and that is not as it was."""

    feature: str
    #: declaration then and now; empty where there is none
    before: str
    now: str


def feature_sources(
    pipeline: Pipeline, folder: Path, features: Sequence[str] | None = None
) -> dict[str, FeatureSource]:
    """Return how features are declared, and every field, lookup, join and function that they are made of.

    Parameters
    ----------
    pipeline, folder : the definition and the folder its files are relative to
    features : those, and columns that steps of the chain give; default: the whole feature set

    Examples
    --------
    >>> from udfs.core.declare.loading import load_pipeline
    >>> folder = Path("conf/flights")
    >>> found = feature_sources(load_pipeline(folder), folder)["temp_f"]
    >>> found.definition
    'weather.temp joined as of the event by origin, at most 3h old'
    >>> found.columns
    ['origin', 'weather.temp']
    """
    columns = _columns(pipeline, folder)
    found = {**columns, **dict(_windowed(pipeline, columns)), **_given_by_steps(pipeline)}
    return {name: found[name] for name in (feature_columns(pipeline) if features is None else features)}


def changed_features(contract: ModelContract, pipeline: Pipeline, folder: Path) -> list[FeatureChange]:
    """Return the features of a model that a pipeline no longer has, or declares differently."""
    known = dict.fromkeys((*feature_columns(pipeline), *step_columns(pipeline)))
    now = feature_sources(pipeline, folder, list(known))
    return [
        FeatureChange(name, before.definition, now[name].definition if name in known else "")
        for name, before in contract.lineage.items()
        if name not in known or now[name].definition != before.definition
    ]


def step_columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the columns that the steps of the chain give."""
    return tuple(column for step in pipeline.model.chain for column in step.columns)


def _given_by_steps(pipeline: Pipeline) -> dict[str, FeatureSource]:
    return {
        column: FeatureSource(f"given by step {step.name}, {step.model}@{step.alias}", [step.model])
        for step in pipeline.model.chain
        for column in step.columns
    }


def _columns(pipeline: Pipeline, folder: Path) -> dict[str, FeatureSource]:
    """Return every column that an event has before windows: fields, lookups, joins, derived ones."""
    found: dict[str, FeatureSource] = {}
    for name, field in pipeline.contract.fields.items():
        found[name] = FeatureSource(f"event field, {_flat(_text(field))}", [name])
    for lookup in pipeline.lookups:
        for name, old in lookup.take.items():
            text = f"{lookup.file}: {old} looked up by {lookup.key}"
            found[name] = FeatureSource(text, [f"{lookup.file}:{old}", lookup.key])
    for enrichment in pipeline.enrichments:
        age = _text(enrichment)["max_age"]
        for name, old in enrichment.take.items():
            source = f"{enrichment.name}.{old}"
            text = f"{source} joined as of the event by {enrichment.entity}, at most {age} old"
            found[name] = FeatureSource(text, [enrichment.entity, source])
    if pipeline.derive is not None:
        file = folder / pipeline.derive.function.partition(":")[0]
        tree = ast.parse(file.read_text(encoding="utf-8"))
        digest = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:8]
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        used = _made_of(texts, found)
        for name, kind in pipeline.derive.outputs.items():
            text = f"{kind} by {pipeline.derive.function}, source {digest}"
            found[name] = FeatureSource(text, sorted({pipeline.derive.function, *used}))
    return found


def _windowed(pipeline: Pipeline, columns: dict[str, FeatureSource]) -> Iterator[tuple[str, FeatureSource]]:
    fields = pipeline.contract.fields
    for group in pipeline.features:
        for single in _singles(group):
            declared = _text(single)
            texts = list(_strings(declared))
            # A feature changes with the lookup, join or function that its column comes from.
            made = [f"{name}: {columns[name].definition}" for name in _named(texts, columns) if name not in fields]
            source = FeatureSource("; ".join([_flat(declared), *made]), _made_of(texts, columns))
            alone = feature_columns(pipeline.model_copy(update={"features": (single,)}))
            for name in alone[len(pipeline.model.inputs) :]:
                yield name, source


def _singles(group: BaseModel) -> Iterator[BaseModel]:
    """Cut a feature group into one per aggregation and window, so that a change of one does not touch the others."""
    for take in getattr(group, "take", (None,)):
        for window in getattr(group, "over", ()) or (None,):
            update = {"take": (take,)} | ({} if window is None else {"over": (window,)})
            yield group.model_copy(update=update)


def _made_of(texts: list[str], columns: dict[str, FeatureSource]) -> list[str]:
    return sorted({source for name in _named(texts, columns) for source in (name, *columns[name].columns)})


def _named(texts: list[str], columns: dict[str, FeatureSource]) -> list[str]:
    """Return the columns whose names stand in texts."""
    return sorted(set(re.findall(r"\w+", " ".join(texts))) & columns.keys())


def _text(declared: Any) -> Any:
    return (
        declared.model_dump(mode="json", by_alias=True, exclude_none=True)
        if isinstance(declared, BaseModel)
        else declared
    )


def _flat(declared: dict[str, Any]) -> str:
    """Return a declaration as `entity origin, of dep_delay_min, take mean, over 1h`."""
    return ", ".join(f"{key} {_short(value)}" for key, value in declared.items() if value not in ([], {}))


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        return _short(value[0])
    if isinstance(value, dict):
        return " ".join(_short(one) for one in value.values())
    return value if isinstance(value, str) else json.dumps(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)
