"""The contract of a stream: names, types and bounds of its events, as a user declares them.

Derived from it: the msgspec struct that decodes an event strictly, and the Arrow schema of a decoded batch.
"""

import math
from typing import Annotated, Any, Literal, Self

import msgspec
import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from udfs.core.errors import did_you_mean

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
FieldType = Literal["string", "int64", "float64", "bool"]
ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}
# msgspec is strict: an int field refuses 1.0 and "1"; a float field takes 1, as JSON has one kind of number.
PYTHON_TYPES: dict[str, Any] = {
    "string": str,
    "int64": Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)],
    "float64": float,
    "bool": bool,
}


class Declared(BaseModel):
    """Base of every declaration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldSpec(Declared):
    """One field of an event. `float64` is short for `{type: float64}`, `float64?` also allows null."""

    type: FieldType = Field(description="what its JSON value must be; never converted")
    nullable: bool = Field(False, description="null is allowed; a missing field never is")
    min: float | None = Field(None, description="smallest allowed value; below it the row is rejected as out_of_range")
    max: float | None = Field(None, description="largest allowed value; above it the row is rejected as out_of_range")


def _expand(spec: object) -> object:
    """Turn the short form (`int64`, `float64?`) into the long one."""
    if isinstance(spec, str):
        return {"type": spec.removesuffix("?"), "nullable": spec.endswith("?")}
    return spec


# Said for the JSON Schema, so that editors accept the short form, too.
_Field = Annotated[
    FieldSpec,
    BeforeValidator(
        _expand,
        json_schema_input_type=FieldSpec | Annotated[str, Field(pattern=r"^(string|int64|float64|bool)\??$")],
    ),
]


class Contract(Declared):
    """Names, types and bounds of the events of one topic."""

    id: str | None = Field(None, description="field that identifies an event; it becomes the key of its prediction")
    time: str = Field(description="field that holds event time, int64 epoch milliseconds UTC")
    fields: dict[str, _Field] = Field(
        description="every field an event has; an event with another field, or without one of these, is rejected"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for role, name, wanted in (("id", self.id, "string"), ("time", self.time, "int64")):
            if name is None:
                continue
            spec = self.fields.get(name)
            if spec is None:
                msg = f"{role}: got {name!r}, which is not among the fields{did_you_mean(name, self.fields)}"
                raise ValueError(msg)
            if spec.type != wanted or spec.nullable:
                got = spec.type + ("?" if spec.nullable else "")
                msg = f"{role}: field {name!r} must be {wanted} and not nullable; got {got}"
                raise ValueError(msg)
        for name, spec in self.fields.items():
            if not all(limit is None or math.isfinite(limit) for limit in (spec.min, spec.max)) or (
                spec.min is not None and spec.max is not None and spec.min > spec.max
            ):
                msg = f"fields.{name}: got min {spec.min} and max {spec.max}; both are finite, and min is not above max"
                raise ValueError(msg)
            if not name.isidentifier() or name.startswith("_"):
                msg = f"fields: got {name!r}; a name is letters, digits and underscores and starts with a letter"
                raise ValueError(msg)
            if spec.type in ("string", "bool") and (spec.min is not None or spec.max is not None):
                msg = f"fields.{name}: min and max need a number; got type {spec.type}"
                raise ValueError(msg)
        return self

    def struct(self) -> type[msgspec.Struct]:
        """Return the strict msgspec struct: unknown and missing fields are refused, no implicit conversion."""
        fields = [
            (name, PYTHON_TYPES[spec.type] | None if spec.nullable else PYTHON_TYPES[spec.type])
            for name, spec in self.fields.items()
        ]
        return msgspec.defstruct("Event", fields, forbid_unknown_fields=True, gc=False)

    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema of a decoded batch, in the order of the declaration."""
        return pa.schema([pa.field(name, ARROW_TYPES[spec.type], spec.nullable) for name, spec in self.fields.items()])
