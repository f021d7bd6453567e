"""What an ONNX file says of itself, read from its bytes alone: a client that submits jobs has no `onnx` package.

It walks the protobuf wire format through the messages that may hold operators or external data, and skips the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from udfs.core.model.refusals import ModelRefusedError, Refusal

MAX_DEPTH = 64  # messages inside messages; a model of trees has 4
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Message -> field number -> message of that field, or what to note down. References: onnx.proto, IR version 13.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {
        1: "=ir", 2: "=producer", 3: "=producer_version", 7: "graph", 8: "opset", 14: "metadata", 20: "training",
        25: "function",
    },
    "opset": {1: "=domain", 2: "=opset"},
    "metadata": {1: "=key", 2: "=value"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute", 7: "=domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "=external", 14: "=location"},
}  # fmt: skip


@dataclass(slots=True)
class References:
    """What a model says of itself."""

    #: operator domains that it imports or uses; empty is the standard one
    domains: set[str] = field(default_factory=set)
    #: imported domain -> its newest version that is asked for
    opsets: dict[str, int] = field(default_factory=dict)
    ir_version: int = 0
    #: what wrote the file, such as `skl2onnx 1.20.0`
    producer: str = ""
    #: free text that came with it
    metadata: dict[str, str] = field(default_factory=dict)
    #: a tensor names a file or says that its data lies outside
    has_external_data: bool = False
    #: the model brings functions of its own
    has_functions: bool = False
    has_graph: bool = False


class _CutOffError(ValueError):
    """A field is longer than what is left."""


def references(onnx: bytes) -> References:
    """Return what the bytes of an ONNX model say of it.

    Raises
    ------
    ModelRefusedError : `truncated`: the bytes end early. `not_onnx`: they are not a protobuf message of that shape.
    """
    found = References()
    try:
        _walk(memoryview(onnx), "model", found, 0)
    except _CutOffError as error:
        msg = f"the file is no whole ONNX model: {error}; is it cut off?"
        raise ModelRefusedError(Refusal.TRUNCATED, msg) from error
    except (UnicodeDecodeError, ValueError) as error:
        msg = f"the file is no ONNX model: {error}"
        raise ModelRefusedError(Refusal.NOT_ONNX, msg) from error
    if not found.has_graph or not found.opsets:
        missing = "graph" if not found.has_graph else "operator set"
        msg = f"the file is no whole ONNX model: it names no {missing}; is it cut off?"
        raise ModelRefusedError(Refusal.TRUNCATED, msg)
    return found


def _walk(data: memoryview, message: str, found: References, depth: int) -> None:
    if depth > MAX_DEPTH:
        msg = f"messages nested deeper than {MAX_DEPTH}"
        raise ValueError(msg)
    known: dict[int, str] = _MESSAGES[message]
    leaves: dict[str, int | memoryview] = {}
    for number, value in _fields(data, is_whole=depth > 0):
        meaning = known.get(number, "")
        if meaning in _MESSAGES and isinstance(value, memoryview):
            found.has_functions |= meaning == "function"
            found.has_graph |= message == "model" and meaning == "graph"
            _walk(value, meaning, found, depth + 1)
        elif meaning:
            found.has_external_data |= meaning == "=external" or (meaning == "=location" and value != 0)
            leaves[meaning] = value  # of a field that stands twice, the last counts
    _note(message, leaves, found)


def _note(message: str, leaves: dict[str, int | memoryview], found: References) -> None:
    def text(meaning: str) -> str:
        value = leaves.get(meaning, 0)
        return str(value, "utf-8") if isinstance(value, memoryview) else ""

    def number(meaning: str) -> int:
        value = leaves.get(meaning, 0)
        return value if isinstance(value, int) else 0

    if "=domain" in leaves:
        found.domains.add(text("=domain"))
    if message == "opset":
        domain = text("=domain")
        found.opsets[domain] = max(number("=opset"), found.opsets.get(domain, 0))
    elif message == "metadata":
        found.metadata[text("=key")] = text("=value")
    elif message == "model":
        found.ir_version = number("=ir")
        found.producer = f"{text('=producer')} {text('=producer_version')}".strip()


def _fields(data: memoryview, *, is_whole: bool) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, integer or bytes) of a message; a number with a fixed width is passed over.

    `is_whole`: the message is known to be there to its end, so that a field beyond it is wrong, not cut off.
    """
    at, beyond = 0, ValueError if is_whole else _CutOffError
    while at < len(data):
        try:
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == VARINT:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            size, at = _varint(data, at) if kind == BYTES else ({FIXED32: 4, FIXED64: 8}.get(kind, -1), at)
        except IndexError:
            msg = "a number goes on behind the end"
            raise beyond(msg) from None
        if size < 0:
            msg = f"wire type {kind}"
            raise ValueError(msg)
        if size > len(data) - at:
            msg = f"a field of {size} bytes where {len(data) - at} are left"
            raise beyond(msg)
        if kind == BYTES:
            yield tag >> 3, data[at : at + size]
        at += size


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
