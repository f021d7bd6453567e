"""The contract of a stream: names, types and bounds of its events, as a user declares them.

Derived from it: the msgspec struct that decodes an event strictly, and the Arrow schema of a decoded batch.
"""

import math
from typing import Annotated, Any, Literal, Self

import msgspec
import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from udfs.core.errors import did_you_mean

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
FLOAT_EXACT = 2**53
"""Below it a float64 is the whole number that was written; from here on it may stand for its neighbour, too."""
MAX_SIZE = 4096
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


# One number for JSON and for editors; a whole number stays one, since float64 holds it exactly only up to 2**53.
Bound = Annotated[int | float, WithJsonSchema({"type": "number"})]


class FieldSpec(Declared):
    """One field of an event. `float64` is short for `{type: float64}`, `float64?` also allows null."""

    type: FieldType = Field(description="what its JSON value must be; never converted")
    size: Annotated[int, Field(ge=1, le=MAX_SIZE)] | None = Field(
        None, description="of a vector, an array of so many float64: `float64[8]` is short for it"
    )
    nullable: bool = Field(False, description="null is allowed; a missing field never is")
    min: Bound | None = Field(None, description="smallest allowed value; below it the row is rejected as out_of_range")
    max: Bound | None = Field(None, description="largest allowed value; above it the row is rejected as out_of_range")

    @field_validator("min", "max")
    @classmethod
    def _one_form(cls, limit: Bound | None) -> Bound | None:
        """Make 5 and 5.0 the same declaration."""
        return float(limit) if limit is not None and abs(limit) < FLOAT_EXACT else limit

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size is not None and (self.type != "float64" or (self.min, self.max) != (None, None)):
            msg = f"got a vector of {self.type}; a vector is float64, without min and max"
            raise ValueError(msg)
        for name, limit in (("min", self.min), ("max", self.max)):
            if limit is None:
                continue
            if self.type in ("string", "bool"):
                msg = f"min and max need a number; got type {self.type}"
            elif isinstance(limit, float) and not math.isfinite(limit):
                msg = f"{name}: got {limit}; a bound is finite, or left out"
            elif self.type == "int64" and isinstance(limit, float) and FLOAT_EXACT <= abs(limit) <= -INT64_MIN:
                msg = f"{name}: got {limit!r}; from 2**53 on write a whole number without point or exponent"
            elif self.type == "float64" and not _is_float(limit):
                msg = f"{name}: got {limit}, which no float64 is; round it to a number that is one"
            else:
                continue
            raise ValueError(msg)
        least, most = -math.inf if self.min is None else self.min, math.inf if self.max is None else self.max
        if self.type == "int64":
            least, most = math.ceil(max(least, INT64_MIN)), math.floor(min(most, INT64_MAX))
        if least > most:
            msg = f"got min {self.min} and max {self.max}; no {self.type} is between them"
            raise ValueError(msg)
        return self

    @property
    def kind(self) -> str:
        """Its type in one word: `int64`, `float64[8]`."""
        return self.type if self.size is None else f"{self.type}[{self.size}]"

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type of its column."""
        return ARROW_TYPES[self.type] if self.size is None else pa.list_(ARROW_TYPES[self.type], self.size)

    @property
    def python_type(self) -> Any:
        """What msgspec holds its JSON value to."""
        kind = PYTHON_TYPES[self.type]
        if self.size is not None:
            kind = Annotated[list[float], msgspec.Meta(min_length=self.size, max_length=self.size)]
        return kind | None if self.nullable else kind


def vector_size(kind: str | None) -> int | None:
    """Return the size of a vector kind such as `float64[8]`, None for another.

    Examples
    --------
    >>> vector_size("float64[8]"), vector_size("float64")
    (8, None)
    """
    return int(kind.partition("[")[2][:-1]) if kind and kind.endswith("]") else None


def _is_float(number: Bound) -> bool:
    try:
        return float(number) == number
    except OverflowError:
        return False


def _expand(spec: object) -> object:
    """Turn the short form (`int64`, `float64?`) into the long one."""
    if isinstance(spec, str):
        kind, _, size = spec.removesuffix("?").partition("[")
        is_vector = size.endswith("]") and size[:-1].isdecimal()
        return (
            {"type": kind, "size": int(size[:-1]), "nullable": spec.endswith("?")}
            if is_vector
            else {
                "type": spec.removesuffix("?"),
                "nullable": spec.endswith("?"),
            }
        )
    return spec


# Said for the JSON Schema, so that editors accept the short form, too.
_Field = Annotated[
    FieldSpec,
    BeforeValidator(
        _expand,
        json_schema_input_type=FieldSpec | Annotated[str, Field(pattern=r"^(string|int64|float64(\[\d+\])?|bool)\??$")],
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
            if spec.kind != wanted or spec.nullable:
                got = spec.kind + ("?" if spec.nullable else "")
                msg = f"{role}: field {name!r} must be {wanted} and not nullable; got {got}"
                raise ValueError(msg)
        for name in self.fields:
            if not name.isidentifier() or name.startswith("_"):
                msg = f"fields: got {name!r}; a name is letters, digits and underscores and starts with a letter"
                raise ValueError(msg)
        return self

    def struct(self) -> type[msgspec.Struct]:
        """Return the strict msgspec struct: unknown and missing fields are refused, no implicit conversion."""
        fields = [(name, spec.python_type) for name, spec in self.fields.items()]
        return msgspec.defstruct("Event", fields, forbid_unknown_fields=True, gc=False)

    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema of a decoded batch, in the order of the declaration."""
        return pa.schema([pa.field(name, spec.arrow_type, spec.nullable) for name, spec in self.fields.items()])
