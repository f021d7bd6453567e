"""Serving: a batch in, an answer per row out: by its arm's model, or by the first rung of the fallback that has one.

What a healthy model answers is a function of the row. What is not (a deadline that passed, a breaker that is open) goes
by the clock or by how batches were cut, so it is stamped: a status that is not `ok`, or a reject that says why.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.declare.arms import PREVIOUS
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.serving import Rung
from udfs.core.errors import ModelError
from udfs.core.model.deadline import Deadlines
from udfs.core.model.guarded import FailingModelError, GuardedModel, Scores
from udfs.core.model.routing import Router
from udfs.core.model.scorer import F32, Matrix, Scorer

_LOG = logging.getLogger(__name__)
I64 = NDArray[np.int64]
Status = Literal["ok", "previous_version", "default_score"]
Reason = Literal["score_failed", "score_unavailable"]


class ServingError(ModelError):
    """No model answered, and the pipeline declares no fallback: the job fails, and goes on from its checkpoint."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a batch that one arm answered in one way."""

    arm: str
    #: whose version it is: the arm's, or `previous`
    source: str
    status: Status
    #: int64[k], ascending
    rows: I64
    #: finite, float32[k] or float32[k, width]
    scores: F32


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row without an answer."""

    row: int
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of the rows of a batch: each stands in one answer, or in one rejection."""

    given: tuple[Answer, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    #: shadow -> its scores of all rows, not finite where there is none
    shadows: dict[str, F32] = field(default_factory=dict)


class ArmsServer:
    """Answers batches with the models of all arms.

    Parameters
    ----------
    pipeline : as declared
    scorers : arm -> its model, shadows included; and `previous`, if the fallback has that rung
    """

    def __init__(self, pipeline: Pipeline, scorers: Mapping[str, Scorer]) -> None:
        serving = pipeline.model.serving
        self._deadlines = deadlines = Deadlines(serving.deadline_ms)
        self.router = Router(pipeline)
        self.models = {name: GuardedModel(scorer, serving, deadlines) for name, scorer in scorers.items()}
        self._shadows = [one.name for one in pipeline.model.shadowing]
        self.fallback, self._default = serving.fallback, serving.default_score
        #: rows by the rung that answered them, or rejected them
        self.fallen_back: Counter[Rung] = Counter()

    def warm_up(self) -> None:
        """Run every model on batches of all sizes, before the first event comes."""
        for model in self.models.values():
            model.warm_up()

    def close(self) -> None:
        """End what runs beside; no batch may be under way."""
        self._deadlines.close()

    def answer(self, rows: pa.RecordBatch) -> Answers:
        """Answer the rows of a batch, n of them.

        Raises
        ------
        ServingError : a model failed on the batch as a whole, and there is no fallback.
        """
        if rows.num_rows == 0:
            return Answers()
        matrices = _Matrices(rows)
        given: list[Answer] = []
        rejected: list[Rejection] = []
        arms = self.router.assign(rows)
        for i, arm in enumerate(self.router.arms):
            mine = np.flatnonzero(arms == i)
            if len(mine):
                self._answer(arm, mine, matrices, given, rejected)
        shadows = {name: self._shadow(name, matrices) for name in self._shadows}
        return Answers(tuple(given), tuple(rejected), shadows)

    def _answer(
        self, arm: str, rows: I64, matrices: "_Matrices", given: list[Answer], rejected: list[Rejection]
    ) -> None:
        """Go down the ladder until a rung answers."""
        found, why = self._try(arm, rows, matrices)
        status: Status = "ok"
        source = arm
        for rung in self.fallback if found is None else ():
            if rung == "reject":
                self.fallen_back[rung] += len(rows)
                rejected += (Rejection(int(row), "score_unavailable", why) for row in rows)
                return
            if rung == "previous_version":
                found, more = self._try(PREVIOUS, rows, matrices)
                why, status, source = f"{why}; {more}", "previous_version", PREVIOUS
            else:
                found, status, source = self._default_scores(arm, len(rows)), "default_score", arm
            if found is not None:
                self.fallen_back[rung] += len(rows)
                break
        if found is None:
            msg = f"arm {arm}: no model answered: {why}; declare what does then under model.serving.fallback"
            raise ServingError(msg)
        rejected += (Rejection(int(rows[i]), "score_failed", text) for i, text in found.failed.items())
        if found.failed:
            good = np.setdiff1d(np.arange(len(rows)), list(found.failed))
            rows, found = rows[good], Scores(found.values[good])
        if len(rows):
            given.append(Answer(arm, source, status, rows, found.values))

    def _try(self, name: str, rows: I64, matrices: "_Matrices") -> tuple[Scores | None, str]:
        """Return the scores of a model, or None and why it has none."""
        model = self.models[name]
        # Without a fallback there is nothing to leave it alone for.
        if self.fallback and not model.breaker.asks():
            return None, f"{model.scorer.contract.what}: left alone after it failed on batches in a row"
        try:
            return model.score(matrices.of(model.scorer, rows)), ""
        except FailingModelError as error:
            return None, str(error)

    def _default_scores(self, arm: str, count: int) -> Scores:
        return Scores(np.full_like(self.models[arm].scorer.nothing(count), self._default))

    def _shadow(self, name: str, matrices: "_Matrices") -> F32:
        """Return the scores of a shadow; whatever it does, the answers stand."""
        model, count = self.models[name], matrices.rows.num_rows
        if model.breaker.asks():
            try:
                return model.score(matrices.of(model.scorer, np.arange(count))).values
            except FailingModelError:
                pass  # counted already
            except Exception:  # noqa: BLE001  such as scores of another shape; for an arm that answers the job fails
                _LOG.exception("shadow %s: gives no scores", name)
        return model.scorer.nothing(count)


class _Matrices:
    """The feature matrix of a batch, made once for all models that take the same."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self.rows = rows
        self._made: dict[tuple[tuple[str, ...], bool], Matrix] = {}

    def of(self, scorer: Scorer, rows: I64) -> Matrix:
        """Return some rows as a model takes them."""
        kind = (tuple(scorer.contract.inputs), scorer.is_float32)
        if kind not in self._made:
            self._made[kind] = scorer.matrix(self.rows)
        whole = self._made[kind]
        return whole if len(rows) == len(whole) else whole[rows]
