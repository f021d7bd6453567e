"""The model reference of a pipeline: its champion, the arms beside it, how rows are routed and what serves them."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from udfs.core.declare.arms import (
    CHAMPION,
    PREVIOUS,
    Arm,
    Canary,
    Challenger,
    Role,
    Routing,
    Rule,
    check_arms,
    format_moment,
    format_share,
)
from udfs.core.declare.composition import Ensemble, PerEntity, RegisteredName, Step
from udfs.core.declare.contract import Declared
from udfs.core.declare.durations import format_duration
from udfs.core.declare.serving import Serving


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that a job scores with, by its registry alias."""

    #: arm
    name: str
    role: Role
    #: registered model and alias
    model: str
    alias: str
    #: which rows it answers, for people
    rows: str


class ModelReference(Declared):
    """The model that scores, by its registry alias, its inputs, and the arms beside it."""

    name: RegisteredName = Field(description="registered model name in MLflow")
    alias: str = Field("champion", description="registry alias, resolved to a version once, at submission")
    inputs: tuple[str, ...] = Field(
        (), description="number columns fed to the model before the windowed features: fields, lookups, joins, derived"
    )
    chain: tuple[Step, ...] = Field((), description="models that run first; what they give are inputs, as features are")
    ensemble: Ensemble | None = Field(None, description="further models that answer together with the champion")
    per_entity: PerEntity | None = Field(None, description="a model per value of a field, in place of the champion's")
    challengers: tuple[Challenger, ...] = Field((), description="arms that answer a share of the keys, for A/B tests")
    canary: Canary | None = Field(None, description="an arm whose share grows")
    shadows: tuple[Arm, ...] = Field((), description="arms that score every row beside the answer, and never answer")
    rules: tuple[Rule, ...] = Field((), description="rows whose content decides their arm")
    routing: Routing = Field(Routing(), description="by what keys are dealt out to arms")
    serving: Serving = Field(Serving(), description="what happens when a model fails, is slow, or grows")

    @model_validator(mode="after")
    def _check(self) -> Self:
        declared: dict[str, Arm] = {f"challengers[{i}]": one for i, one in enumerate(self.challengers)}
        declared |= {"canary": self.canary} if self.canary else {}
        shadows: dict[str, Arm] = {f"shadows[{i}]": one for i, one in enumerate(self.shadows)}
        check_arms(self.alias, declared | shadows, set(shadows), self.rules)
        self._check_chain({arm.name: path for path, arm in (declared | shadows).items()})
        own = {one.name: (one.model, one.alias) for one in (*self.answering, *self.shadowing)}
        for member in self.members:
            if (member.model, member.alias) == own[member.name.partition(".")[0]]:
                msg = f"ensemble: member {member.name} is {member.model}@{member.alias}, which is the arm's own already"
                raise ValueError(msg)
        if self.per_entity is not None and self.ensemble is not None:
            msg = "per_entity: got one, and an ensemble of the champion; a challenger may be the ensemble"
            raise ValueError(msg)
        return self

    def _check_chain(self, arms: dict[str, str]) -> None:
        taken = {CHAMPION: "the model itself", PREVIOUS: "the version that `fallback` means"} | arms
        for position, step in enumerate(self.chain):
            for name in (step.name, *step.columns):
                if taken.get(name, f"chain[{position}]") != f"chain[{position}]":
                    msg = f"chain[{position}]: got {name!r}, which names {taken[name]}; choose another"
                    raise ValueError(msg)
                taken[name] = f"chain[{position}]"
            if len(set(step.columns)) != len(step.columns):
                msg = f"chain[{position}].gives: got {list(step.columns)}; each column stands once"
                raise ValueError(msg)

    @property
    def answering(self) -> tuple[NamedModel, ...]:
        """The arms that answer, the champion first; their order is the one of `routing.Router`."""
        canary = (self.canary,) if self.canary else ()
        return (
            NamedModel(CHAMPION, "champion", self.name, self.alias, "all that no other arm answers"),
            *(self._named(arm, "challenger", _weight(arm)) for arm in self.challengers),
            *(self._named(arm, "canary", _share(arm)) for arm in canary),
        )

    @property
    def shadowing(self) -> tuple[NamedModel, ...]:
        """The arms that never answer."""
        return tuple(self._named(arm, "shadow", "none; it scores all") for arm in self.shadows)

    @property
    def steps(self) -> tuple[NamedModel, ...]:
        """The models of the chain, in their order."""
        return tuple(
            NamedModel(one.name, "step", one.model, one.alias, f"none; it gives {', '.join(one.columns)}")
            for one in self.chain
        )

    @property
    def ensembles(self) -> dict[str, Ensemble]:
        """The ensembles, by arm."""
        canary = (self.canary,) if self.canary else ()
        found = {arm.name: arm.ensemble for arm in (*self.challengers, *canary, *self.shadows)}
        return {arm: one for arm, one in ({CHAMPION: self.ensemble} | found).items() if one is not None}

    @property
    def members(self) -> tuple[NamedModel, ...]:
        """The models of ensembles beside the arm's own."""
        own = {arm.name: arm.model for arm in (*self.answering, *self.shadowing)}
        return tuple(
            NamedModel(f"{arm}.{one.name}", "member", one.model or own[arm], one.alias or one.name, f"those of {arm}")
            for arm, ensemble in self.ensembles.items()
            for one in ensemble.members
        )

    @property
    def entities(self) -> tuple[NamedModel, ...]:
        """The models per entity, in the order of the values."""
        per = self.per_entity
        if per is None:
            return ()
        return tuple(
            NamedModel(
                f"{CHAMPION}.{word}",
                "entity",
                per.model_of(word, self.name),
                per.alias_of(word, self.alias),
                f"the champion's where {per.key} is {value}",
            )
            for value, word in per.values.items()
        )

    @property
    def models(self) -> tuple[NamedModel, ...]:
        """All models that a job loads: arms, shadows, what they are composed of, and the previous version if needed."""
        previous = NamedModel(PREVIOUS, "previous", self.name, self.serving.previous, "batches that an arm fails on")
        is_needed = "previous_version" in self.serving.fallback
        composed = (*self.steps, *self.members, *self.entities)
        return (*self.answering, *self.shadowing, *composed, *((previous,) if is_needed else ()))

    @property
    def is_routed(self) -> bool:
        """Whether there is more than the champion's version to answer."""
        return len(self.answering) > 1 or self.per_entity is not None

    def routing_epoch(self, source_key: str) -> str:
        """Return the hash of all that decides which arm and entity answer a row: SHA-256, first 16 hex digits.

        Models and their versions do not enter: a prediction names its version beside the epoch.

        Parameters
        ----------
        source_key : what `routing.key` is by default
        """
        decides = {"name", "weight", "share", "ramp"}
        kept: Any = {"challengers": {"__all__": decides}, "canary": decides, "rules": True}
        declared = self.model_dump(mode="json", by_alias=True, include=kept)
        declared |= {"key": self.routing.key or source_key, "salt": self.routing.salt}
        if self.per_entity is not None:
            declared["per_entity"] = self.per_entity.model_dump(mode="json", include={"key", "values", "missing"})
        return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:16]

    def _named(self, arm: Arm, role: Role, rows: str) -> NamedModel:
        rules = [f"where {rule.when}" for rule in self.rules if rule.arm == arm.name]
        said = ", ".join([*rules, *([rows] if rows else [])])
        return NamedModel(arm.name, role, arm.model or self.name, arm.alias or arm.name, said)


def _weight(arm: Challenger) -> str:
    return f"{format_share(arm.weight)} of the keys" if arm.weight else ""


def _share(canary: Canary) -> str:
    if canary.ramp is None:
        return f"{format_share(canary.share or 0)} of all keys"
    ramp = canary.ramp
    steps = ", ".join(map(format_share, ramp.steps))
    return f"{steps} of all keys, a step each {format_duration(ramp.every_ms)} from {format_moment(ramp.from_ms)}"
