"""Validate: rules over the columns of decoded rows; a row that breaks one leaves as a letter, with the reason.

The first rule that a row breaks names the reason. Null values pass the bounds.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from udfs.core.declare.contract import ARROW_TYPES, INT64_MAX, INT64_MIN, Bound, Contract, FieldSpec
from udfs.core.rows.batches import OFFSET, PARTITION, TIMESTAMP_MS, VALUE
from udfs.core.rows.letters import DETAIL_MAX_CHARS, Kind, Letter, order_json, to_batch

STAGE = "validate"
Rule = tuple[str, Callable[[pa.RecordBatch], pa.BooleanArray], Callable[[dict[str, object]], str]]


def bound_rules(contract: Contract) -> list[Rule]:
    """Return the rules for every declared `min` and `max`."""
    return [
        _bound_rule(name, limit, _within(spec, limit, rounded), compare, word)
        for name, spec in contract.fields.items()
        for limit, rounded, compare, word in (
            (spec.min, math.ceil, pc.less, "below min"),
            (spec.max, math.floor, pc.greater, "above max"),
        )
        if limit is not None
    ]


def _within(spec: FieldSpec, limit: Bound, rounded: Callable[[Bound], int]) -> pa.Scalar:
    """Return a limit in the type of its field: Arrow would cast int64 to float64, and refuses to beyond 2**53.

    A row is within `min` if it is within the next whole number, so that -0.5 and 9.5 are exact for int64, too.
    """
    bound = rounded(min(max(limit, INT64_MIN), INT64_MAX)) if spec.type == "int64" else float(limit)
    return pa.scalar(bound, ARROW_TYPES[spec.type])


def _unfit_ids(ids: pa.StringArray) -> pa.BooleanArray:
    size = pc.binary_length(ids)
    unfit = pc.or_(pc.equal(size, 0), pc.greater(size, ID_MAX_BYTES))
    _, ends, data = ids.buffers()
    # Of a slice, too, the buffer holds the text of the whole.
    first, last = np.frombuffer(ends, np.int32)[[ids.offset, ids.offset + len(ids)]] if len(ids) else (0, 0)
    text = np.frombuffer(data or b"", np.uint8)[first:last]
    # A regular expression for each row costs more than all other rules; most batches have nothing for it to find.
    if ((text < ord(" ")) | (text == DELETE)).any():
        return pc.or_(unfit, pc.match_substring_regex(ids, r"[\x00-\x1f\x7f]"))
    return unfit


def _bound_rule(name: str, limit: Bound, bound: pa.Scalar, compare: Callable[..., pa.BooleanArray], word: str) -> Rule:
    return (
        "out_of_range",
        lambda rows: compare(rows[name], bound),
        lambda row: f"{name}: got {row[name]}; {word} {limit if isinstance(limit, int) else format(limit, '.15g')}",
    )


def future_rule(contract: Contract, tolerance_ms: int) -> Rule:
    """Return the rule that event time is not ahead of the Kafka timestamp by more than the tolerance."""
    return (
        "future",
        # The bound is on the Kafka side, where the sum cannot overflow, whatever int64 the event claims.
        lambda rows: pc.greater(rows[contract.time], pc.add(rows[TIMESTAMP_MS], tolerance_ms)),
        lambda row: f"{contract.time}: got {row[contract.time]}, Kafka timestamp {row[TIMESTAMP_MS]}",
    )


def past_rule(contract: Contract) -> Rule:
    """Return the rule that event time is no nonsense: before the year 1 it is a wrong unit or an overflow."""
    return (
        "out_of_range",
        lambda rows: pc.less(rows[contract.time], EARLIEST_MS),
        lambda row: f"{contract.time}: got {row[contract.time]}; before the year 1; is the unit milliseconds?",
    )


def id_rule(contract: Contract) -> Rule:
    """Return the rule that an event id is not empty and has no control characters (they separate records)."""
    name = contract.id or ""
    return (
        "invalid_id",
        lambda rows: _unfit_ids(rows[name]),
        lambda row: f"{name}: got {row[name]!r}; an id has 1 to 256 bytes, no control characters",
    )


ID_MAX_BYTES, DELETE = 256, 0x7F
EARLIEST_MS = -62_135_596_800_000


def apply_rules(
    rows: pa.RecordBatch, rules: list[Rule], topic: str, key_field: str
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return (rows that keep all rules, letters of the others)."""
    if rows.num_rows == 0:
        return rows, to_batch([])
    verdicts = [pc.fill_null(broken(rows), False) for _, broken, _ in rules]
    bad = verdicts[0]
    for verdict in verdicts[1:]:
        bad = pc.or_(bad, verdict)
    if not pc.any(bad).as_py():
        return rows, to_batch([])
    letters = []
    for i in pc.indices_nonzero(bad).to_pylist():
        row = rows.slice(i, 1).to_pylist()[0]
        reason, _, describe = next(rule for rule, verdict in zip(rules, verdicts, strict=True) if verdict[i].as_py())
        letters.append(letter_of(row, "rejects", topic, key_field, STAGE, reason, describe(row)))
    return rows.filter(pc.invert(bad)), to_batch(letters)


def letter_of(
    row: Mapping[str, object],
    kind: Kind,
    topic: str,
    key_field: str,
    stage: str,
    reason: str,
    detail: str,
    order: Mapping[str, tuple[int, int]] | None = None,
) -> Letter:
    """Return the letter of a decoded row; its Kafka key is what `key_field` repeats."""
    key, value = row[key_field], row[VALUE]
    partition, offset, timestamp_ms = row[PARTITION], row[OFFSET], row[TIMESTAMP_MS]
    assert isinstance(value, bytes) and isinstance(partition, int) and isinstance(offset, int)  # noqa: S101, PT018
    assert isinstance(timestamp_ms, int)  # noqa: S101  narrowing for the type checker: the schema says so
    return Letter(
        kind,
        topic,
        partition,
        offset,
        timestamp_ms,
        stage,
        reason,
        detail[:DETAIL_MAX_CHARS],
        order_json(dict(order or {})),
        key.encode() if isinstance(key, str) else None,
        value,
    )
