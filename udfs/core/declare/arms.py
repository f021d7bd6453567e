"""Arms: the models of a pipeline beside its champion, and which rows each one answers, as a user declares it.

A share is held in millionths and written `5%`; a moment in epoch milliseconds and written `2026-01-31T00:00:00Z`.
"""

import datetime as dt
import re
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from udfs.core.declare.composition import ArmName, Ensemble, RegisteredName
from udfs.core.declare.conditions import Where
from udfs.core.declare.contract import Declared
from udfs.core.declare.durations import DurationMs
from udfs.core.errors import did_you_mean

WHOLE = 1_000_000
"""Millionths: all keys."""
CHAMPION, PREVIOUS = "champion", "previous"
Role = Literal["champion", "challenger", "canary", "shadow", "step", "member", "entity", "previous"]


def parse_share(text: object) -> int:
    """Return the millionths of a share such as `5%` or `0.25%`.

    Examples
    --------
    >>> parse_share("5%"), parse_share("0.25 %")
    (50000, 2500)
    """
    match = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,4}))?\s*%", text.strip()) if isinstance(text, str) else None
    share = int(match[1]) * 10_000 + int((match[2] or "").ljust(4, "0")) if match else 0
    if match is None or share > WHOLE:
        # A number could mean a fraction, a percentage or a weight.
        is_fraction = isinstance(text, int | float) and not isinstance(text, bool) and 0 < text <= 1
        hint = f"; did you mean '{format_share(round(float(str(text)) * WHOLE))}'?" if is_fraction else ""
        msg = f"got {text!r}; a share is a percentage from 0% to 100%, such as '5%' or '0.25%'{hint}"
        raise ValueError(msg)
    return share


def format_share(share: int) -> str:
    """Return the shortest exact spelling of a share.

    Examples
    --------
    >>> format_share(50_000), format_share(2_500)
    ('5%', '0.25%')
    """
    whole, rest = divmod(share, 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + "%"


def _parse_moment(got: object) -> int:
    """Return epoch milliseconds of what YAML makes of a moment."""
    moment: object = got
    if isinstance(got, str):
        try:
            moment = dt.datetime.fromisoformat(got)
        except ValueError:
            moment = None
    if not isinstance(moment, dt.datetime) or moment.tzinfo is None:
        msg = f"got {str(got)!r}; a moment has a date, a time and a zone, such as 2026-01-31T09:00:00Z"
        raise ValueError(msg)
    return int(moment.timestamp() * 1000)


def format_moment(moment_ms: int) -> str:
    """Return a moment as it is written.

    Examples
    --------
    >>> format_moment(1_769_850_000_000)
    '2026-01-31T09:00:00+00:00'
    """
    return dt.datetime.fromtimestamp(moment_ms / 1000, dt.UTC).isoformat()


Share = Annotated[
    int,
    BeforeValidator(parse_share),
    PlainSerializer(format_share, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,3}(\.\d{1,4})?\s*%$", "title": "percentage"}),
]
MomentMs = Annotated[
    int,
    BeforeValidator(_parse_moment),
    PlainSerializer(format_moment, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "title": "moment"}),
]


class Arm(Declared):
    """What an arm scores with."""

    name: ArmName = Field(description="what its predictions and metrics call it")
    model: RegisteredName | None = Field(None, description="registered model; default: the champion's")
    alias: str | None = Field(None, description="registry alias; default: the arm's name")
    ensemble: Ensemble | None = Field(None, description="further models that answer together with it")


class Challenger(Arm):
    """An arm that answers some of the keys (A/B), or the rows of a rule."""

    weight: Share | None = Field(
        None, description="share of the keys that the canary leaves; the champion has the rest; absent: by rule only"
    )


class Ramp(Declared):
    """A share that grows by schedule, judged by the event's own time, so that a replay gives the same arm."""

    from_ms: MomentMs = Field(alias="from", description="event time at which the first step begins; 0% before it")
    every_ms: DurationMs = Field(alias="every", description="how long a step lasts; the last one stays")
    steps: Annotated[tuple[Share, ...], Field(min_length=1)] = Field(description="shares, each above the one before")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.every_ms < 1:
            msg = "every: got 0ms; a step lasts for some time"
            raise ValueError(msg)
        pairs = zip((0, *self.steps), self.steps, strict=False)
        for position, (before, after) in enumerate(pairs):
            if after <= before:
                got = f"steps[{position}]: got {format_share(after)} after {format_share(before)}"
                msg = f"{got}; a ramp only grows, so that a key stays in the canary"
                raise ValueError(msg)
        return self

    def shares(self, times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the share at each event time, int64[n], millionths."""
        begun = np.searchsorted(self._begins_ms(), times_ms, "right")
        return np.array([0, *self.steps], np.int64)[begun]

    def _begins_ms(self) -> NDArray[np.int64]:
        return self.from_ms + self.every_ms * np.arange(len(self.steps), dtype=np.int64)


class Canary(Arm):
    """An arm that answers few keys first and more later: a fixed share, raised by hand, or a ramp."""

    name: ArmName = Field("canary", description="what its predictions and metrics call it")
    share: Share | None = Field(None, description="share of all keys; a key stays in it when the share is raised")
    ramp: Ramp | None = Field(None, description="share by schedule, in place of `share`")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.share is None) == (self.ramp is None):
            got = "neither" if self.share is None else "both"
            msg = f"got {got} of share and ramp; give one of them"
            raise ValueError(msg)
        return self


class Rule(Declared):
    """Rows whose content decides their arm; the first rule that fits counts, before canary and weights."""

    when: Where = Field(description="condition over the columns of the row, features included")
    arm: ArmName = Field(description="the arm that answers: `champion`, a challenger or the canary")


class Routing(Declared):
    """By what keys are dealt out to arms."""

    key: str | None = Field(
        None, description="text or int64 field; default: the source's key; a row without it goes by its event id"
    )
    salt: str = Field("", max_length=100, description="another salt deals the keys out anew")


def check_arms(champion_alias: str, arms: dict[str, Arm], shadows: set[str], rules: tuple[Rule, ...]) -> None:
    """Raise ValueError for names, weights and rules that contradict each other.

    Parameters
    ----------
    champion_alias : alias of the champion
    arms : path in the declaration -> arm, all but the champion
    shadows : paths of those that never answer
    rules : as declared
    """
    path_of: dict[str, str] = {}
    for path, arm in arms.items():
        if arm.name in (CHAMPION, PREVIOUS):
            what = "the model itself" if arm.name == CHAMPION else "the version that `fallback` means"
            msg = f"{path}.name: got {arm.name!r}, which names {what}; choose another"
            raise ValueError(msg)
        if arm.name in path_of:
            msg = f"{path}.name: got {arm.name!r}, as {path_of[arm.name]} has; each arm needs a name of its own"
            raise ValueError(msg)
        if arm.model is None and (arm.alias or arm.name) == champion_alias:
            msg = f"{path}.alias: got {champion_alias!r}, which is the champion's; an arm needs another version"
            raise ValueError(msg)
        path_of[arm.name] = path
    answering = [CHAMPION, *(arm.name for path, arm in arms.items() if path not in shadows)]
    _check_rules(rules, answering, {arms[path].name for path in shadows})
    weights = 0
    for path, arm in arms.items():
        if not isinstance(arm, Challenger):
            continue
        if arm.weight == 0 or (arm.weight is None and arm.name not in {rule.arm for rule in rules}):
            got = "none" if arm.weight is None else "0%"
            msg = f"{path}.weight: got {got}, and no rows; give it a share of the keys, or leave weight out and name"
            msg += f" {arm.name!r} in a rule"
            raise ValueError(msg)
        weights += arm.weight or 0
    if weights >= WHOLE:
        msg = f"challengers: got weights of {format_share(weights)} in all; below 100%, the champion has the rest"
        raise ValueError(msg)


def _check_rules(rules: tuple[Rule, ...], answering: list[str], shadows: set[str]) -> None:
    for position, rule in enumerate(rules):
        if rule.arm not in answering:
            why = "which is a shadow and never answers" if rule.arm in shadows else "which is no arm"
            msg = f"rules[{position}].arm: got {rule.arm!r}, {why}{did_you_mean(rule.arm, answering)}"
            raise ValueError(msg)
