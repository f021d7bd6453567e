"""Decoded rows from the columns of a file: the contract is checked by column and by value, nothing is parsed.

A column of the wrong type is an error of the whole file; a value that the contract refuses makes its row a letter.
"""

import pyarrow as pa
import pyarrow.compute as pc

from udfs.core.declare.contract import Contract, FieldSpec
from udfs.core.errors import HeadraceError, did_you_mean
from udfs.core.rows.batches import OFFSET, ORIGIN_FIELDS, PARTITION, TIMESTAMP_MS, VALUE, Piece, join_batches
from udfs.core.rows.letters import LETTERS, Reason, no_letters

STAGE = "columns"
_INT64 = FieldSpec(type="int64")


class ColumnError(HeadraceError):
    """A file lacks a column that is needed, or holds it as something else."""


def from_columns(topic: str, contract: Contract, columns: pa.RecordBatch, file: str) -> Piece:
    """Return rows as a decoder would give them, without original bytes, and letters for values that are refused.

    Integers of any width are taken for int64 and floats for float64; floats that are whole numbers for int64, as pandas
    writes integers with nulls; timestamps for int64 in epoch milliseconds, finer parts cut off. Of other columns only
    the origin is kept; where there is no Kafka timestamp event time stands for it.

    Parameters
    ----------
    columns : the fields of the contract, partition and offset under their reserved names, and more
    file : what errors call the file

    Raises
    ------
    ColumnError : a column is missing or of another type.
    """
    arrays = {name: _column(columns, name, spec, file) for name, spec in contract.fields.items()}
    has_timestamp = TIMESTAMP_MS in columns.schema.names
    origin = {
        PARTITION: columns[PARTITION],
        OFFSET: columns[OFFSET],
        TIMESTAMP_MS: columns[TIMESTAMP_MS] if has_timestamp else arrays[contract.time].fill_null(0),
        VALUE: pa.repeat(b"", columns.num_rows),
    }
    arrays |= {field.name: origin[field.name].cast(field.type) for field in ORIGIN_FIELDS}
    rows = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
    letters = [no_letters()]
    for name, spec in contract.fields.items():
        broken: list[tuple[Reason, pa.BooleanArray]] = []
        if not spec.nullable and rows[name].null_count:
            broken.append(("null_field", rows[name].is_null()))
        if spec.kind == "float64":
            broken.append(("not_finite", pc.invert(pc.fill_null(pc.is_finite(rows[name]), True))))
        for reason, bad in broken:
            if pc.any(bad).as_py():
                letters.append(_letters(topic, rows.filter(bad), reason, name))
                rows = rows.filter(pc.invert(bad))
    return Piece(topic, rows, join_batches(letters))


def time_column(columns: pa.RecordBatch, name: str, file: str) -> pa.Int64Array:
    """Return a column of times as epoch milliseconds, int64; see `from_columns`."""
    return _column(columns, name, _INT64, file)


def _column(columns: pa.RecordBatch, name: str, spec: FieldSpec, file: str) -> pa.Array:
    if name not in columns.schema.names:
        msg = f"{file}: has no column {name!r}{did_you_mean(name, columns.schema.names)}"
        raise ColumnError(msg)
    column, wanted = columns[name], spec.arrow_type
    if column.type == wanted:
        return column
    try:
        return _cast(column.dictionary_decode() if pa.types.is_dictionary(column.type) else column, wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError) as error:
        msg = f"{file}: column {name!r} is {columns[name].type}; {spec.kind} is needed: {error}"
        raise ColumnError(msg) from error


def _cast(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Return a column in another type of its kind; raises for any other kind."""
    kinds = pa.types
    if kinds.is_timestamp(column.type) and wanted == pa.int64():
        return column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(wanted)
    is_number = kinds.is_integer(column.type) or kinds.is_floating(column.type)
    fits = {
        pa.int64(): is_number,
        pa.float64(): is_number or kinds.is_decimal(column.type),
        pa.string(): kinds.is_string(column.type) or kinds.is_large_string(column.type),
        pa.bool_(): kinds.is_boolean(column.type),
    }
    if not fits[wanted] and not kinds.is_null(column.type):
        msg = "other kinds are never converted"
        raise TypeError(msg)
    return column.cast(wanted, safe=wanted == pa.int64())


def _letters(topic: str, rows: pa.RecordBatch, reason: Reason, field: str) -> pa.RecordBatch:
    said = {
        "kind": "rejects",
        "topic": topic,
        "stage": STAGE,
        "reason": reason,
        "detail": f"{field}: got {'null' if reason == 'null_field' else 'NaN or Infinity'}",
        "order": "{}",
    }
    columns = {name: pa.repeat(text, rows.num_rows) for name, text in said.items()}
    columns |= {"partition": rows[PARTITION], "offset": rows[OFFSET], "timestamp_ms": rows[TIMESTAMP_MS]}
    columns |= {name: pa.nulls(rows.num_rows, pa.binary()) for name in ("key", "value")}
    return pa.RecordBatch.from_arrays([columns[field.name] for field in LETTERS], schema=LETTERS)
