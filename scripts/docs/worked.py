"""Worked examples of the documentation: features as YAML, events as a table, and what comes out of the engine.

A page begins with a pipeline (a `yaml` block with a `contract`). An example is a `yaml` block with `features`, which is
merged into it, and the `text` block behind it: a row per record in the order of arrival, `->`, and its feature values
or the reason why it left.
"""

import datetime as dt
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from udfs.core.declare.definition import Pipeline
from udfs.core.errors import HeadraceError
from udfs.core.offline.featurize import featurize_offline
from udfs.core.plan.features import plan_stages, windowed_features
from udfs.core.rows.batches import RawBatch
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.stage.duplicates import Duplicates
from udfs.core.stage.lane import Lane

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONDAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NOWHERE = Path()  #: examples have no lookup files and no derive function
ARROW, DIGITS = "->", 6
HIDDEN: dict[str, Any] = {
    "name": "shop",
    "model": {"name": "none"},
    "sinks": {name: {"topic": f"out.{name}"} for name in ("predictions", "rejects", "late", "order")},
}
"""What every pipeline needs and no example is about."""


class ExampleError(HeadraceError):
    """An example cannot be read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an example."""

    topic: str
    key: str | None
    row: dict[str, Any]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Example:
    """A pipeline, its records, and what the page says comes of each: a text per column, or a reason."""

    pipeline: Pipeline
    records: tuple[Record, ...]
    columns: tuple[str, ...]
    wanted: tuple[tuple[str, ...], ...]


def examples(page: str) -> Iterator[Example]:
    """Yield the examples of a page in Markdown.

    Raises
    ------
    ExampleError : an example stands before the pipeline, or its table cannot be read.
    """
    base: dict[str, Any] | None = None
    for declared, table in re.findall(
        r"^```yaml\n(.*?)^```\n(?:\n?```text\n(.*?)^```$)?", page, re.DOTALL | re.MULTILINE
    ):
        found = yaml.safe_load(declared)
        if "contract" in found:
            base = found
        elif "features" in found and table:
            if base is None:
                msg = f"an example stands before the pipeline that it is merged into: {declared!r}"
                raise ExampleError(msg)
            yield parse(base, found, table)


def parse(base: dict[str, Any], changes: dict[str, Any], table: str) -> Example:
    """Return the example of a table; without a column `stream` the pipeline has no enrichments.

    Raises
    ------
    ExampleError : a row has another number of cells than the head, or a time is none.
    """
    rows = [[side.split() for side in line.partition(ARROW)[::2]] for line in table.splitlines() if line.strip()]
    (inputs, columns), *rest = rows
    for left, right in rest:
        if len(left) != len(inputs) or len(right) not in (0, 1, len(columns)):
            msg = f"got {left} {ARROW} {right}; the head has {inputs} {ARROW} {columns}"
            raise ExampleError(msg)
    declared = HIDDEN | base | changes
    if "stream" not in inputs:
        declared.pop("enrichments", None)
    pipeline = Pipeline.model_validate(declared)
    records = tuple(_record(pipeline, dict(zip(inputs, left, strict=True)), i) for i, (left, _) in enumerate(rest))
    return Example(pipeline, records, tuple(columns), tuple(tuple(right) for _, right in rest))


def _record(pipeline: Pipeline, cells: dict[str, str], number: int) -> Record:
    topic, contract, key = pipeline.source.topic, pipeline.contract, pipeline.source.key
    for one in pipeline.enrichments:
        if cells.get("stream") == one.name:
            topic, contract, key = one.topic, one.contract, one.key
    row = {name: _value(cells.get(name, "-"), contract.fields[name].type) for name in contract.fields}
    if contract.id is not None and row[contract.id] is None:
        row[contract.id] = f"e{number}"
    at_ms = row[contract.time] = time_ms(cells["at"])
    return Record(topic, row[key], row, time_ms(cells["kafka"]) if "kafka" in cells else at_ms)


def _value(cell: str, kind: str) -> Any:
    if cell in ("-", "null") or ":" in cell:
        return None
    return cell if kind == "string" else json.loads(cell)


def time_ms(text: str) -> int:
    """Return epoch milliseconds of `10:00`, `10:00:30` (of a Monday) or `Tue-10:00`.

    Raises
    ------
    ExampleError : it is none of these.
    """
    found = re.fullmatch(r"(?:(\w{3})-)?(\d+):(\d\d)(?::(\d\d))?", text)
    if found is None or found[1] not in (None, *DAYS):
        msg = f"got {text!r}; a time is 10:00, 10:00:30 or Tue-10:00"
        raise ExampleError(msg)
    days = DAYS.index(found[1]) if found[1] else 0
    moment = MONDAY + dt.timedelta(days, hours=int(found[2]), minutes=int(found[3]), seconds=int(found[4] or 0))
    return int(moment.timestamp() * 1000)


def at_once(example: Example, digits: int = DIGITS) -> list[tuple[str, ...]]:
    """Return what comes of each record when all go through as a backfill."""
    batches = [_batch([one], i) for i, one in enumerate(example.records)]
    done = featurize_offline(example.pipeline, NOWHERE, batches)
    return _outcomes(example, done.rows.to_pylist(), done.letters.to_pylist(), digits)


def one_by_one(example: Example) -> list[tuple[str, ...]]:
    """Return what comes of each record when each is a batch, and all state is restored from its log before each."""
    pipeline = example.pipeline
    ingests, stages = ingest_of_topics(pipeline, NOWHERE), plan_stages(pipeline)
    logs: list[dict[int, bytes]] = [{} for _ in [*stages, pipeline]]
    rows: list[dict[str, Any]] = []
    letters: list[dict[str, Any]] = []
    for i, one in enumerate(example.records):
        piece = ingests[one.topic].process(_batch([one], i))
        letters += piece.letters.to_pylist()
        if pipeline.time.duplicates_within_ms:
            piece = Duplicates(pipeline, logs[-1]).process(piece)
            letters += piece.letters.to_pylist()
        for stage, log in zip(stages, logs[:-1], strict=True):
            piece = Lane(pipeline, stage, 0, log).process(piece)
            letters += piece.letters.to_pylist()
        rows += piece.rows.to_pylist()
    return _outcomes(example, rows, letters)


def _batch(records: Sequence[Record], first: int) -> RawBatch:
    return RawBatch(
        records[0].topic,
        [msgspec.json.encode(one.row) for one in records],
        [None if one.key is None else one.key.encode() for one in records],
        [0] * len(records),
        list(range(first, first + len(records))),
        [one.timestamp_ms for one in records],
    )


def _outcomes(
    example: Example, rows: list[dict[str, Any]], letters: list[dict[str, Any]], digits: int = DIGITS
) -> list[tuple[str, ...]]:
    """Return per record the texts of its columns, or the reason why it left; () for one that stays in the state."""
    outcomes: list[tuple[str, ...]] = [() for _ in example.records]
    for row in rows:
        outcomes[row["_offset"]] = tuple(shown(row[name], digits) for name in example.columns)
    for letter in letters:
        if letter["kind"] != "order":
            outcomes[letter["offset"]] = (letter["reason"],)
    return outcomes


def shown(value: object, digits: int = DIGITS) -> str:
    """Return a feature value as tables write it: numbers with few digits, lists and mappings without spaces.

    Examples
    --------
    >>> [shown(one) for one in (None, 2.0, 1 / 3, ["a", "b"], [("a", 1.0)])]
    ['null', '2', '0.333333', '[a,b]', '{a:1}']
    """
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return "{" + ",".join(f"{name}:{shown(one)}" for name, one in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(shown, value)) + "]"
    return str(value)


def written(declared: str, events: str, base: dict[str, Any]) -> str:
    """Return the two blocks of an example, its table completed with what the engine gives for every feature."""
    changes = yaml.safe_load(declared)
    example = parse(base, changes, events)
    columns = tuple(one.name for one in windowed_features(example.pipeline))
    example = Example(example.pipeline, example.records, columns, example.wanted)
    left = [line.split() for line in events.splitlines() if line.strip()]
    right = [columns, *at_once(example)]
    table = [[*one, ARROW, *other] for one, other in zip(left, right, strict=True)]
    return f"```yaml\n{declared}```\n\n```text\n{aligned(table)}\n```"


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Return rows of texts in columns; short rows end early."""
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(max(map(len, table)))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in table
    )
