"""Composed models: the scores of an arm for some rows of a batch, with the steps, members and entities it is made of.

A step of the chain runs once per batch, over all its rows, when the first model that takes it is asked. An ensemble
answers with all of its models or not at all. A row that a step or member has no score for has none.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.declare.definition import Pipeline
from udfs.core.model.chain import Chain
from udfs.core.model.deadline import Deadlines
from udfs.core.model.ensemble import Combiner
from udfs.core.model.entities import EntityModels
from udfs.core.model.guarded import FailingModelError, GuardedModel, Scores
from udfs.core.model.scorer import F32, Matrix, Scorer

I64 = NDArray[np.int64]
Found = tuple[Scores | None, str]
"""Scores, or None and why there are none."""


class Batch:
    """A batch under way: its rows with what steps gave, and the matrix, made once for all models that take the same."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self.rows = rows
        #: step -> what it found for all rows
        self.steps: dict[str, Found] = {}
        self._made: dict[tuple[tuple[str, ...], bool], Matrix] = {}

    def matrix(self, scorer: Scorer, rows: I64) -> Matrix:
        """Return some rows as a model takes them."""
        kind = (tuple(scorer.contract.inputs), scorer.is_float32)
        if kind not in self._made:
            self._made[kind] = scorer.matrix(self.rows)
        whole = self._made[kind]
        return whole if len(rows) == len(whole) else whole[rows]

    def add(self, columns: tuple[str, ...], values: F32) -> None:
        """Add what a step gave, float32[n] or float32[n, columns], not finite where it gave nothing."""
        for name, column in zip(columns, values.reshape(len(values), -1).T, strict=True):
            self.rows = self.rows.append_column(name, pa.array(column))


class ComposedModels:
    """The models of a job by name, each scored with all that it is made of.

    Parameters
    ----------
    pipeline : as declared
    scorers : name -> model, as `ModelReference.models` names them, all but the entities'
    entities : name -> folder of the models per entity
    """

    def __init__(
        self, pipeline: Pipeline, scorers: Mapping[str, Scorer], entities: Mapping[str, Path] | None = None
    ) -> None:
        reference = pipeline.model
        self._deadlines = deadlines = Deadlines(reference.serving.deadline_ms)
        self.guarded = {name: GuardedModel(one, reference.serving, deadlines) for name, one in scorers.items()}
        self.entities: EntityModels | None = None
        if reference.per_entity is not None:
            self.entities = EntityModels(entities or {}, reference.per_entity, reference.serving, deadlines)
        contracts = {name: one.contract for name, one in scorers.items()}
        self._chain = Chain(reference.chain, contracts)
        self._behind = {name: self._chain.behind(one.inputs) for name, one in contracts.items()}
        self._combiners = {arm: Combiner(arm, one, contracts) for arm, one in reference.ensembles.items()}

    def warm_up(self) -> None:
        """Run every model on batches of all sizes, before the first event comes."""
        for model in self.guarded.values():
            model.warm_up()
        if self.entities is not None:
            self.entities.warm_up()

    def close(self) -> None:
        """End what runs beside; no batch may be under way."""
        self._deadlines.close()

    def score(self, name: str, rows: I64, batch: Batch, *, leaves_alone: bool) -> Found:
        """Return the scores of some rows, or None and why there are none.

        Parameters
        ----------
        name : of an arm, a shadow, an entity's model or `previous`
        leaves_alone : whether a model that failed on batches in a row is left alone for a while
        """
        combiner = self._combiners.get(name)
        if combiner is None:
            return self._run(name, rows, batch, leaves_alone=leaves_alone)
        parts: dict[str, F32] = {}
        failed: dict[int, str] = {}
        for one in combiner.names:
            found, why = self._run(one, rows, batch, leaves_alone=leaves_alone)
            if found is None:
                return None, why if one == name else f"member {one}: {why}"
            parts |= {one: found.values} | found.parts
            failed |= {row: text if one == name else f"{one}: {text}" for row, text in found.failed.items()} | failed
        combined = combiner.combine([parts[one] for one in combiner.names])
        return _without(combined, failed, parts), ""

    def _run(self, name: str, rows: I64, batch: Batch, *, leaves_alone: bool) -> Found:
        """Score with one model, behind the steps that it needs."""
        model = self.guarded[name] if name in self.guarded else self._entity(name)
        behind = self._behind[name] if name in self._behind else self._chain.behind(model.scorer.contract.inputs)
        for step in behind:
            if step not in batch.steps:
                batch.steps[step] = self._step(step, batch, leaves_alone=leaves_alone)
            if batch.steps[step][0] is None:
                return None, f"step {step}: {batch.steps[step][1]}"
        if leaves_alone and not model.breaker.asks():
            return None, f"{model.scorer.contract.what}: left alone after it failed on batches in a row"
        try:
            found = model.score(batch.matrix(model.scorer, rows))
        except FailingModelError as error:
            return None, str(error)
        return (self._behind_steps(found, rows, behind, batch) if behind else found), ""

    def _entity(self, name: str) -> GuardedModel:
        if self.entities is None:
            raise KeyError(name)
        return self.entities.get(name)

    def _step(self, step: str, batch: Batch, *, leaves_alone: bool) -> Found:
        found = self._run(step, np.arange(batch.rows.num_rows), batch, leaves_alone=leaves_alone)
        if found[0] is not None:
            batch.add(self._chain.columns[step], found[0].values)
        return found

    def _behind_steps(self, found: Scores, rows: I64, behind: tuple[str, ...], batch: Batch) -> Scores:
        """Note what the steps gave; a row that one has nothing for has no score."""
        parts: dict[str, F32] = {}
        failed: dict[int, str] = {}
        for step in reversed(behind):  # the first that failed is said
            given = batch.steps[step][0]
            if given is None:
                continue
            parts[step] = given.values[rows]
            if given.failed:
                places = {int(row): i for i, row in enumerate(rows)}
                failed |= {places[row]: f"step {step}: {why}" for row, why in given.failed.items() if row in places}
        return _without(found.values, found.failed | failed, parts)


def _without(values: F32, failed: dict[int, str], parts: dict[str, F32]) -> Scores:
    if failed:
        values = values.copy()
        values[list(failed)] = np.nan
    return Scores(values, failed, parts)
