"""What an ONNX file refers to, read from its bytes alone: a client that submits jobs has no `onnx` package.

It walks the protobuf wire format through the messages that may hold operators or external data, and skips the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from udfs.core.errors import ModelError

MAX_DEPTH = 64  # messages inside messages; a model of trees has 4
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Message -> field number -> message of that field, or what to note down. References: onnx.proto, IR version 11.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "opset": {1: "=domain"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute", 7: "=domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "=external", 14: "=location"},
}


@dataclass(slots=True)
class References:
    """What a model refers to."""

    #: operator domains that it imports or uses; empty is the standard one
    domains: set[str] = field(default_factory=set)
    #: a tensor names a file or says that its data lies outside
    has_external_data: bool = False
    #: the model brings functions of its own
    has_functions: bool = False


def references(onnx: bytes) -> References:
    """Return what the bytes of an ONNX model refer to.

    Raises
    ------
    ModelError : the bytes are not a protobuf message of that shape.
    """
    found = References()
    try:
        _walk(memoryview(onnx), "model", found, 0)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        msg = f"the file is no ONNX model: {error}; is it cut off?"
        raise ModelError(msg) from error
    return found


def _walk(data: memoryview, message: str, found: References, depth: int) -> None:
    if depth > MAX_DEPTH:
        msg = f"messages nested deeper than {MAX_DEPTH}"
        raise ValueError(msg)
    known = _MESSAGES[message]
    for number, value in _fields(data):
        meaning = known.get(number)
        if meaning == "=domain" and isinstance(value, memoryview):
            found.domains.add(str(value, "utf-8"))
        elif meaning == "=external" or (meaning == "=location" and value != 0):
            found.has_external_data = True
        elif meaning in _MESSAGES and isinstance(value, memoryview):
            found.has_functions |= meaning == "function"
            _walk(value, str(meaning), found, depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, integer or bytes) of a message; a number with a fixed width is passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif kind == BYTES:
            size, at = _varint(data, at)
            if size > len(data) - at:
                msg = f"a field of {size} bytes where {len(data) - at} are left"
                raise ValueError(msg)
            yield tag >> 3, data[at : at + size]
            at += size
        elif kind in (FIXED32, FIXED64):
            at += 4 if kind == FIXED32 else 8
        else:
            msg = f"wire type {kind}"
            raise ValueError(msg)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    value, shift = byte & 0x7F, 7
    while byte & 0x80:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            msg = "a number of more than ten bytes"
            raise ValueError(msg)
    return value, at
