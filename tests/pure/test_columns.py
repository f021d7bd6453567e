"""Rows from columns: types of one kind are taken, others refused with the file and the column."""

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from udfs.core.declare.contract import Contract
from udfs.core.rows.columns import ColumnError, from_columns, time_column

CONTRACT = Contract.model_validate(
    {
        "id": "id",
        "time": "at_ms",
        "fields": {"id": "string", "at_ms": "int64", "x": "float64?", "n": "int64?", "is": "bool"},
    }
)
NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
GOOD: dict[str, Any] = {
    "id": pa.array(["a", "b"]),
    "at_ms": pa.array([1, 2]),
    "x": pa.array([1.5, None]),
    "n": pa.array([7, None]),
    "is": pa.array([True, False]),
}


def batch(**changes: pa.Array) -> pa.RecordBatch:
    columns = GOOD | changes | {"_partition": pa.array([0, 0]), "_offset": pa.array([5, 6])}
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


@pytest.mark.parametrize(
    ("name", "column", "wanted"),
    [
        ("id", pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        ("id", pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        ("at_ms", pa.array([3, 4], pa.int16()), [3, 4]),
        ("at_ms", pa.array([NOON, NOON], pa.timestamp("ns", "UTC")), [1_769_860_800_000] * 2),
        ("at_ms", pa.array([1_500, 2_999], pa.timestamp("us")), [1, 2]),
        ("n", pa.array([3.0, None]), [3, None]),
        ("n", pa.nulls(2), [None, None]),
        ("x", pa.array([3, None], pa.int64()), [3.0, None]),
        ("x", pa.array([0.5, None], pa.float32()), [0.5, None]),
    ],
)
def test_a_column_of_the_same_kind_is_taken(name: str, column: pa.Array, wanted: list[Any]) -> None:
    piece = from_columns("t", CONTRACT, batch(**{name: column}), "f")
    assert piece.rows[name].to_pylist() == wanted
    assert piece.rows[name].type == CONTRACT.arrow_schema().field(name).type
    assert piece.letters.num_rows == 0


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("id", pa.array([1, 2]), "f: column 'id' is int64; string is needed: other kinds are never converted"),
        ("at_ms", pa.array(["1", "2"]), "column 'at_ms' is string; int64 is needed"),
        ("n", pa.array([1.5, 2.0]), "column 'n' is double; int64 is needed: .*truncated"),
        ("is", pa.array([1, 0]), "column 'is' is int64; bool is needed"),
    ],
)
def test_a_column_of_another_kind_is_refused(name: str, column: pa.Array, message: str) -> None:
    with pytest.raises(ColumnError, match=message):
        from_columns("t", CONTRACT, batch(**{name: column}), "f")


def test_a_row_breaks_the_contract_once_and_event_time_stands_for_the_kafka_timestamp() -> None:
    columns = batch(id=pa.array([None, "b"]), x=pa.array([float("inf"), 1.0]))
    piece = from_columns("t", CONTRACT, columns, "f")
    assert [(letter["offset"], letter["reason"]) for letter in piece.letters.to_pylist()] == [(5, "null_field")]
    assert (piece.rows["id"].to_pylist(), piece.rows["_timestamp_ms"].to_pylist()) == (["b"], [2])
    assert piece.rows["_offset"].to_pylist() == [6]


def test_times_are_read_from_numbers_and_timestamps() -> None:
    times = pa.RecordBatch.from_pydict({"at": pa.array([NOON], pa.timestamp("s"))})
    assert time_column(times, "at", "f").to_pylist() == [1_769_860_800_000]
