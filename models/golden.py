"""The golden batch: a few inputs and the scores they must get, kept beside the model and checked where it is loaded."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from udfs.core.errors import ModelError
from udfs.core.model import F32, Scorer

GOLDEN_FILE = "golden.npz"
GOLDEN_ROWS = 256
#: another processor may round the logistic function differently in the last place
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs, float32[n, columns], and their scores, float32[n]."""

    inputs: F32
    scores: F32

    @classmethod
    def of(cls, scorer: Scorer, matrix: F32) -> Self:
        """Take rows evenly from a matrix, and one where everything is null."""
        rows = matrix[np.linspace(0, len(matrix) - 1, min(GOLDEN_ROWS, len(matrix))).astype(np.int64)]
        inputs = np.vstack([rows, np.full((1, matrix.shape[1]), np.nan, np.float32)])
        return cls(inputs, scorer.score(inputs))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the golden batch of a model folder.

        Raises
        ------
        ModelError : it is missing or is not one.
        """
        path = folder / GOLDEN_FILE
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                golden = cls(arrays["inputs"], arrays["scores"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            msg = f"{path}: cannot be read as a golden batch: {error}"
            raise ModelError(msg) from error
        if golden.inputs.ndim != 2 or golden.scores.shape != golden.inputs.shape[:1] or not len(golden.scores):
            got = f"inputs {golden.inputs.shape} and scores {golden.scores.shape}"
            msg = f"{path}: got {got}; expected [n, k] and [n], n at least 1"
            raise ModelError(msg)
        return golden

    def write(self, folder: Path) -> None:
        """Write the golden batch into a model folder."""
        np.savez(folder / GOLDEN_FILE, inputs=self.inputs, scores=self.scores)

    def check(self, scorer: Scorer) -> None:
        """Score the inputs and compare.

        Raises
        ------
        ModelError : the inputs do not fit, or a score is not finite or differs.
        """
        contract = scorer.contract
        what = f"model {contract.name} version {contract.version or '(new)'}"
        if self.inputs.dtype != np.float32 or self.inputs.shape[1] != len(contract.inputs):
            msg = (
                f"{what}: golden batch is {self.inputs.dtype}[n, {self.inputs.shape[1]}]; the contract says"
                f" float32[n, {len(contract.inputs)}]"
            )
            raise ModelError(msg)
        got = scorer.score(self.inputs)
        if not np.isfinite(got).all():
            row = int(np.flatnonzero(~np.isfinite(got))[0])
            msg = f"{what}: row {row} of the golden batch scores {got[row]}; a score must be finite"
            raise ModelError(msg)
        difference = np.abs(got - self.scores)
        if not difference.max() <= TOLERANCE:
            row = int(difference.argmax())
            msg = (
                f"{what}: row {row} of the golden batch scores {got[row]:.9g}; at registration it was"
                f" {self.scores[row]:.9g}; the model or the golden batch was changed"
            )
            raise ModelError(msg)
