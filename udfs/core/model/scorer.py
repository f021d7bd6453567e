"""The model as the scoring stage sees it: an ONNX session that turns feature columns into what its contract says."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.model.contract import NUMBER_MEANINGS, ModelContract, Output, Tensor, in_order
from udfs.core.model.files import CONTRACT_FILE, ONNX_FILE, read_file, sha256
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.rows.ingest import number_column

__all__ = [
    "CONTRACT_FILE",
    "F32",
    "ONNX_FILE",
    "Matrix",
    "ModelContract",
    "Output",
    "Scorer",
    "Tensor",
    "feature_matrix",
    "open_session",
]

F32 = NDArray[np.float32]
N = TypeVar("N", np.float32, np.float64)
Matrix = NDArray[np.float32] | NDArray[np.float64]
ONNX_TYPES = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "bool": "tensor(bool)",
}
FLOATS = ("float32", "float64")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_QUIET = 4  # of ONNX Runtime's severities, only what ends the process
_LOG = logging.getLogger(__name__)


class Scorer:
    """Scores batches with one model version. One intra-op thread: bit-equal scores, whatever the batch.

    Parameters
    ----------
    onnx : bytes of the model; bytes, not a path, so that no external data can be reached
    contract : its contract
    providers : where it runs, the first that there is, see `Serving.providers`; only on `cpu` are scores bit-equal
    arena : whether it keeps the memory of a run for the next one, which is quicker

    Raises
    ------
    ModelRefusedError : the digest differs, the bytes are no model, inputs and outputs are not as promised, or there is
        none of the providers.
    """

    def __init__(
        self, onnx: bytes, contract: ModelContract, providers: Sequence[str] = ("cpu",), *, arena: bool = True
    ) -> None:
        digest = sha256(onnx)
        if digest != contract.sha256:
            msg = (
                f"{contract.what}: model.onnx has sha256 {digest}; its contract says {contract.sha256}; the file was"
                " changed after registration"
            )
            raise ModelRefusedError(Refusal.DIGEST, msg)
        session = open_session(onnx, contract.what, providers, arena=arena)
        _check_inputs(session.get_inputs(), contract)
        _check_output(session.get_outputs(), contract)
        self.contract, self._inputs, self._run = contract, contract.inputs, session.run
        output, tensors = contract.output, contract.tensors
        self._outputs, self._column = [output.name], output.column
        self._is_number = output.meaning in NUMBER_MEANINGS
        self._ranks = [len(one.shape) for one in session.get_inputs()]
        #: what the matrix that it takes holds; float64 if not
        self.is_float32 = all(tensor.dtype == "float32" for tensor in tensors)
        #: where it runs: `cpu` or `cuda`
        self.provider = next(name for name, one in PROVIDERS.items() if one == session.get_providers()[0])
        # The usual case costs nothing: the matrix is the one tensor.
        is_plain = self._ranks == [2] and tensors[0].dtype in FLOATS
        self._only = tensors[0].name if is_plain else ""

    @classmethod
    def load(cls, folder: Path, providers: Sequence[str] = ("cpu",)) -> "Scorer":
        """Load a model folder: `model.onnx` and `contract.json`."""
        return cls(read_file(folder, ONNX_FILE), ModelContract.read(folder), providers)

    def matrix(self, rows: pa.RecordBatch) -> Matrix:
        """Return the features of rows as the model takes them: [n, inputs], float32 unless an input needs float64."""
        return _matrix(rows, self._inputs, np.float32) if self.is_float32 else _matrix(rows, self._inputs, np.float64)

    def blank(self, count: int) -> Matrix:
        """Return made-up rows as the model takes them: zeros, [count, inputs]."""
        shape = (count, len(self._inputs))
        return np.zeros(shape, np.float32) if self.is_float32 else np.zeros(shape, np.float64)

    def nothing(self, count: int) -> F32:
        """Return what `score` gives for rows without a score: NaN, float32[count] or float32[count, width]."""
        return np.full((count,) if self._is_number else (count, self.contract.output.width), np.nan, np.float32)

    def score(self, matrix: Matrix, options: ort.RunOptions | None = None) -> F32:
        """Return the scores of a feature matrix.

        Parameters
        ----------
        matrix : [n, inputs], see `matrix`
        options : of ONNX Runtime, to end a run early

        Returns
        -------
        float32[n] for a probability or a value, float32[n, width] for class scores or a vector; NaN where there is
        none.
        """
        if self._only:
            found = self._run(self._outputs, {self._only: matrix}, options)[0]
        else:
            tensors, unfit = self._tensors(matrix)
            found = self._run(self._outputs, tensors, options)[0]
            if unfit.any():
                found = np.array(found)
                found[unfit] = np.nan
        if self._column is not None:
            found = found[:, self._column]
        elif self._is_number and found.ndim == 2:
            found = found[:, 0]
        return np.asarray(found, np.float32)

    def _tensors(self, matrix: Matrix) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
        """Cut a matrix into the model's inputs; rows without a whole number where one is needed are unfit."""
        tensors: dict[str, NDArray[Any]] = {}
        unfit, start = np.zeros(len(matrix), np.bool_), 0
        for tensor, rank in zip(self.contract.tensors, self._ranks, strict=True):
            part = matrix[:, start : start + len(tensor.features)]
            start += len(tensor.features)
            if tensor.dtype not in FLOATS:
                whole = np.isfinite(part) & (np.rint(part) == part)
                unfit |= ~whole.all(axis=1)
                part = np.where(whole, part, 0)
            fitting = np.ascontiguousarray(part, tensor.dtype)
            tensors[tensor.name] = fitting[:, 0] if rank == 1 else fitting
        return tensors, unfit


def open_session(
    onnx: bytes, what: str, providers: Sequence[str] = ("cpu",), *, arena: bool = True
) -> ort.InferenceSession:
    """Load a model; one thread, no spinning, nothing printed. What it does not run on is said in the log.

    Raises
    ------
    ModelRefusedError : `opset`, `custom_operator` or `not_loadable`, as ONNX Runtime says.
    """
    there = [name for name in providers if PROVIDERS[name] in ort.get_available_providers()]
    if not there:
        msg = f"{what}: got providers {', '.join(providers)}; this machine has none of them; add cpu behind them"
        raise ModelRefusedError(Refusal.NOT_LOADABLE, msg)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.enable_cpu_mem_arena = arena
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(onnx, options, providers=[PROVIDERS[name] for name in there])
    except Exception as error:
        text = str(error)
        reason = Refusal.NOT_LOADABLE
        if "is not a registered function/op" in text or "No Op registered" in text or "No opset import" in text:
            reason = Refusal.CUSTOM_OPERATOR
        elif ("opset" in text.lower() and "support" in text) or "IR version" in text:
            reason = Refusal.OPSET
        msg = f"{what}: ONNX Runtime cannot load it: {text}"
        raise ModelRefusedError(reason, msg) from error
    # A provider may be built in and find no device: ONNX Runtime then takes the CPU.
    found = session.get_providers()[0]
    if found != PROVIDERS[providers[0]]:
        if found not in (PROVIDERS[name] for name in there):
            msg = f"{what}: got providers {', '.join(providers)}; none has a device here; add cpu behind them"
            raise ModelRefusedError(Refusal.NOT_LOADABLE, msg)
        _LOG.warning("%s: runs on %s, as %s is not to be had here", what, found, providers[0])
    return session


def _check_inputs(found: list[Any], contract: ModelContract) -> None:
    wrong = in_order((one.name for one in found), (tensor.name for tensor in contract.tensors))
    if wrong:
        raise ModelRefusedError(wrong, _unlike("inputs", found, contract))
    for one, tensor in zip(found, contract.tensors, strict=True):
        if one.type != ONNX_TYPES[tensor.dtype]:
            raise ModelRefusedError(Refusal.DTYPE, _unlike("inputs", found, contract))
        width = len(tensor.features)
        if one.shape[1:] != [width] and not (width == 1 and len(one.shape) == 1):
            raise ModelRefusedError(Refusal.SHAPE, _unlike("inputs", found, contract))
        if isinstance(one.shape[0], int):
            msg = (
                f"{contract.what}: input {one.name} takes exactly {one.shape[0]} rows; export the model with a first"
                " dimension that is left open"
            )
            raise ModelRefusedError(Refusal.SHAPE, msg)


def _check_output(found: list[Any], contract: ModelContract) -> None:
    output = contract.output
    one = next((one for one in found if one.name == output.name), None)
    if one is None:
        got = [one.name for one in found]
        msg = f"{contract.what}: got outputs {got}; its contract says {output.name!r}"
        raise ModelRefusedError(Refusal.NAMES, msg)
    if one.type not in (ONNX_TYPES["float32"], ONNX_TYPES["float64"]):
        hint = "; export without ZipMap (zipmap=False)" if "map(" in one.type else ""
        msg = f"{contract.what}: got output {one.name}: {one.type}; a score is a float or double tensor{hint}"
        raise ModelRefusedError(Refusal.DTYPE, msg)
    # A model need not say the shape of its output; a dimension it leaves open is None or a name.
    shape = one.shape
    if not shape:
        return
    last = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None
    if output.meaning not in NUMBER_MEANINGS:
        is_right = len(shape) == 2 and last in (None, output.width)
    elif output.column is not None:
        is_right = len(shape) == 2 and (last is None or last > output.column)
    else:
        is_right = len(shape) == 1 or (len(shape) == 2 and last in (None, 1))
    if not is_right:
        wanted = f"column {output.column}" if output.column is not None else f"{output.width} per row"
        msg = f"{contract.what}: got output {one.name} {shape}; its contract says {output.meaning}, {wanted}"
        raise ModelRefusedError(Refusal.SHAPE, msg)


def _unlike(side: str, found: list[Any], contract: ModelContract) -> str:
    got = ", ".join(f"{one.name}: {one.type}{one.shape}" for one in found)
    wanted = ", ".join(
        f"{tensor.name}: {ONNX_TYPES[tensor.dtype]}[n, {len(tensor.features)}]" for tensor in contract.tensors
    )
    return f"{contract.what}: got {side} {got}; its contract says {wanted}"


def feature_matrix(rows: pa.RecordBatch, columns: Sequence[str]) -> F32:
    """Return number columns as float32[n, columns], NaN for null: what a model is trained on and is fed."""
    return _matrix(rows, columns, np.float32)


def _matrix(rows: pa.RecordBatch, columns: Sequence[str], dtype: type[N]) -> NDArray[N]:
    matrix = np.empty((rows.num_rows, len(columns)), dtype)
    for i, name in enumerate(columns):
        matrix[:, i] = number_column(rows, name).to_numpy(zero_copy_only=False)
    return matrix
