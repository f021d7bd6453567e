"""Feature groups: the windowed features that a pipeline declares."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from udfs.core.aggregations import MAX_N, Aggregation, Params
from udfs.core.declare.catalog import CATALOG, Sketch
from udfs.core.declare.conditions import Condition, Where, parse
from udfs.core.declare.contract import Declared
from udfs.core.declare.durations import DurationMs, format_duration, parse_duration_ms
from udfs.core.declare.take_schema import take_schema
from udfs.core.declare.windows import DeclaredWindow
from udfs.core.errors import did_you_mean


class Take(Declared):
    """One aggregation with its argument. `mean` is short for `{name: mean}`, `{last_n: 3}` for name and argument."""

    name: str = Field(description="name of the aggregation")
    argument: bool | int | float | str | tuple[bool | int | float | str, ...] | None = Field(
        None, description="its argument, if it has one"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name not in CATALOG:
            msg = f"got {self.name!r}{did_you_mean(self.name, CATALOG)}"
            raise ValueError(msg)
        check_argument(self.name, self.argument)
        return self

    @property
    def aggregation(self) -> Aggregation | Sketch:
        """Its row in the catalog."""
        return CATALOG[self.name]

    @property
    def params(self) -> Params:
        """Numbers that the functions of the aggregation get."""
        kind = self.aggregation.argument
        if kind == "duration":
            return (float(parse_duration_ms(self.argument)),)
        if kind in ("count", "share"):
            return (float(self.argument),)  # type: ignore[arg-type]  # checked
        if kind == "bounds":
            return tuple(map(float, self.argument))  # type: ignore[arg-type]  # checked
        return self.aggregation.default

    @property
    def other(self) -> str | None:
        """The second column, of argmax and argmin."""
        return str(self.argument) if self.aggregation.argument == "column" else None

    @property
    def flag(self) -> Condition | None:
        """The condition of a ratio."""
        return parse(str(self.argument)) if self.aggregation.argument == "condition" else None

    @property
    def labels(self) -> tuple[str, ...]:
        """What its output columns are called: `mean`, `last_n_1`, `last_n_2`, `p99`, `decayed_sum_1h`."""
        kind = self.aggregation.argument
        if kind in ("none", "condition"):
            return (self.name,)
        if kind == "bounds":
            return tuple(f"{self.name}_{i}" for i in range(len(self.params) + 1))
        if self.name in ("first_n", "last_n"):
            return tuple(f"{self.name}_{i + 1}" for i in range(int(self.params[0])))
        if kind == "share":
            return (f"p{self.params[0] * 100:.10f}".rstrip("0").rstrip(".").replace(".", "_"),)
        if kind == "duration":
            return (f"{self.name}_{format_duration(int(self.params[0]))}",)
        return (f"{self.name}_{self.argument}",)


#: kind of argument -> what it is, an example, and whether something is one
ARGUMENTS: dict[str, tuple[str, str, Callable[[Any], bool]]] = {
    "none": ("no argument", "{name}", lambda got: got is None),
    "count": (f"a whole number from 1 to {MAX_N}", "{{{name}: 3}}", lambda got: type(got) is int and 0 < got <= MAX_N),
    "share": (
        "a share between 0 and 1", "{{{name}: 0.99}}", lambda got: type(got) in (int, float) and 0 <= got <= 1
    ),
    "duration": (
        "a duration", "{{{name}: 1h}}", lambda got: isinstance(got, str) and parse_duration_ms(got) > 0
    ),
    "column": ("a column", "{{{name}: amount}}", lambda got: isinstance(got, str)),
    "condition": (
        "a condition", "{{{name}: \"amount > 100\"}}", lambda got: isinstance(got, str) and bool(parse(got).text)
    ),
    "bounds": (
        "ascending numbers", "{{{name}: [0, 10, 100]}}",
        lambda got: isinstance(got, tuple) and 0 < len(got) <= MAX_N and _ascends(got),
    ),
}  # fmt: skip


def _ascends(got: tuple[Any, ...]) -> bool:
    are_numbers = all(type(one) in (int, float) and math.isfinite(one) for one in got)
    return are_numbers and list(got) == sorted(set(got))


def check_argument(name: str, got: object) -> None:
    """Raise ValueError if an aggregation cannot take the argument."""
    wanted, example, fits = ARGUMENTS[CATALOG[name].argument]
    try:
        if fits(got):
            return
        why = ""
    except ValueError as error:
        why = f": {error}"
    msg = f"{name} needs {wanted}, such as {example.format(name=name)}; got {got!r}{why}"
    raise ValueError(msg)


def _expand(spec: object) -> object:
    """Turn `mean` and `{last_n: 3}` into the long form."""
    if isinstance(spec, str):
        return {"name": spec}
    if isinstance(spec, dict) and len(spec) == 1 and "name" not in spec:
        [(name, argument)] = spec.items()
        return {"name": name, "argument": argument}
    return spec


DeclaredTake = Annotated[Take, BeforeValidator(_expand), WithJsonSchema(take_schema())]


class FeatureGroup(Declared):
    """Windowed features: every aggregation of `take` over every window of `over`, per `entity`."""

    entity: str | tuple[str, ...] = Field(
        description="field that says what the feature is about, or several that do so together; null has no features"
    )
    of: str | None = Field(None, description="column that is aggregated; may be left out where events are counted")
    where: Where | None = Field(None, description="condition; only events that meet it count, such as `amount > 100`")
    stream: str | None = Field(
        None, alias="from", description="enrichment whose rows are aggregated; default: the scored events themselves"
    )
    by: str | None = Field(None, description="column whose values each have their own aggregate; gives a mapping")
    take: Annotated[tuple[DeclaredTake, ...], Field(min_length=1, description="aggregations, see their table")]
    over: Annotated[tuple[DeclaredWindow, ...], Field(min_length=1, description="windows, see their table")]
    declared_slide_ms: DurationMs | None = Field(
        None, alias="slide", description="width of a tile of sliding windows; default: about a fiftieth of the window"
    )
    includes_event: bool = Field(
        True, alias="include_event", description="false: the features say what was known just before the event"
    )
    alias: str | None = Field(
        None,
        alias="as",
        description="start of the names, in place of the entity and column",
        pattern=r"^[a-z][a-z0-9_]*$",
    )

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that make its entity."""
        return (self.entity,) if isinstance(self.entity, str) else self.entity

    @property
    def entity_name(self) -> str:
        """Name of its entity: the field, or the fields joined: `user_merchant`."""
        return "_".join(self.fields)

    @property
    def prefix(self) -> str:
        """Start of its feature names."""
        by = [f"by_{self.by}"] if self.by else []
        return self.alias or "_".join([self.entity_name, *([self.of] if self.of else []), *by])

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.fields or len(set(self.fields)) < len(self.fields):
            msg = f"entity: got {list(self.fields)}; name one field, or several different ones"
            raise ValueError(msg)
        if self.declared_slide_ms == 0:
            msg = "slide: got 0; a tile is at least 1ms wide"
            raise ValueError(msg)
        for window in self.over:
            window.check_slide(self.declared_slide_ms)
        if self.of is None and any(one.aggregation.needs_value for one in self.take):
            wanting = [one.name for one in self.take if one.aggregation.needs_value]
            msg = f"of: missing; {', '.join(wanting)} cannot do without a value"
            raise ValueError(msg)
        return self
