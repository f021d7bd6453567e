"""The model as the scoring stage sees it: its contract, and an ONNX session that turns feature columns into scores."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.errors import ModelError
from udfs.core.ingest import number_column

CONTRACT_FILE, ONNX_FILE = "contract.json", "model.onnx"
F32 = NDArray[np.float32]


class ModelContract(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model promises and needs; stored as `contract.json` beside `model.onnx`."""

    #: registered model name
    name: str
    #: registry version; empty until it is registered
    version: str
    #: SHA-256 of model.onnx, hex
    sha256: str
    #: hash of the feature set the model was trained on
    feature_set: str
    #: feature columns, in the order of the model's input
    inputs: list[str]
    #: name of the ONNX input, float32[n, inputs]
    onnx_input: str
    #: name of the ONNX output that holds the score
    onnx_output: str
    #: column of that output; -1 when it has one dimension
    output_column: int
    #: score above which the answer is yes
    threshold: float

    @classmethod
    def read(cls, folder: Path) -> "ModelContract":
        """Read the contract of a model folder.

        Raises
        ------
        ModelError : it is missing or is not one.
        """
        path = folder / CONTRACT_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            msg = f"{path}: cannot be read as a model contract: {error}"
            raise ModelError(msg) from error

    def write(self, folder: Path) -> None:
        """Write the contract into a model folder."""
        (folder / CONTRACT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))


class Scorer:
    """Scores batches with one model version. One intra-op thread: bit-equal scores, whatever the batch.

    Parameters
    ----------
    onnx : bytes of the model; bytes, not a path, so that no external data can be reached
    contract : its contract

    Raises
    ------
    ModelError : the digest differs, the bytes are no model, or inputs and outputs are not as promised.
    """

    def __init__(self, onnx: bytes, contract: ModelContract) -> None:
        digest = hashlib.sha256(onnx).hexdigest()
        if digest != contract.sha256:
            msg = (
                f"model {contract.name} version {contract.version}: model.onnx has sha256 {digest}; its contract says "
                f"{contract.sha256}; the file was changed after registration"
            )
            raise ModelError(msg)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            msg = f"model {contract.name} version {contract.version}: ONNX Runtime cannot load it: {error}"
            raise ModelError(msg) from error
        self.contract = contract
        self._check_signature()

    @classmethod
    def load(cls, folder: Path) -> "Scorer":
        """Load a model folder: `model.onnx` and `contract.json`."""
        return cls((folder / ONNX_FILE).read_bytes(), ModelContract.read(folder))

    def score(self, matrix: F32) -> F32:
        """Return the scores, float32[n], of a feature matrix, float32[n, inputs]."""
        found = self._session.run([self.contract.onnx_output], {self.contract.onnx_input: matrix})[0]
        column = self.contract.output_column
        return np.asarray(found if column < 0 else found[:, column], np.float32)

    def _check_signature(self) -> None:
        contract = self.contract
        inputs = {one.name: one for one in self._session.get_inputs()}
        found = inputs.get(contract.onnx_input)
        wanted = f"{contract.onnx_input}: tensor(float)[n, {len(contract.inputs)}]"
        if (
            found is None
            or len(inputs) != 1
            or found.type != "tensor(float)"
            or found.shape[1:] != [len(contract.inputs)]
        ):
            got = ", ".join(f"{one.name}: {one.type}{one.shape}" for one in inputs.values())
            msg = f"model {contract.name} version {contract.version}: got input {got}; its contract says {wanted}"
            raise ModelError(msg)
        shapes = {one.name: one.shape for one in self._session.get_outputs()}
        if contract.onnx_output not in shapes:
            msg = (
                f"model {contract.name} version {contract.version}: got outputs {list(shapes)}; its contract says "
                + (repr(contract.onnx_output))
            )
            raise ModelError(msg)
        # A model need not say the shape of its output; a dimension it leaves open is None or a name.
        shape, column = shapes[contract.onnx_output], contract.output_column
        is_right = len(shape) == 1 if column < 0 else len(shape) == 2 and not _is_below(shape[1], column + 1)
        if shape and not is_right:
            msg = (
                f"model {contract.name} version {contract.version}: got output {contract.onnx_output} {shape}; "
                f"its contract says column {column}"
            )
            raise ModelError(msg)


def _is_below(dimension: int | str | None, least: int) -> bool:
    return isinstance(dimension, int) and dimension < least


def feature_matrix(rows: pa.RecordBatch, columns: list[str]) -> F32:
    """Return number columns as float32[n, columns], NaN for null: what a model is trained on and is fed."""
    matrix = np.empty((rows.num_rows, len(columns)), np.float32)
    for i, name in enumerate(columns):
        matrix[:, i] = number_column(rows, name).to_numpy(zero_copy_only=False)
    return matrix
