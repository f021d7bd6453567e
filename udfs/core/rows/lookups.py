"""Lookups: columns added from a table read once at job start.

A key that the table lacks gives nulls, declared defaults, or a reject; a null key is one of them. A null that stands in
the table is what the table says.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from udfs.core.declare.condition_nodes import type_name
from udfs.core.declare.declarations import Lookup
from udfs.core.errors import DefinitionError, did_you_mean


class LookupTable:
    """One lookup, ready to add its columns to a batch.

    Parameters
    ----------
    lookup : its declaration
    folder : the pipeline folder that `file` is relative to

    Raises
    ------
    DefinitionError : the file is missing or unreadable, lacks a column, has a key twice, or holds another type than the
        default of a column.
    """

    def __init__(self, lookup: Lookup, folder: Path) -> None:
        path = folder / lookup.file
        on = lookup.file_key or lookup.key
        table = _read(path, lookup.name, on)
        for column in (on, *lookup.take.values()):
            if column not in table.column_names:
                msg = f"{path}: lookup {lookup.name!r} takes column {column!r}, which is not in the file" + (
                    did_you_mean(column, table.column_names)
                )
                raise DefinitionError(msg)
        self._key, self._declared = lookup.key, lookup
        self._keys = table[on].cast(pa.string()).combine_chunks()
        if pc.count_distinct(self._keys, mode="all").as_py() != len(self._keys):
            msg = f"{path}: lookup {lookup.name!r} needs each {on!r} once; some stand several times"
            raise DefinitionError(msg)
        self._columns = {new: table[old].combine_chunks() for new, old in lookup.take.items()}
        if lookup.default is not None:
            # One more row, which every miss takes.
            self._columns = {
                new: pa.concat_arrays([column, _default(path, lookup, new, column.type)])
                for new, column in self._columns.items()
            }

    @property
    def types(self) -> dict[str, pa.DataType]:
        """New column -> its type in the file."""
        return {name: column.type for name, column in self._columns.items()}

    def add(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        """Return the columns for the rows of a batch."""
        found = self._find(rows)
        if self._declared.default is not None:
            found = found.fill_null(len(self._keys))
        return {name: column.take(found) for name, column in self._columns.items()}

    def missed(self, rows: pa.RecordBatch) -> pa.BooleanArray | None:
        """Return which rows are to be rejected because their key is not in the table; None for no row."""
        if self._declared.on_miss != "reject":
            return None
        found = self._find(rows)
        return found.is_null() if found.null_count else None

    def explain(self, row: dict[str, object]) -> str:
        """Return what is wrong with a row whose key is not in the table."""
        return f"{self._key}: got {row[self._key]!r}, which is not in {self._declared.file} of {self._declared.name!r}"

    def _find(self, rows: pa.RecordBatch) -> pa.Int32Array:
        """Return the table row of each row, null for a miss."""
        return pc.index_in(rows[self._key], value_set=self._keys, skip_nulls=True)


def _default(path: Path, lookup: Lookup, column: str, type_: pa.DataType) -> pa.Array:
    """Return the default of a column as an array of one value."""
    value = (lookup.default or {})[column]
    fitting = {"string": (str,), "int64": (int,), "float64": (int, float), "bool": (bool,)}.get(type_name(type_), ())
    try:
        if value is None or (isinstance(value, fitting) and (bool in fitting or not isinstance(value, bool))):
            return pa.array([value], type_)
    except (pa.ArrowInvalid, OverflowError):
        pass  # of the right kind, but beyond its width
    msg = f"{path}: default of {column!r} of lookup {lookup.name!r} is {value!r}, but the file's column holds {type_}"
    raise DefinitionError(msg)


def _read(path: Path, name: str, on: str) -> pa.Table:
    if not path.exists():
        near = did_you_mean(path.name, (file.name for file in path.parent.glob("*")))
        msg = f"{path}: file of lookup {name!r} is missing{near}"
        raise DefinitionError(msg)
    try:
        if path.suffix == ".parquet":
            return pa.parquet.read_table(path)
        # A key is text as it stands: guessed to be a number, 007 would become 7 and meet no event.
        return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types={on: pa.string()}))
    except (pa.ArrowInvalid, OSError) as error:
        msg = f"{path}: lookup {name!r} cannot be read as {path.suffix or 'CSV'}: {error}"
        raise DefinitionError(msg) from error
