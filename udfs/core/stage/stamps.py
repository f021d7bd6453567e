"""Order stamps of rows, and the letters of a featurize stage, which carry them."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.plan.features import Stage
from udfs.core.rows.batches import lane_column, seq_column
from udfs.core.rows.letters import Letter
from udfs.core.rows.validation import letter_of
from udfs.core.stage.sequence import Rows

Stamps = dict[str, tuple[int, int]]


def stage_name(stage: Stage) -> str:
    """Name of a featurize stage in letters, uids and metrics."""
    return f"featurize-{stage.entity}"


def stamp_arrays(place: str, lane: int, numbers: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Return the columns of a stamp: the lane and, per row, a number in its sequence."""
    lanes = pa.array(np.full(numbers.size, lane, np.int32))
    return {lane_column(place): lanes, seq_column(place): pa.array(numbers)}


def stamps(row: Mapping[str, object]) -> Stamps:
    """Return per place that the row has passed its [lane, number]; see `features.order_places`."""
    prefix = lane_column("")
    places = [name.removeprefix(prefix) for name in row if name.startswith(prefix)]
    return {place: (row[lane_column(place)], row[seq_column(place)]) for place in places}  # type: ignore[misc]


def late_letters(
    stage: Stage,
    topic: str,
    key_field: str,
    columns: tuple[str, str],
    rows: pa.RecordBatch,
    behind_ms: NDArray[np.int64],
) -> list[Letter]:
    """Return the letters of late rows, with the stamps that they carry.

    Parameters
    ----------
    key_field : field that their Kafka keys repeat
    columns : of the key that they are late for, and of event time
    """
    judged = zip(rows.to_pylist(), behind_ms.tolist(), strict=True)
    return [_late(stage, topic, key_field, columns, row, stamps(row), behind) for row, behind in judged]


def kept_letters(
    stage: Stage,
    topic: str,
    lane: int,
    own: Rows,
    is_late: NDArray[np.bool_],
    behind_ms: NDArray[np.int64],
    *,
    notes: bool,
) -> Iterator[Letter]:
    """Yield the letters of an enrichment's rows: late ones and, as `notes`, where each came in the lane's sequence."""
    if not notes and not is_late.any():
        return
    for i, row in enumerate(own.batch.to_pylist()):
        order = {stage.entity: (lane, int(own.seqs[i]))}
        if is_late[i]:
            yield _late(stage, topic, own.key, (own.key, own.time), row, order, int(behind_ms[i]))
        if notes:
            yield letter_of(row, "order", topic, own.key, stage_name(stage), "kept", "", order)


def _late(
    stage: Stage,
    topic: str,
    key_field: str,
    columns: tuple[str, str],
    row: Mapping[str, object],
    order: Stamps,
    behind_ms: int,
) -> Letter:
    key, time = columns
    detail = f"event time {row[time]} is {behind_ms} ms behind the newest of {stage.entity}={row[key]!r}"
    return letter_of(row, "late", topic, key_field, stage_name(stage), "late", detail, order)
