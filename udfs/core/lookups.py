"""Lookups: columns added from a table read once at job start; a key that the table lacks gives nulls."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from udfs.core.declarations import Lookup
from udfs.core.errors import DefinitionError, did_you_mean


class LookupTable:
    """One lookup, ready to add its columns to a batch.

    Parameters
    ----------
    lookup : its declaration
    folder : the pipeline folder that `file` is relative to

    Raises
    ------
    DefinitionError : the file is missing or unreadable, lacks a column, or has a key twice.
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
        self._key = lookup.key
        self._keys = table[on].cast(pa.string()).combine_chunks()
        if pc.count_distinct(self._keys, mode="all").as_py() != len(self._keys):
            msg = f"{path}: lookup {lookup.name!r} needs each {on!r} once; some stand several times"
            raise DefinitionError(msg)
        self._columns = {new: table[old].combine_chunks() for new, old in lookup.take.items()}

    @property
    def types(self) -> dict[str, pa.DataType]:
        """New column -> its type in the file."""
        return {name: column.type for name, column in self._columns.items()}

    def add(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        """Return the columns for the rows of a batch."""
        found = pc.index_in(rows[self._key], value_set=self._keys, skip_nulls=True)
        return {name: column.take(found) for name, column in self._columns.items()}


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
