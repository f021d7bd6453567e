"""Everything about a pipeline that can be checked without a service: its definition, its lookup files, its function."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from udfs.core.declare.contract import ARROW_TYPES
from udfs.core.declare.declarations import Derive
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.errors import DefinitionError
from udfs.core.plan.features import feature_columns, feature_set_hash
from udfs.core.rows.derive import load_function, one_array
from udfs.core.rows.lookups import LookupTable


@dataclass(frozen=True, slots=True)
class CheckedPipeline:
    """A pipeline that is fit to run, as far as its own folder says."""

    folder: Path
    pipeline: Pipeline
    #: hash of the feature set
    feature_set: str
    #: the feature set, in the order of the model's input
    columns: tuple[str, ...]


def check_pipeline(folder: Path) -> CheckedPipeline:
    """Load a pipeline folder with all its files, and call the derive function once, with no rows.

    Raises
    ------
    DefinitionError : the definition, a lookup file or the function is wrong; names the file.
    """
    pipeline = load_pipeline(folder)
    schema = pipeline.contract.arrow_schema()
    for lookup in pipeline.lookups:
        table = LookupTable(lookup, folder)
        for name, type_ in table.types.items():
            needed_by = _where_a_number(pipeline, name)
            if needed_by and not _is_number(type_):
                old = lookup.take[name]
                msg = (
                    f"{folder / lookup.file}: column {old!r} holds {type_}; lookup {lookup.name!r} takes it as {name!r}"
                    f", and {needed_by} needs a number; take another column, or derive a number from it"
                )
                raise DefinitionError(msg)
            schema = schema.append(pa.field(name, type_))
    if pipeline.derive is not None:
        _check_function(pipeline.derive, folder, schema)
    return CheckedPipeline(folder, pipeline, feature_set_hash(pipeline, folder), feature_columns(pipeline))


def _where_a_number(pipeline: Pipeline, column: str) -> str | None:
    """Return the first place of the definition that needs the column to be a number."""
    named = [(f"model.inputs[{i}]", name) for i, name in enumerate(pipeline.model.inputs)]
    for i, group in enumerate(pipeline.features):
        if group.stream is None:  # of another stream, it is a field of that
            named += [(f"features[{i}].of", group.of)] if group.of else []
            named += [(f"features[{i}].take.{one.name}", one.other) for one in group.take if one.other]
    return next((path for path, name in named if name == column), None)


def _is_number(type_: pa.DataType) -> bool:
    # A column of a CSV file without any value has the type null.
    is_kind = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return any(check(type_) for check in is_kind)


def _check_function(derive: Derive, folder: Path, schema: pa.Schema) -> None:
    function = load_function(derive.function, folder)
    where = f"{folder / derive.function.partition(':')[0]}: {derive.function.partition(':')[2]}"
    try:
        columns = function(pa.RecordBatch.from_pylist([], schema))
    except Exception as error:
        known = f"; it is given the columns {', '.join(schema.names)}" if isinstance(error, KeyError) else ""
        msg = f"{where} raised {type(error).__name__} for a batch of no rows: {error}{known}"
        raise DefinitionError(msg) from error
    got, declared = sorted(columns), sorted(derive.outputs)
    if got != declared:
        msg = f"{where} gives the columns {', '.join(got)}; derive.outputs declares {', '.join(declared)}"
        raise DefinitionError(msg)
    for name, kind in derive.outputs.items():
        try:
            one_array(columns[name], ARROW_TYPES[kind])
        except (pa.ArrowException, TypeError) as error:
            msg = f"{where} gives {name!r} as what cannot become {kind}: {error}"
            raise DefinitionError(msg) from error
