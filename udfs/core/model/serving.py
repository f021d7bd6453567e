"""Serving: a batch in, an answer per row out: by its arm's model, or by the first rung of the fallback that has one.

What a healthy model answers is a function of the row. What is not (a deadline that passed, a breaker that is open) goes
by the clock or by how batches were cut, so it is stamped: a status that is not `ok`, or a reject that says why.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.declare.arms import CHAMPION, PREVIOUS
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.serving import Rung
from udfs.core.errors import ModelError
from udfs.core.model.composed import Batch, ComposedModels
from udfs.core.model.entities import EntityKeys
from udfs.core.model.guarded import Scores
from udfs.core.model.routing import Router
from udfs.core.model.scorer import F32, Scorer

_LOG = logging.getLogger(__name__)
I64 = NDArray[np.int64]
Status = Literal["ok", "previous_version", "default_score"]
Reason = Literal["score_failed", "score_unavailable", "no_model"]


class ServingError(ModelError):
    """No model answered, and the pipeline declares no fallback: the job fails, and goes on from its checkpoint."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a batch that one arm answered in one way."""

    arm: str
    #: whose version it is: the arm's, that of an entity of it, or `previous`
    source: str
    status: Status
    #: int64[k], ascending
    rows: I64
    #: finite, float32[k] or float32[k, width]
    scores: F32
    #: model -> its own scores of these rows, where several made the answer
    parts: dict[str, F32] = field(default_factory=dict)


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
    scorers : name -> model, as `ModelReference.models` names them, all but the entities'
    entities : name -> folder of the models per entity
    """

    def __init__(
        self, pipeline: Pipeline, scorers: Mapping[str, Scorer], entities: Mapping[str, Path] | None = None
    ) -> None:
        reference, serving = pipeline.model, pipeline.model.serving
        self.router, self.composed = Router(pipeline), ComposedModels(pipeline, scorers, entities)
        self.models = self.composed.guarded
        self._shadows = [one.name for one in reference.shadowing]
        self._per, self._entities = reference.per_entity, [one.name for one in reference.entities]
        self._entity_keys = EntityKeys(reference.per_entity) if reference.per_entity else None
        self.fallback, self._default = serving.fallback, serving.default_score
        #: rows by the rung that answered them, or rejected them
        self.fallen_back: Counter[Rung] = Counter()

    def warm_up(self) -> None:
        """Run every model on batches of all sizes, before the first event comes."""
        self.composed.warm_up()

    def close(self) -> None:
        """End what runs beside; no batch may be under way."""
        self.composed.close()

    def answer(self, rows: pa.RecordBatch) -> Answers:
        """Answer the rows of a batch, n of them.

        Raises
        ------
        ServingError : a model failed on the batch as a whole, and there is no fallback.
        """
        if rows.num_rows == 0:
            return Answers()
        batch = Batch(rows)
        given: list[Answer] = []
        rejected: list[Rejection] = []
        arms = self.router.assign(rows)
        for i, arm in enumerate(self.router.arms):
            mine = np.flatnonzero(arms == i)
            if not len(mine):
                continue
            sources = iter([(arm, mine)])
            if i == 0 and self._entity_keys is not None:
                sources = self._by_entity(self._entity_keys, mine, rows, rejected)
            for source, part in sources:
                self._answer(arm, source, part, batch, given, rejected)
        shadows = {name: self._shadow(name, batch) for name in self._shadows}
        return Answers(tuple(given), tuple(rejected), shadows)

    def _by_entity(
        self, keys: EntityKeys, mine: I64, rows: pa.RecordBatch, rejected: list[Rejection]
    ) -> Iterator[tuple[str, I64]]:
        """Yield the model of each entity among the champion's rows, and which rows those are."""
        places = keys.assign(rows)[mine]
        for place in np.unique(places).tolist():
            part = mine[places == place]
            if place >= 0:
                yield self._entities[place], part
            elif self._per is not None and self._per.missing == "champion":
                yield CHAMPION, part
            else:
                values = rows[keys.key].take(pa.array(part)).to_pylist()
                rejected += (
                    Rejection(int(row), "no_model", f"no model for {keys.key} {value!r}")
                    for row, value in zip(part, values, strict=True)
                )

    def _answer(
        self, arm: str, source: str, rows: I64, batch: Batch, given: list[Answer], rejected: list[Rejection]
    ) -> None:
        """Go down the ladder until a rung answers."""
        # Without a fallback there is nothing to leave a model alone for.
        leaves_alone = bool(self.fallback)
        found, why = self.composed.score(source, rows, batch, leaves_alone=leaves_alone)
        status: Status = "ok"
        by = source
        for rung in self.fallback if found is None else ():
            if rung == "reject":
                self.fallen_back[rung] += len(rows)
                rejected += (Rejection(int(row), "score_unavailable", why) for row in rows)
                return
            if rung == "previous_version":
                found, more = self.composed.score(PREVIOUS, rows, batch, leaves_alone=leaves_alone)
                why, status, by = f"{why}; {more}", "previous_version", PREVIOUS
            else:
                found, status, by = self._default_scores(arm, len(rows)), "default_score", source
            if found is not None:
                self.fallen_back[rung] += len(rows)
                break
        if found is None:
            msg = f"arm {arm}: no model answered: {why}; declare what does then under model.serving.fallback"
            raise ServingError(msg)
        rejected += (Rejection(int(rows[i]), "score_failed", text) for i, text in found.failed.items())
        if found.failed:
            good, found = found.without_failed()
            rows = rows[good]
        if len(rows):
            given.append(Answer(arm, by, status, rows, found.values, found.parts))

    def _default_scores(self, arm: str, count: int) -> Scores:
        return Scores(np.full_like(self.models[arm].scorer.nothing(count), self._default))

    def _shadow(self, name: str, batch: Batch) -> F32:
        """Return the scores of a shadow; whatever it does, the answers stand."""
        count = batch.rows.num_rows
        try:
            found, _ = self.composed.score(name, np.arange(count), batch, leaves_alone=True)
        except Exception:  # noqa: BLE001  such as scores of another shape; for an arm that answers the job fails
            _LOG.exception("shadow %s: gives no scores", name)
            found = None
        return self.models[name].scorer.nothing(count) if found is None else found.values
