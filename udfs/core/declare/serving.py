"""Serving: what a scoring job does when a model fails, is slow or takes too much memory, as a user declares it."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictFloat, StrictInt, model_validator

from udfs.core.declare.contract import Declared
from udfs.core.declare.durations import DurationMs

Rung = Literal["previous_version", "default_score", "reject"]
Provider = Literal["cpu", "cuda"]
Positive = Annotated[StrictInt, Field(ge=1)]


class BreakerPolicy(Declared):
    """When a model that keeps failing is left alone, counted in batches."""

    after: Positive = Field(5, description="failing batches in a row after which the fallback answers at once")
    batches: Positive = Field(100, description="batches that the fallback answers before the model is tried again")


class Serving(Declared):
    """Deadline, fallback and limits of the score stage."""

    fallback: tuple[Rung, ...] = Field(
        (),
        description="what answers a batch that a model fails on, in this order; none: the job fails and goes on from "
        "its checkpoint",
    )
    deadline_ms: DurationMs | None = Field(
        None, alias="deadline", description="longest run of a model on one batch; beyond it the batch counts as failed"
    )
    previous: str = Field("previous", description="with `previous_version`: registry alias of that version")
    default_score: Annotated[StrictInt | StrictFloat, Field(allow_inf_nan=False)] | None = Field(
        None, description="with `default_score`: the score"
    )
    breaker: BreakerPolicy = Field(BreakerPolicy(), description="leaves a model alone that keeps failing")
    batch_max: Annotated[StrictInt, Field(ge=1, le=65_536)] = Field(
        4096, description="rows of one run; a larger batch is scored in parts"
    )
    max_rss_mb: Positive | None = Field(
        None, description="memory of a Python worker (RSS); beyond it the job fails, and goes on with a fresh worker"
    )
    providers: Annotated[tuple[Provider, ...], Field(min_length=1)] = Field(
        ("cpu",), description="where models run, the first that there is; scores are bit-equal on `cpu` alone"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, words in (("fallback", self.fallback), ("providers", self.providers)):
            if len(set(words)) != len(words):
                msg = f"{name}: got {list(words)}; each stands once"
                raise ValueError(msg)
        for rung in ("default_score", "reject"):
            if rung in self.fallback[:-1]:
                behind = self.fallback[self.fallback.index(rung) + 1]
                msg = f"fallback: got {behind} behind {rung}, which never fails; put {rung} last"
                raise ValueError(msg)
        if ("default_score" in self.fallback) != (self.default_score is not None):
            got = "no score" if self.default_score is None else f"the score {self.default_score}"
            inside = "with" if "default_score" in self.fallback else "without"
            msg = f"default_score: got {got}, and a fallback {inside} default_score; they go together"
            raise ValueError(msg)
        if self.deadline_ms == 0:
            msg = "deadline: got 0ms; no model is as quick; leave it out for none"
            raise ValueError(msg)
        if self.deadline_ms is not None and not self.fallback:
            msg = "deadline: got one, and no fallback; say what answers instead, such as fallback: [reject]"
            raise ValueError(msg)
        return self
