"""The model contract: what a model takes, what its output means and where it comes from; `contract.json` beside it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from udfs.core.model.files import CONTRACT_FILE, MAX_BYTES, ONNX_FILE, read_file
from udfs.core.model.refusals import ModelRefusedError, Refusal

CONTRACT_FORMAT = 2
Dtype = Literal["float32", "float64", "int64", "int32", "bool"]
Meaning = Literal[
    "probability",  # one number within [0, 1]: that the answer is yes
    "value",  # one number: a price, a delay
    "class_scores",  # one number per class
    "vector",  # numbers without names: an embedding
]
NUMBER_MEANINGS = ("probability", "value")


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input of the ONNX model, and the features bound to its columns."""

    #: name of the ONNX input, shape [n, features], or [n] for a single feature
    name: str
    dtype: Dtype
    #: feature columns, in order; null enters a float tensor as NaN, and gives no score where the tensor is an integer
    features: list[str]


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The output of the ONNX model that is written, and what it means."""

    #: name of the ONNX output, shape [n, m] or [n]
    name: str
    meaning: Meaning
    #: column of the one number where the output has several; None where there is nothing to pick
    column: int | None = None
    #: numbers per row that are written
    width: int = 1
    #: per number the class it is the score of; for `class_scores` only
    classes: list[str] = []

    def __post_init__(self) -> None:
        is_number = self.meaning in NUMBER_MEANINGS
        if is_number and (self.width != 1 or self.classes):
            msg = f"output: {self.meaning} is one number; got width {self.width} and {len(self.classes)} classes"
            raise ValueError(msg)
        if not is_number and self.column is not None:
            msg = f"output: {self.meaning} takes all columns; got column {self.column}"
            raise ValueError(msg)
        if (self.column is not None and self.column < 0) or self.width < 1:
            msg = f"output: got column {self.column} and width {self.width}"
            raise ValueError(msg)
        expected = self.width if self.meaning == "class_scores" else 0
        if len(set(self.classes)) != len(self.classes) or len(self.classes) != expected:
            msg = f"output: {self.meaning} of width {self.width} needs {expected} different classes; got {self.classes}"
            raise ValueError(msg)


class FeatureSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a feature was declared when the model was trained."""

    definition: str
    #: fields, lookups, joins and functions that it is made of
    columns: list[str]


class ModelContract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model promises and needs."""

    #: registered model name
    name: str
    #: registry version; empty until it is registered
    version: str = ""
    #: SHA-256, hex, of each other file of the model
    files: dict[str, str]
    #: pipeline that it was made for
    pipeline: str = ""
    #: hash of the feature set the model was trained on
    feature_set: str
    tensors: list[Tensor]
    output: Output
    #: score above which the answer is yes; None where there is no such answer
    threshold: float | None = None
    #: False: a row with a null feature gets no score, and is rejected
    takes_nulls: bool = True
    #: what is known of how it came to be: trainer, exporter, data, data_sha256, parameters …
    provenance: dict[str, str] = {}
    #: feature -> how it was declared
    lineage: dict[str, FeatureSource] = {}
    #: it came from the cache of last-known-good versions, since the registry was away
    from_cache: bool = False
    format: int = CONTRACT_FORMAT

    def __post_init__(self) -> None:
        inputs = self.inputs
        if not inputs or len(set(inputs)) != len(inputs) or not all(tensor.features for tensor in self.tensors):
            msg = f"tensors: every input needs a feature, and every feature stands once; got {inputs}"
            raise ValueError(msg)
        if len({tensor.name for tensor in self.tensors}) != len(self.tensors):
            msg = f"tensors: got the names {[tensor.name for tensor in self.tensors]}; each must stand once"
            raise ValueError(msg)

    @property
    def sha256(self) -> str:
        """SHA-256 of model.onnx, hex."""
        return self.files.get(ONNX_FILE, "")

    @property
    def inputs(self) -> list[str]:
        """Feature columns in the order of the model's inputs."""
        return [feature for tensor in self.tensors for feature in tensor.features]

    @property
    def what(self) -> str:
        """How messages call it."""
        return f"model {self.name} version {self.version or '(new)'}"

    @classmethod
    def read(cls, folder: Path) -> "ModelContract":
        """Read the contract of a model folder.

        Raises
        ------
        ModelRefusedError : it is missing, a link, too large, or no contract of this format.
        """
        return cls.decode(read_file(folder, CONTRACT_FILE), str(folder / CONTRACT_FILE))

    @classmethod
    def decode(cls, content: bytes, where: str = CONTRACT_FILE) -> "ModelContract":
        """Read a contract.

        Parameters
        ----------
        content : JSON
        where : what a message calls it

        Raises
        ------
        ModelRefusedError : `contract`: it is none of this format, or contradicts itself.
        """
        if len(content) > MAX_BYTES[CONTRACT_FILE]:
            msg = f"{where}: has {len(content)} bytes; at most {MAX_BYTES[CONTRACT_FILE]} are allowed"
            raise ModelRefusedError(Refusal.TOO_LARGE, msg)
        try:
            found = msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            msg = f"{where}: cannot be read as a model contract: {error}"
            if b'"onnx_input"' in content:
                msg += "; an older Headrace wrote it: register the model again"
            raise ModelRefusedError(Refusal.CONTRACT, msg) from error
        if found.format != CONTRACT_FORMAT:
            msg = f"{where}: has format {found.format}; this code reads {CONTRACT_FORMAT}; register the model again"
            raise ModelRefusedError(Refusal.CONTRACT, msg)
        return found

    def encode(self) -> bytes:
        """Return the contract as JSON; equal contracts give equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2)

    def write(self, folder: Path) -> None:
        """Write the contract into a model folder."""
        (folder / CONTRACT_FILE).write_bytes(self.encode())


def in_order(got: Iterable[str], wanted: Iterable[str]) -> Refusal | None:
    """Say what is wrong with names: `NAMES` if they are others, `ORDER` if only their order is, None if nothing is.

    Examples
    --------
    >>> in_order(["b", "a"], ["a", "b"])
    <Refusal.ORDER: 'order'>
    """
    got, wanted = list(got), list(wanted)
    if got == wanted:
        return None
    return Refusal.ORDER if sorted(got) == sorted(wanted) else Refusal.NAMES
