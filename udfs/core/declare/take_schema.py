"""The JSON Schema of an entry of `take`, so that editors complete aggregations and check their arguments."""

from typing import Any

from pydantic import TypeAdapter

from udfs.core.aggregations import MAX_N, Argument
from udfs.core.declare.catalog import CATALOG
from udfs.core.declare.conditions import Where
from udfs.core.declare.durations import DurationMs

Schema = dict[str, Any]
#: kind of argument -> what it may be
ARGUMENTS: dict[Argument, Schema] = {
    "count": {"type": "integer", "minimum": 1, "maximum": MAX_N},
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "duration": TypeAdapter(DurationMs).json_schema(),
    "column": {"type": "string"},
    "condition": TypeAdapter(Where).json_schema(),
    "bounds": {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_N, "uniqueItems": True},
}


def take_schema() -> Schema:
    """Return the schema: a name that needs no argument, or one name with its argument."""
    simple = [name for name, one in CATALOG.items() if one.argument == "none"]
    others = {
        name: {"description": one.meaning, **ARGUMENTS[one.argument]}
        for name, one in CATALOG.items()
        if one.argument != "none"
    }
    argued = {
        "type": "object",
        "properties": others,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"title": "aggregation", "anyOf": [{"enum": simple}, argued]}
