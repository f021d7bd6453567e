"""The numbers that windows aggregate: columns of a batch as the matrix that the kernels read."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.core.declare.feature import Input, Ir
from udfs.core.rows.ingest import number_column

F64 = NDArray[np.float64]


def input_matrix(rows: pa.RecordBatch, columns: Sequence[str | Input]) -> F64:
    """Return float64[n, columns], NaN for null and for rows that do not count."""
    matrix = np.empty((rows.num_rows, len(columns)))
    for i, column in enumerate(columns):
        matrix[:, i] = _numbers(rows, column if isinstance(column, Input) else Input(column))
    return matrix


def input_values(rows: pa.RecordBatch, ir: Ir) -> list[Any]:
    """Return what a sketch is updated with per row; None for null and for rows that do not count.

    With `by`, that is (value of that column, number).
    """
    if ir.by is not None:
        numbers = _numbers(rows, ir.input).tolist()
        buckets = rows[ir.by].to_pylist()
        pairs = zip(buckets, numbers, strict=True)
        return [None if bucket is None or math.isnan(number) else (bucket, number) for bucket, number in pairs]
    column = rows[ir.input.of]
    if pa.types.is_floating(column.type):
        column = pc.add(pc.if_else(pc.is_nan(column), None, column), 0.0)  # NaN is null, and -0.0 is 0.0
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())  # 0 and 1, as in arrays
    if ir.input.where is None:
        return column.to_pylist()  # type: ignore[no-any-return]
    counts = ir.input.where.mask(rows).to_pylist()
    return [value if is_counted else None for value, is_counted in zip(column.to_pylist(), counts, strict=True)]


def _numbers(rows: pa.RecordBatch, one: Input) -> F64:
    found: F64
    if one.flag is not None:
        found = one.flag.mask(rows).to_numpy(zero_copy_only=False).astype(np.float64)
    elif one.of is None:
        found = np.ones(rows.num_rows)
    elif one.of.endswith("]"):
        column, _, element = one.of[:-1].partition("[")
        found = pc.list_element(rows[column], int(element)).to_numpy(zero_copy_only=False)
    elif pa.types.is_string(rows.schema.field(one.of).type):  # counted, not summed
        found = np.where(pc.is_valid(rows[one.of]).to_numpy(zero_copy_only=False), 1.0, np.nan)
    else:
        found = number_column(rows, one.of).to_numpy(zero_copy_only=False)
    if one.where is not None:
        found = np.where(one.where.mask(rows).to_numpy(zero_copy_only=False), found, np.nan)
    return found
