"""The golden batch: a few inputs and the scores they must get, kept beside the model and checked where it is loaded."""

from dataclasses import dataclass
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.trial import trial
from udfs.core.model.contract import ModelContract
from udfs.core.model.files import GOLDEN_FILE
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import F32, Matrix, Scorer

GOLDEN_ROWS = 256
#: another processor may round the logistic function differently in the last place; of the score, or of 1 if it is less
TOLERANCE = 1e-6


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    """The golden batch as JSON: a row each, null for NaN."""

    inputs: list[list[float | None]]
    scores: list[list[float]]


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs, float32 or float64[n, columns], and their scores, float32[n] or [n, width]."""

    inputs: Matrix
    scores: F32

    @classmethod
    def of(cls, scorer: Scorer, matrix: Matrix) -> Self:
        """Take rows evenly from a matrix, and one where everything is null if the model takes nulls.

        Raises
        ------
        ModelRefusedError : see `trial`.
        """
        contract = scorer.contract
        rows: Matrix = matrix[np.linspace(0, len(matrix) - 1, min(GOLDEN_ROWS, len(matrix))).astype(np.int64)]
        if contract.takes_nulls:
            rows = np.concatenate([rows, np.full_like(rows[:1], np.nan)])
        else:
            rows = rows[~np.isnan(rows).any(axis=1)]
        return cls(rows, trial(scorer, rows))

    @classmethod
    def decode(cls, content: bytes, contract: ModelContract, where: str = GOLDEN_FILE) -> Self:
        """Read a golden batch.

        Parameters
        ----------
        content : JSON
        contract : of its model
        where : what a message calls it

        Raises
        ------
        ModelRefusedError : `golden`: it is none. `shape`: it does not fit the contract.
        """
        try:
            stored = msgspec.json.decode(content, type=_Stored)
        except (msgspec.DecodeError, RecursionError) as error:
            msg = f"{where}: cannot be read as a golden batch: {error}"
            raise ModelRefusedError(Refusal.GOLDEN, msg) from error
        is_float32 = all(tensor.dtype == "float32" for tensor in contract.tensors)
        inputs = _array(stored.inputs, np.float32 if is_float32 else np.float64, len(contract.inputs), where)
        scores = _array(stored.scores, np.float32, contract.output.width, where)
        if not len(inputs) or len(inputs) != len(scores):
            msg = f"{where}: got {len(inputs)} inputs and {len(scores)} scores; expected as many, at least 1"
            raise ModelRefusedError(Refusal.GOLDEN, msg)
        return cls(inputs, scores if contract.output.meaning in ("class_scores", "vector") else scores[:, 0])

    def encode(self) -> bytes:
        """Return the golden batch as JSON."""
        rows = [[None if value != value else value for value in row] for row in self.inputs.tolist()]  # noqa: PLR0124
        return msgspec.json.encode(_Stored(rows, self.scores.reshape(len(self.scores), -1).tolist()))

    def check(self, scorer: Scorer) -> None:
        """Score the inputs and compare.

        Raises
        ------
        ModelRefusedError : `golden`: a score differs; or see `trial`.
        """
        got = trial(scorer, self.inputs)
        difference, row = worst(got, self.scores)
        if not difference <= TOLERANCE:
            msg = (
                f"{scorer.contract.what}: row {row} of the golden batch scores {show(got[row])}; at registration it"
                f" was {show(self.scores[row])}; the model or the golden batch was changed"
            )
            raise ModelRefusedError(Refusal.GOLDEN, msg)


def worst(got: NDArray[Any], wanted: NDArray[Any]) -> tuple[float, int]:
    """Return the largest difference, relative to the wanted score or to 1 if that is less, and its row."""
    exact = wanted.astype(np.float64)
    difference = np.abs(got - exact) / np.maximum(np.abs(exact), 1)
    rows = difference if difference.ndim == 1 else difference.max(axis=1)
    row = int(rows.argmax())
    return float(rows[row]), row


def show(score: NDArray[Any] | np.floating[Any]) -> str:
    """Return a score as text."""
    return f"{score:.9g}" if np.ndim(score) == 0 else np.array2string(np.asarray(score), precision=9, threshold=10)


def _array(rows: list[Any], dtype: type[Any], width: int, where: str) -> NDArray[Any]:
    lengths = {len(row) for row in rows}
    if lengths - {width}:
        msg = f"{where}: got rows of {sorted(lengths)} numbers; the contract says {width}"
        raise ModelRefusedError(Refusal.SHAPE, msg)
    return np.array(rows, np.float64).reshape(len(rows), width).astype(dtype)
