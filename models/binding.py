"""Binding: which feature enters where, and what the output means, read off an ONNX file and held against a pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from models.check import check_file, named_features
from models.trial import LIMIT_S, limited, random_rows
from udfs.core.errors import did_you_mean
from udfs.core.model.contract import NUMBER_MEANINGS, Dtype, Meaning, Output, Tensor
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import ONNX_TYPES, open_session

_DTYPES = {onnx: cast("Dtype", name) for name, onnx in ONNX_TYPES.items()}
_PROBABILITIES = ("probabilities", "output_probability", "probability")


@dataclass(frozen=True, slots=True)
class Meant:
    """What a person says of a model's output; None where the file is to decide."""

    output: str | None = None
    meaning: Meaning | None = None
    column: int | None = None
    #: names of the classes, in the order of the columns
    classes: tuple[str, ...] = ()


def bind(
    onnx: bytes,
    what: str,
    inputs: Sequence[str],
    known: Sequence[str],
    meant: Meant | None = None,
    given: Sequence[str] = (),
) -> tuple[list[Tensor], Output]:
    """Bind the inputs of an ONNX file to features, and its output to a meaning.

    A file with one input takes all features as its columns. A file with several takes each feature by the name of its
    input.

    Parameters
    ----------
    onnx : bytes of the model
    what : how messages call it
    inputs : features in the order of the model's columns; empty: as the file's metadata or the names of its inputs
        say, else all known ones
    known : the features that the pipeline has
    meant : what is known of the output
    given : columns that the steps of a chain give, which a model may name, too

    Raises
    ------
    ModelRefusedError : see `check_file` and `Scorer`; `names`, `order`, `shape` or `dtype`: it cannot be bound.
    """
    named = named_features(check_file(onnx, what))
    session = open_session(onnx, what)
    tensors = _tensors(session.get_inputs(), what, list(inputs or named or ()), list(known), given)
    return tensors, _output(session, tensors, what, meant or Meant())


def _tensors(
    found: list[Any], what: str, inputs: list[str], features_known: list[str], given: Sequence[str]
) -> list[Tensor]:
    known = [*features_known, *given]
    for one in found:
        if one.type not in _DTYPES:
            msg = f"{what}: input {one.name} is {one.type}; a feature is one of {', '.join(_DTYPES)}"
            raise ModelRefusedError(Refusal.DTYPE, msg)
    by_name = len(found) > 1 and all(one.name in known for one in found)
    if len(found) == 1:
        features = [inputs or features_known]
    elif by_name:
        features = [[one.name] for one in found]
    else:
        strange = next((one.name for one in found if one.name not in known), "")
        msg = (
            f"{what}: has {len(found)} inputs; {strange!r} is no feature of the pipeline{did_you_mean(strange, known)}"
        )
        raise ModelRefusedError(Refusal.NAMES, msg)
    flat = [name for names in features for name in names]
    for name in flat:
        if name not in known:
            msg = f"{what}: {name!r} is no feature of the pipeline{did_you_mean(name, known)}"
            raise ModelRefusedError(Refusal.NAMES, msg)
    if inputs and flat != inputs:
        reason = Refusal.ORDER if sorted(flat) == sorted(inputs) else Refusal.NAMES
        msg = f"{what}: its inputs are {', '.join(flat)}; got {', '.join(inputs)}"
        raise ModelRefusedError(reason, msg)
    for one, names in zip(found, features, strict=True):
        width = one.shape[1] if len(one.shape) == 2 else 1
        if len(one.shape) not in (1, 2) or width != len(names):
            hint = "; name the features that it takes, in its order" if len(found) == 1 else ""
            msg = f"{what}: input {one.name} has the shape {one.shape}; {len(names)} features are to enter it{hint}"
            raise ModelRefusedError(Refusal.SHAPE, msg)
    return [Tensor(one.name, _DTYPES[one.type], names) for one, names in zip(found, features, strict=True)]


def _output(session: Any, tensors: list[Tensor], what: str, meant: Meant) -> Output:
    name = meant.output or _likely_output(session.get_outputs(), what)
    if name not in {one.name for one in session.get_outputs()}:
        names = [one.name for one in session.get_outputs()]
        msg = f"{what}: has no output {name!r}{did_you_mean(name, names)}"
        raise ModelRefusedError(Refusal.NAMES, msg)
    width = _width(session, tensors, name, what)
    meaning = meant.meaning or _likely_meaning(name, width, meant)
    if meaning in NUMBER_MEANINGS:
        column = meant.column
        if column is None and width == 2 and meaning == "probability":
            column = 1  # of two classes, the second is the positive one
        if column is None and (width or 1) > 1:
            msg = f"{what}: output {name} has {width} columns; say which one is the {meaning}"
            raise ModelRefusedError(Refusal.SHAPE, msg)
        if width is not None and column is not None and column >= width:
            msg = f"{what}: output {name} has {width} columns; got column {column}"
            raise ModelRefusedError(Refusal.SHAPE, msg)
        return Output(name, meaning, column if width is not None else None)
    if width is None:
        msg = f"{what}: output {name} has one number per row; {meaning} needs two dimensions"
        raise ModelRefusedError(Refusal.SHAPE, msg)
    classes = list(meant.classes) or [str(i) for i in range(width)] if meaning == "class_scores" else []
    if meaning == "class_scores" and (len(classes) != width or len(set(classes)) != width):
        msg = f"{what}: output {name} has {width} columns; got the classes {', '.join(classes)}"
        raise ModelRefusedError(Refusal.NAMES, msg)
    return Output(name, meaning, None, width, classes)


def _likely_output(found: list[Any], what: str) -> str:
    fitting = [one.name for one in found if one.type in (ONNX_TYPES["float32"], ONNX_TYPES["float64"])]
    named = [name for name in fitting if name in _PROBABILITIES]
    if len(fitting) == 1 or named:
        return str((named or fitting)[0])
    if any("map(" in one.type for one in found):
        msg = f"{what}: writes its probabilities as maps; export it without ZipMap (zipmap=False)"
        raise ModelRefusedError(Refusal.DTYPE, msg)
    got = ", ".join(f"{one.name}: {one.type}" for one in found)
    msg = f"{what}: has outputs {got}; say which one is the score"
    raise ModelRefusedError(Refusal.NAMES, msg)


def _likely_meaning(name: str, width: int | None, meant: Meant) -> Meaning:
    if meant.classes:
        return "class_scores"
    if width in (None, 1) or meant.column is not None:
        return "probability" if name in _PROBABILITIES else "value"
    if name in _PROBABILITIES:
        return "probability" if width == 2 else "class_scores"
    return "vector"


def _width(session: Any, tensors: list[Tensor], name: str, what: str) -> int | None:
    """Return how many numbers an output has per row, None where it has one dimension; found by scoring three rows."""
    dtypes = [tensor.dtype for tensor in tensors for _ in tensor.features]
    rows, feed, start = random_rows(list(dtypes), 3), {}, 0
    ranks = {one.name: len(one.shape) for one in session.get_inputs()}
    for tensor in tensors:
        part = np.ascontiguousarray(rows[:, start : start + len(tensor.features)], tensor.dtype)
        feed[tensor.name] = part[:, 0] if ranks[tensor.name] == 1 else part
        start += len(tensor.features)
    try:
        with limited(LIMIT_S) as options:
            shape = np.shape(session.run([name], feed, options)[0])
    except TimeoutError as error:
        msg = f"{what}: three rows took more than {LIMIT_S:g} s"
        raise ModelRefusedError(Refusal.TIMEOUT, msg) from error
    except Exception as error:
        msg = f"{what}: ONNX Runtime failed on three rows: {error}"
        raise ModelRefusedError(Refusal.FAILED, msg) from error
    if len(shape) not in (1, 2) or shape[0] != len(rows):
        msg = f"{what}: output {name} gave {list(shape)} for {len(rows)} rows; expected one number or one row each"
        raise ModelRefusedError(Refusal.SHAPE, msg)
    return None if len(shape) == 1 else int(shape[1])
