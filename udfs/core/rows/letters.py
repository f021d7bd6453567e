"""Letters: rows that leave the path early (rejects, late rows) and notes on order, with what is needed to act on them.

A letter travels with its batch, and the last operator sends it to its topic: the original key and value as the record,
everything else as headers.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

Kind = Literal["rejects", "late", "order"]
Reason = Literal[
    "tombstone",  # null value
    "empty",  # value of length zero
    "not_utf8",  # a string or the whole value is not UTF-8
    "malformed",  # not JSON, or cut off
    "too_deep",  # nested beyond what the parser follows
    "missing_field",
    "extra_field",
    "wrong_type",
    "null_field",  # null where the contract wants a value
    "not_finite",  # NaN or Infinity
    "out_of_range",  # beyond the type (int64, float64) or the declared min and max
    "key_mismatch",  # the Kafka key differs from the field it repeats
    "invalid_id",  # an event id with control characters, or empty
    "future",  # event time ahead of the Kafka timestamp by more than the tolerance
    "lookup_miss",  # a key that the file of a lookup does not have
    "duplicate",  # an event of this id and with equal fields came before
    "conflict",  # an event of this id with other fields came before
    "derive_failed",  # the pipeline's own function raised for this row
    "enrichment_missing",  # no fitting row of an enrichment that is required
    "late",  # behind the newest event of its key by more than the allowed lateness
    "score_failed",  # the model gave no finite score for this row
    "score_unavailable",  # the model failed on the whole batch, and the fallback says reject
    "no_model",  # no model for this row's entity, and `per_entity.missing` says reject
]

LETTERS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("order", pa.string(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
    ]
)
DETAIL_MAX_CHARS = 300
MAX_RECORD_BYTES = 1_000_000
"""Key and value of a letter: with its headers it must fit a topic of Kafka's default limit, 1,048,588 bytes."""
CUT_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Letter:
    """One row that leaves the path."""

    kind: Kind
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    #: which stage judged: decode, validate, lookup, derive, duplicates, featurize-<entity>, score
    stage: str
    reason: str
    detail: str
    #: JSON: per featurize stage passed, [lane, sequence number]
    order: str
    key: bytes | None
    value: bytes | None


def to_batch(letters: Sequence[Letter]) -> pa.RecordBatch:
    """Return letters as a batch of schema `LETTERS`."""
    if not letters:
        return _NONE
    columns = {
        field.name: pa.array([getattr(letter, field.name) for letter in letters], field.type) for field in LETTERS
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=LETTERS)


def no_letters() -> pa.RecordBatch:
    """Return an empty batch of letters."""
    return _NONE


def headers(letter: Letter) -> dict[str, bytes]:
    """Return the Kafka headers that say why the record is here and where it came from.

    Examples
    --------
    >>> letter = Letter("rejects", "t", 0, 7, 1, "decode", "empty", "value of length zero", "{}", None, b"")
    >>> headers(letter)["headrace.reason"], headers(letter)["headrace.offset"]
    (b'empty', b'7')
    """
    named = {
        "stage": letter.stage,
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": str(letter.partition),
        "offset": str(letter.offset),
        "timestamp_ms": str(letter.timestamp_ms),
        "order": letter.order,
    }
    return {f"headrace.{name}": text.encode("utf-8", "replace") for name, text in named.items()}


def fitting(letter: Letter) -> Letter:
    """Return the letter, its key and value cut if a topic of Kafka's default limit could not take it whole.

    The detail then says so, with the digest of the whole value, which stands at its origin.
    """
    key, value = letter.key or b"", letter.value or b""
    if len(key) + len(value) <= MAX_RECORD_BYTES:
        return letter
    cut = f"cut to {CUT_BYTES} bytes of {len(value)}, sha256 {hashlib.sha256(value).hexdigest()}; {letter.detail}"
    return replace(
        letter,
        key=letter.key and key[:CUT_BYTES],
        value=letter.value and value[:CUT_BYTES],
        detail=cut[:DETAIL_MAX_CHARS],
    )


def order_json(order: dict[str, tuple[int, int]]) -> str:
    """Return the stamps of a row as compact JSON."""
    return json.dumps(order, separators=(",", ":"))


_NONE = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in LETTERS], schema=LETTERS)
