"""Leaving: events whose awaited joins are settled get their columns, or leave as letters where a row is required."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.declare.declarations import Enrichment
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.durations import format_duration
from udfs.core.plan.features import Stage
from udfs.core.rows.batches import add_columns, join_batches, seq_column
from udfs.core.rows.letters import Letter
from udfs.core.rows.validation import letter_of
from udfs.core.stage.held import Held
from udfs.core.stage.stamps import stage_name, stamp_arrays, stamps


def leave(
    released: Held, none: pa.RecordBatch, pipeline: Pipeline, stage: Stage, lane: int
) -> tuple[pa.RecordBatch, list[Letter]]:
    """Return the events that go on, with the columns and stamps of their joins, and the letters of the others.

    Parameters
    ----------
    none : no events, with the columns that they have
    """
    rows = join_batches([none, *released.parts])
    joins = [join for join in stage.enrichments if join.is_awaited]
    names = [column for join in joins for column in join.take]
    columns = {
        name: pa.array(np.ascontiguousarray(released.values[:, i]), from_pandas=True) for i, name in enumerate(names)
    }
    for i, join in enumerate(joins):
        if join.wait_ms:
            columns |= stamp_arrays(join.place, lane, np.ascontiguousarray(released.until[:, i]))
    rows = add_columns(rows, columns)
    requires = np.array([join.on_missing == "reject" for join in joins])
    is_refused = (released.is_missing & requires).any(axis=1)
    if not is_refused.any():
        return rows, []
    lacking = [joins[i] for i in (released.is_missing & requires)[is_refused].argmax(axis=1).tolist()]
    refused = rows.filter(pa.array(is_refused)).to_pylist()
    letters = [_letter(row, join, pipeline, stage) for row, join in zip(refused, lacking, strict=True)]
    return rows.filter(pa.array(~is_refused)), letters


def let_go_by(rows: pa.RecordBatch, stage: Stage) -> NDArray[np.int64]:
    """Return with which row of the lane each event went on, int64[n]: itself, or what ended the last of its waits."""
    waits = [join.place for join in stage.enrichments if join.wait_ms]
    ended = [rows[seq_column(place)].to_numpy() - 1 for place in waits]
    numbers: NDArray[np.int64] = np.maximum.reduce([rows[seq_column(stage.entity)].to_numpy(), *ended])
    return numbers


def _letter(row: dict[str, object], join: Enrichment, pipeline: Pipeline, stage: Stage) -> Letter:
    waited = f", waited up to {format_duration(join.wait_ms)}" if join.wait_ms else ""
    detail = (
        f"{join.name}: no row of {join.key}={row[stage.entity]!r} within {format_duration(join.max_age_ms)} "
        f"before {row[pipeline.contract.time]}{waited}"
    )
    source, name = pipeline.source, stage_name(stage)
    return letter_of(row, "rejects", source.topic, source.key, name, "enrichment_missing", detail, stamps(row))
