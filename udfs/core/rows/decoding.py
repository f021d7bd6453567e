"""Decode: raw records -> columns, strictly by the contract; whatever is not an event of the contract becomes a letter.

Each record is decoded on its own, so that no record can change how its neighbour is read.
"""

import json
import re
from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from udfs.core.declare.contract import Contract
from udfs.core.rows.batches import ORIGIN_FIELDS, RawBatch
from udfs.core.rows.letters import DETAIL_MAX_CHARS, Letter, Reason, to_batch

STAGE = "decode"


class Decoder:
    """Decodes the records of one topic.

    Parameters
    ----------
    contract : what an event of the topic looks like
    key : field that the Kafka key repeats; a record with another key would be in the wrong lane. None: any key will do.
    """

    def __init__(self, contract: Contract, key: str | None) -> None:
        self._key = key
        self._names = list(contract.fields)
        self._types = [field.type for field in contract.arrow_schema()]
        self._decode = msgspec.json.Decoder(contract.struct()).decode
        self.schema = pa.schema([*contract.arrow_schema(), *ORIGIN_FIELDS])

    def decode(self, raw: RawBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Return (rows, letters): rows have the contract's columns and the reserved origin columns."""
        letters: list[Letter] = []
        good: Sequence[int] = range(len(raw.values))
        decode = self._decode
        try:
            events = [decode(value) for value in raw.values]  # type: ignore[arg-type]  # None raises, as it should
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            events, good = self._one_by_one(raw, letters)
        values, partitions, offsets, times = (
            [column[i] for i in good] if letters else column
            for column in (raw.values, raw.partitions, raw.offsets, raw.timestamps_ms)
        )
        columns = zip(*map(msgspec.structs.astuple, events), strict=True) if events else ([] for _ in self._names)
        arrays = [pa.array(column, type_) for column, type_ in zip(columns, self._types, strict=True)]
        origin = [
            pa.array(column, field.type)
            for column, field in zip((partitions, offsets, times, values), ORIGIN_FIELDS, strict=True)
        ]
        rows = pa.RecordBatch.from_arrays([*arrays, *origin], schema=self.schema)
        if self._key is None:
            return rows, to_batch(letters)
        keys = pa.array([raw.keys[i] for i in good] if letters else raw.keys, pa.binary())
        expected = rows[self._key].cast(pa.binary())
        same = pc.or_(pc.fill_null(pc.equal(keys, expected), False), pc.and_(keys.is_null(), expected.is_null()))
        if not pc.all(same).as_py():
            for i in pc.indices_nonzero(pc.invert(same)).to_pylist():
                detail = f"{self._key}: got {expected[i].as_py()!r}, Kafka key {keys[i].as_py()!r}; they must be equal"
                letters.append(_reject(raw, good[i], "key_mismatch", detail))
            rows = rows.filter(same)
        return rows, to_batch(letters)

    def _one_by_one(self, raw: RawBatch, letters: list[Letter]) -> tuple[list[msgspec.Struct], list[int]]:
        """Decode what can be decoded; append a letter for what cannot."""
        events: list[msgspec.Struct] = []
        good: list[int] = []
        reason: Reason
        for i, value in enumerate(raw.values):
            try:
                if value:
                    events.append(self._decode(value))
                    good.append(i)
                    continue
                reason, detail = ("tombstone", "null value") if value is None else ("empty", "value of length zero")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                reason, detail = explain(value or b"", error)
            letters.append(_reject(raw, i, reason, detail))
        return events, good


def _reject(raw: RawBatch, i: int, reason: Reason, detail: str) -> Letter:
    return Letter(
        kind="rejects",
        topic=raw.topic,
        partition=raw.partitions[i],
        offset=raw.offsets[i],
        timestamp_ms=raw.timestamps_ms[i],
        stage=STAGE,
        reason=reason,
        detail=detail[:DETAIL_MAX_CHARS],
        order="{}",
        key=raw.keys[i],
        value=raw.values[i],
    )


def explain(value: bytes, error: Exception) -> tuple[Reason, str]:
    """Return the reason code and a sentence for a value that the strict decoder refused.

    Examples
    --------
    >>> explain(b'{"a": NaN}', msgspec.DecodeError("JSON is malformed: invalid character (byte 6)"))
    ('not_finite', 'JSON has no NaN')
    """
    text = str(error)
    if isinstance(error, RecursionError):
        return "too_deep", "nested deeper than the parser follows"
    if isinstance(error, UnicodeDecodeError):
        return "not_utf8", text
    if isinstance(error, msgspec.ValidationError):
        return _explain_validation(text)
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as not_utf8:
        return "not_utf8", str(not_utf8)
    constants: list[str] = []
    try:
        json.loads(value, parse_constant=constants.append)
    except (ValueError, RecursionError):
        return "malformed", text
    # The standard library reads NaN and Infinity, which JSON does not have: that was all that was wrong.
    return ("not_finite", f"JSON has no {constants[0]}") if constants else ("malformed", text)


def _explain_validation(text: str) -> tuple[Reason, str]:
    if "missing required field" in text:
        return "missing_field", text
    if "unknown field" in text:
        return "extra_field", text
    if re.search(r"out of range|Expected `int` [<>]=", text):
        return "out_of_range", text
    if "got `null` - at" in text:  # without a place, the whole value is null
        return "null_field", text
    return "wrong_type", text
