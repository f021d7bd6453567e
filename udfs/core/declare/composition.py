"""Composition: several models that make one answer, as a user declares it: ensembles, chains, a model per entity."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, StrictFloat, StrictInt, WithJsonSchema, model_validator

from udfs.core.declare.contract import Declared

ArmName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)]
RegisteredName = Annotated[str, Field(pattern=r"^[^/:.%\"']+$")]
Combine = Literal["mean", "weighted_mean", "max", "vote"]
Weight = Annotated[StrictInt | StrictFloat, Field(gt=0, allow_inf_nan=False)]
ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
PLACE = "{}"
"""Where the word of an entity stands in the name or alias of its model."""


def _spell_out(got: object) -> object:
    """Let a list of values stand for themselves; refuse what YAML made of `NO`."""
    if not isinstance(got, dict | list):
        return got
    spelled: dict[str, object] = {}
    for value, word in got.items() if isinstance(got, dict) else zip(got, map(str, got), strict=True):
        if isinstance(value, bool | float) or str(value) in spelled:
            what = (
                "stands twice" if str(value) in spelled else "is no text or whole number; YAML reads NO as false: quote"
            )
            msg = f"got {value!r}, which {what}"
            raise ValueError(msg)
        spelled[str(value)] = word
    return spelled


Values = Annotated[
    dict[str, Word],
    BeforeValidator(_spell_out),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": "string"}},
                {"type": "array", "items": {"type": ["string", "integer"]}},
            ]
        }
    ),
]


class Member(Declared):
    """A further model of an ensemble."""

    name: ArmName = Field(description="what predictions and metrics call it, behind the arm's name and a dot")
    model: RegisteredName | None = Field(None, description="registered model; default: the arm's")
    alias: str | None = Field(None, description="registry alias; default: the member's name")
    weight: Weight | None = Field(None, description="with `weighted_mean`: its weight; default: 1")


class Ensemble(Declared):
    """Further models that answer together with the arm's own; all of them, or none."""

    combine: Combine = Field(
        description="how their answers become one: mean, weighted_mean, max (of single numbers), vote (the share of "
        "models whose probability is above their threshold, or whose best class it is)"
    )
    members: Annotated[tuple[Member, ...], Field(min_length=1)] = Field(description="the models beside the arm's own")
    own_weight: Weight | None = Field(None, description="with `weighted_mean`: weight of the arm's own; default: 1")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [one.name for one in self.members]
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            msg = f"members[{len(names) - 1 - names[::-1].index(twice)}].name: got {twice!r}, which stands twice"
            raise ValueError(msg)
        given = {f"members[{i}].weight": one.weight for i, one in enumerate(self.members)}
        given["own_weight"] = self.own_weight
        weighted = [path for path, weight in given.items() if weight is not None]
        if self.combine != "weighted_mean" and weighted:
            msg = f"{weighted[0]}: got a weight, and combine: {self.combine}; did you mean 'weighted_mean'?"
            raise ValueError(msg)
        if self.combine == "weighted_mean" and not weighted:
            msg = "combine: got weighted_mean, and no weight; give one, or take mean"
            raise ValueError(msg)
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights, the arm's own first."""
        return tuple(float(weight or 1) for weight in (self.own_weight, *(one.weight for one in self.members)))


class Step(Declared):
    """A model that runs before the arms: what it gives is an input of the steps behind it and of all arms."""

    name: ColumnName = Field(description="what predictions and metrics call it; the column it gives, unless `gives` is")
    model: RegisteredName = Field(description="registered model")
    alias: str = Field("champion", description="registry alias")
    gives: tuple[ColumnName, ...] = Field(
        (), description="columns of its output, in order: one for a number, one each for class scores or a vector"
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it gives."""
        return self.gives or (self.name,)


class PerEntity(Declared):
    """A model for each value of a field, in place of the champion's own version; few are in memory at a time."""

    key: str = Field(description="text or int64 field of the event whose value picks the model")
    values: Values = Field(
        description="the values that have a model: a list, or value -> the word that stands for it in names and aliases"
    )
    model: str | None = Field(None, description="registered model, `{}` is the word; default: the champion's")
    alias: str | None = Field(None, description="registry alias, `{}` is the word; default: the champion's")
    missing: Literal["champion", "reject"] = Field(
        "champion",
        description="what becomes of a row whose value is not listed: the champion's own version, or no_model",
    )
    memory_mb: Annotated[StrictInt, Field(ge=1)] = Field(
        256, description="what the loaded models of a worker may take, units of 2**20 bytes; the least used one leaves"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.values:
            msg = "values: got none; list the values that have a model of their own"
            raise ValueError(msg)
        words = list(self.values.values())
        twice = next((word for i, word in enumerate(words) if word in words[:i]), None)
        if twice is not None:
            first, second = (value for value, word in self.values.items() if word == twice)
            msg = f"values: got the word {twice!r} for {first!r} and {second!r}; each needs one of its own"
            raise ValueError(msg)
        patterns = {"model": self.model, "alias": self.alias}
        if not any(PLACE in (pattern or "") for pattern in patterns.values()):
            msg = f"got {PLACE} in neither model nor alias; it is where the word stands, such as alias: 'champion-{{}}'"
            raise ValueError(msg)
        if self.model is not None and not re.fullmatch(r"[^/:.%\"']+", self.model):
            msg = f"model: got {self.model!r}; a registered name has none of / : . % and quotes"
            raise ValueError(msg)
        return self

    def model_of(self, word: str, champion: str) -> str:
        """Return the registered model of a word."""
        return (self.model or champion).replace(PLACE, word)

    def alias_of(self, word: str, champion: str) -> str:
        """Return the registry alias of a word."""
        return (self.alias or champion).replace(PLACE, word)
