"""Why a model is refused: one word per reason, which logs, the ledger and tests can rely on, and the error with it."""

from enum import StrEnum

from udfs.core.errors import ModelError


class Refusal(StrEnum):
    """Why a model is refused. The words stand in ledgers, so they stay."""

    # The files
    MISSING_FILE = "missing_file"
    """A file of the model is not there."""
    SYMLINK = "symlink"
    """A file is a symbolic link."""
    PATH = "path"
    """A name, version or address leads somewhere else: `..`, a separator, a local file, a device."""
    TOO_LARGE = "too_large"
    DIGEST = "digest"
    """A file is not the one that was registered, down to a single bit."""
    PICKLE = "pickle"
    """Python objects, whose loading runs code."""
    TRUNCATED = "truncated"
    """An ONNX file that ends early."""
    NOT_ONNX = "not_onnx"

    # What the ONNX file asks for
    EXTERNAL_DATA = "external_data"
    """Tensors in other files."""
    CUSTOM_OPERATOR = "custom_operator"
    """A domain other than ai.onnx and ai.onnx.ml, functions of its own, or an operator these do not have."""
    OPSET = "opset"
    """A version of ONNX that is not supported."""
    NOT_LOADABLE = "not_loadable"
    """ONNX Runtime does not take it for any other reason."""

    # What it promises
    CONTRACT = "contract"
    """The contract cannot be read, or contradicts itself."""
    NAMES = "names"
    """An input, output, class or feature has another name, or none."""
    ORDER = "order"
    """The right names in another order."""
    SHAPE = "shape"
    DTYPE = "dtype"
    FEATURE_SET = "feature_set"
    """Trained on other features than the pipeline has."""

    # What it answers to its golden batch
    NOT_FINITE = "not_finite"
    RANGE = "range"
    """A probability that is not within [0, 1]."""
    GOLDEN = "golden"
    """Not the scores noted at registration, or no golden batch that can be read."""
    BATCH = "batch"
    """The score of a row depends on the rows beside it."""
    TIMEOUT = "timeout"
    FAILED = "failed"
    """ONNX Runtime gave up on the golden batch."""

    # The registry
    UNKNOWN = "unknown"
    """No such model, alias or version."""
    ARCHIVED = "archived"
    """The version was taken out of use."""
    IN_USE = "in_use"
    """The version cannot be taken out of use while an alias points at it."""


class ModelRefusedError(ModelError):
    """A model that must not score, and why. `str()` ends in the reason in brackets, `reason` is the same as an enum.

    Examples
    --------
    >>> str(ModelRefusedError(Refusal.DIGEST, "model m version 3: was changed"))
    'model m version 3: was changed [digest]'
    """

    def __init__(self, reason: Refusal, text: str) -> None:
        super().__init__(reason, text)
        self.reason, self.text = reason, text

    def __str__(self) -> str:
        return f"{self.text} [{self.reason}]"
