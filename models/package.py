"""A package: the three files of a model as they are registered, checked, and sealed by the digests in the contract."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from models.check import check_model
from models.golden import TOLERANCE, Golden, show, worst
from models.trial import random_rows, run
from udfs.core.model.contract import ModelContract
from udfs.core.model.files import CONTRACT_FILE, GOLDEN_FILE, ONNX_FILE, read_file, sha256
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import Matrix

EXPECTED_TOLERANCE = 1e-5
"""How far ONNX may be from what the library that trained the model gives: it may add up in another order."""
MADE_UP_ROWS = 64


@dataclass(frozen=True, slots=True)
class Package:
    """A checked model."""

    onnx: bytes
    contract: ModelContract
    golden: Golden

    @classmethod
    def seal(
        cls,
        onnx: bytes,
        contract: ModelContract,
        rows: Matrix | None = None,
        expected: Matrix | None = None,
        tolerance: float = EXPECTED_TOLERANCE,
    ) -> Self:
        """Check a model, make its golden batch, and note the digests of both in the contract.

        Parameters
        ----------
        onnx, contract : the model and what it promises; digests and `takes_nulls` are found here
        rows : [n, inputs], NaN for null; None makes some up, which shows less
        expected : what the library that trained it gives for the rows, [n] or [n, width]
        tolerance : of `expected`, relative to the score or to 1 if that is less

        Raises
        ------
        ModelRefusedError : see `check_model`; `golden`: the scores are not the expected ones.
        """
        contract = msgspec.structs.replace(contract, files={ONNX_FILE: sha256(onnx)})
        scorer = check_model(onnx, contract)
        matrix = _fitting(contract, rows)
        if expected is not None:
            _compare(contract, run(scorer, matrix), expected, tolerance)
        takes_nulls = bool(np.isfinite(run(scorer, np.full_like(matrix[:1], np.nan))).all())
        scorer.contract = contract = msgspec.structs.replace(contract, takes_nulls=takes_nulls)
        if not contract.takes_nulls and np.isnan(matrix).any(axis=1).all():
            msg = f"{contract.what}: gives no score for a row with a null, and every row that was given has one"
            raise ModelRefusedError(Refusal.NOT_FINITE, msg)
        golden = Golden.of(scorer, matrix)
        files = {ONNX_FILE: sha256(onnx), GOLDEN_FILE: sha256(golden.encode())}
        return cls(onnx, msgspec.structs.replace(contract, files=files), golden)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a model folder and check all of it.

        Raises
        ------
        ModelRefusedError : a file is missing or not the one that the contract names; or see `check_model`.
        """
        contract = ModelContract.read(folder)
        found = {file: read_file(folder, file) for file in (ONNX_FILE, GOLDEN_FILE)}
        for file, content in found.items():
            if sha256(content) != contract.files.get(file):
                msg = (
                    f"{contract.what}: {file} has sha256 {sha256(content)}; its contract says"
                    f" {contract.files.get(file)}; the file was changed after registration"
                )
                raise ModelRefusedError(Refusal.DIGEST, msg)
        golden = Golden.decode(found[GOLDEN_FILE], contract, str(folder / GOLDEN_FILE))
        check_model(found[ONNX_FILE], contract, golden)
        return cls(found[ONNX_FILE], contract, golden)

    def files(self) -> dict[str, bytes]:
        """Return the content of each file."""
        return {ONNX_FILE: self.onnx, CONTRACT_FILE: self.contract.encode(), GOLDEN_FILE: self.golden.encode()}

    def write(self, folder: Path) -> None:
        """Write the files into a folder."""
        for file, content in self.files().items():
            (folder / file).write_bytes(content)


def _fitting(contract: ModelContract, rows: Matrix | None) -> Matrix:
    dtypes = [str(tensor.dtype) for tensor in contract.tensors for _ in tensor.features]
    is_float32 = set(dtypes) == {"float32"}
    found = random_rows(dtypes, MADE_UP_ROWS) if rows is None else rows
    if found.ndim != 2 or found.shape[1] != len(dtypes) or not len(found):
        msg = (
            f"{contract.what}: got golden rows of shape {list(found.shape)}; expected [n, {len(dtypes)}], n at least 1"
        )
        raise ModelRefusedError(Refusal.SHAPE, msg)
    matrix: Matrix = found.astype(np.float32) if is_float32 else found.astype(np.float64)
    if np.isinf(matrix).any():
        msg = f"{contract.what}: got golden rows with infinite values; features are finite or null"
        raise ModelRefusedError(Refusal.NOT_FINITE, msg)
    return matrix


def _compare(contract: ModelContract, got: Matrix, expected: Matrix, tolerance: float) -> None:
    if expected.shape != got.shape:
        msg = f"{contract.what}: gives scores {list(got.shape)}; the expected ones are {list(expected.shape)}"
        raise ModelRefusedError(Refusal.SHAPE, msg)
    known = np.isfinite(expected).reshape(len(expected), -1).all(axis=1)
    if not known.any():
        return
    difference, row = worst(got[known], expected[known])
    if not difference <= max(tolerance, TOLERANCE):
        at = int(np.flatnonzero(known)[row])
        msg = (
            f"{contract.what}: row {at} scores {show(got[at])}; {show(expected[at])} is expected; are the features in"
            " the order of training?"
        )
        raise ModelRefusedError(Refusal.GOLDEN, msg)
