"""A guarded model: scores what it can, finds the rows that it cannot score, and knows when it is the model that fails.

Whether a row is rejected must not hang on the rows beside it. So after an error the model is asked for a row that it is
known to score: if it cannot do even that, the model fails; if it can, the error is of rows, and bisecting finds them.
"""

import threading
from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from udfs.core.declare.serving import Serving
from udfs.core.model.breaker import Breaker
from udfs.core.model.deadline import DeadlineError, Deadlines
from udfs.core.model.scorer import F32, Matrix, Scorer

DETAIL_CHARS = 200
I64 = NDArray[np.int64]


class FailingModelError(Exception):
    """A model failed on a batch as a whole: it has no score for any row, whatever the rows are."""


@dataclass(slots=True)
class Counts:
    """What became of batches and rows, since the worker started."""

    #: rows that it gave a score
    scored_rows: int = 0
    #: rows that it raised for, or gave no finite score
    poison_rows: int = 0
    #: batches that it failed on as a whole, and how many of them for the deadline
    failed_batches: int = 0
    missed_deadlines: int = 0


@dataclass(slots=True)
class Scores:
    """Scores of some rows; those without one say why."""

    #: float32[n] or float32[n, width], not finite where there is none
    values: F32
    #: row -> why it has none
    failed: dict[int, str] = field(default_factory=dict)
    #: model -> its own scores of the same rows, where several made the answer
    parts: dict[str, F32] = field(default_factory=dict)

    def without_failed(self) -> tuple[I64, "Scores"]:
        """Return which rows have a score, int64[k], and their scores alone."""
        good = np.setdiff1d(np.arange(len(self.values)), list(self.failed))
        return good, Scores(self.values[good], parts={name: part[good] for name, part in self.parts.items()})


class GuardedModel:
    """One model version with what guards it.

    Parameters
    ----------
    scorer : the model
    serving : as declared
    deadlines : of the job's models
    breaker, counts : that it goes on with; default: its own
    """

    def __init__(
        self,
        scorer: Scorer,
        serving: Serving,
        deadlines: Deadlines,
        breaker: Breaker | None = None,
        counts: Counts | None = None,
    ) -> None:
        self.scorer, self._deadlines, self._batch_max = scorer, deadlines, serving.batch_max
        self.breaker, self.counts = breaker or Breaker(serving.breaker), counts or Counts()
        self._counting = threading.Lock()  # batches are scored by several threads
        self._probe: Matrix | None = None

    def warm_up(self, up_to: int | None = None) -> None:
        """Score made-up rows in batches of every power of two, up to the largest: first runs allocate and are slow."""
        size, largest = 1, up_to or self._batch_max
        while True:
            rows = self.scorer.blank(min(size, largest))
            try:
                self.scorer.score(rows)
            except Exception:  # noqa: BLE001  zeros may be poison to a model; a row that it scores comes later
                return
            self._probe = rows[:1]
            if size >= largest:
                return
            size *= 2

    def score(self, matrix: Matrix) -> Scores:
        """Score rows; those that cannot be are named.

        Parameters
        ----------
        matrix : [n, inputs], n at least 1

        Raises
        ------
        FailingModelError : the deadline passed, or the model cannot score anything; it was counted.
        """
        try:
            with self._deadlines.limited() as options:
                found = self._in_parts(matrix, options)
        except DeadlineError as error:
            raise self._failure(str(error), missed=1) from error
        self.breaker.succeeded()
        with self._counting:
            self.counts.poison_rows += len(found.failed)
            self.counts.scored_rows += len(matrix) - len(found.failed)
        return found

    def _failure(self, why: str, missed: int = 0) -> FailingModelError:
        self.breaker.failed()
        with self._counting:
            self.counts.failed_batches += 1
            self.counts.missed_deadlines += missed
        return FailingModelError(f"{self.scorer.contract.what}: {why}"[:DETAIL_CHARS])

    def _in_parts(self, matrix: Matrix, options: ort.RunOptions) -> Scores:
        parts: list[F32] = []
        failed: dict[int, str] = {}
        for start in range(0, len(matrix), self._batch_max):
            part = matrix[start : start + self._batch_max]
            values, raised = self._score(part, options)
            rows = {row: f"the model raised: {why}" for row, why in raised.items()}
            missing = ~np.isfinite(values).reshape(len(part), -1).all(axis=1)
            rows |= {int(row): f"score {values[row]}" for row in np.flatnonzero(missing) if int(row) not in raised}
            failed |= {start + row: why for row, why in rows.items()}
            parts.append(values)
        return Scores(parts[0] if len(parts) == 1 else np.concatenate(parts), failed)

    def _score(self, matrix: Matrix, options: ort.RunOptions) -> tuple[F32, dict[int, str]]:
        """Return scores and, for rows that the model raises for, NaN and the error's text."""
        try:
            values = self.scorer.score(matrix, options)
        except Exception as error:
            if options.terminate:
                raise
            self._refuse_failing(str(error), options)
            return self._bisect(matrix, options, str(error))
        if self._probe is None:
            self._probe = matrix[:1].copy()
        return values, {}

    def _refuse_failing(self, why: str, options: ort.RunOptions) -> None:
        if self._probe is None:
            return
        try:
            self.scorer.score(self._probe, options)
        except Exception as error:
            if options.terminate:
                raise
            raise self._failure(why) from error

    def _bisect(self, matrix: Matrix, options: ort.RunOptions, why: str) -> tuple[F32, dict[int, str]]:
        if len(matrix) == 1:
            return self.scorer.nothing(1), {0: " ".join(why.split())[:DETAIL_CHARS]}
        half = len(matrix) // 2
        parts: list[F32] = []
        failed: dict[int, str] = {}
        for start, part in ((0, matrix[:half]), (half, matrix[half:])):
            try:
                parts.append(self.scorer.score(part, options))
            except Exception as error:
                if options.terminate:
                    raise
                values, raised = self._bisect(part, options, str(error))
                parts.append(values)
                failed |= {start + row: text for row, text in raised.items()}
        return np.concatenate(parts), failed
