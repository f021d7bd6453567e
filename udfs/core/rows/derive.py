"""Derive: columns from the pipeline's own Python function over Arrow columns.

The function is given to be row by row. If it raises for a batch it is called once per row, and the rows for which it
raises become letters: one bad row neither stops the job nor takes its neighbours along.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from udfs.core.declare.contract import ARROW_TYPES
from udfs.core.declare.declarations import Derive
from udfs.core.errors import DefinitionError, did_you_mean

Function = Callable[[pa.RecordBatch], dict[str, pa.Array]]


def load_function(reference: str, folder: Path) -> Function:
    """Return the function that `file.py:function` names, the file in the pipeline folder.

    Raises
    ------
    DefinitionError : the file or the function is missing, or the file cannot be imported.
    """
    file, _, name = reference.partition(":")
    path = folder / file
    if not path.exists():
        near = did_you_mean(file, (module.name for module in folder.glob("*.py")))
        msg = f"{path}: file of derive function {name!r} is missing{near}"
        raise DefinitionError(msg)
    spec = importlib.util.spec_from_file_location(f"headrace_pipeline_{folder.resolve().name}_{path.stem}", path)
    if spec is None or spec.loader is None:
        msg = f"{path}: is no Python module; derive functions live in a .py file"
        raise DefinitionError(msg)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        msg = f"{path}: importing it raised {type(error).__name__}: {error}"
        raise DefinitionError(msg) from error
    function = getattr(module, name, None)
    if not callable(function):
        msg = (
            f"{path}: has no function {name!r}{did_you_mean(name, (n for n in vars(module) if not n.startswith('_')))}"
        )
        raise DefinitionError(msg)
    return function  # type: ignore[no-any-return]  # its shape is checked at each call


class Deriver:
    """Calls the function and holds it to the declared outputs."""

    def __init__(self, derive: Derive, folder: Path) -> None:
        self._function = load_function(derive.function, folder)
        self._types = {name: ARROW_TYPES[kind] for name, kind in derive.outputs.items()}

    def add(self, rows: pa.RecordBatch) -> tuple[dict[str, pa.Array], dict[int, str]]:
        """Return (columns for the rows that went well, what was raised by row number for the others)."""
        try:
            return self._call(rows), {}
        except (Exception, SystemExit) as error:  # noqa: BLE001  the user's code may raise anything
            if rows.num_rows <= 1:
                nothing = {name: pa.array([], type_) for name, type_ in self._types.items()}
                return nothing, {0: f"{type(error).__name__}: {error}"} if rows.num_rows else {}
        parts, failed = [], {}
        for i in range(rows.num_rows):
            columns, errors = self.add(rows.slice(i, 1))
            if errors:
                failed[i] = errors[0]
            else:
                parts.append(columns)
        return {
            name: pa.concat_arrays([part[name] for part in parts]) if parts else pa.array([], type_)
            for name, type_ in self._types.items()
        }, failed

    def _call(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        columns = self._function(rows)
        if set(columns) != set(self._types):
            msg = f"derive function gave columns {sorted(columns)}; declared are {sorted(self._types)}"
            raise ValueError(msg)
        arrays = {name: _finite(one_array(columns[name], type_)) for name, type_ in self._types.items()}
        for name, array in arrays.items():
            if len(array) != rows.num_rows:
                msg = f"derive column {name!r} has {len(array)} values for {rows.num_rows} rows"
                raise ValueError(msg)
        return arrays


def one_array(column: object, type_: pa.DataType) -> pa.Array:
    """Return what a derive function gave for a column as one array of its declared type."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return (column if isinstance(column, pa.Array) else pa.array(column)).cast(type_)


def _finite(array: pa.Array) -> pa.Array:
    """Return a column with null where it is not finite."""
    if pa.types.is_floating(array.type):
        return pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
    return array
