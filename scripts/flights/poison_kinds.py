"""The kinds of bad record, each made from a good departure by one function, with the reject reasons that are right.

A kind goes into `KINDS`; its function takes the fields of a departure (its id is already new) and a serial number, and
returns a Kafka key and value.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

TEN_YEARS_MS = 10 * 365 * 86_400_000
_NESTED = 10_000

Fields = dict[str, Any]
KeyValue = tuple[bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to be bad."""

    #: Departure fields, serial number, now in epoch milliseconds -> Kafka key and value.
    make: Callable[[Fields, int, int], KeyValue]
    #: Reject reasons that are right; the first is the usual one.
    reasons: tuple[str, ...]


def _json(fields: Fields) -> bytes:
    return msgspec.json.encode(fields)


def _key(fields: Fields) -> bytes:
    return str(fields["tailnum"]).encode()


def _with(change: Mapping[str, Any]) -> Callable[[Fields, int, int], KeyValue]:
    """Set fields to values that JSON can say."""
    return lambda fields, _serial, _now_ms: (_key(fields), _json({**fields, **change}))


def _literal(field: str, text: str) -> Callable[[Fields, int, int], KeyValue]:
    """Set a field to JSON text that no Python value encodes to."""

    def make(fields: Fields, _serial: int, _now_ms: int) -> KeyValue:
        return _key(fields), _json({**fields, field: "@literal@"}).replace(b'"@literal@"', text.encode())

    return make


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Fields, int, int], KeyValue]:
    """Change the encoded value."""
    return lambda fields, _serial, _now_ms: (_key(fields), change(_json(fields)))


def _whole(value: bytes | None) -> Callable[[Fields, int, int], KeyValue]:
    """Send this value, whatever the departure."""
    return lambda fields, _serial, _now_ms: (_key(fields), value)


def _keyed(key: bytes | None) -> Callable[[Fields, int, int], KeyValue]:
    """Send a good value under another key."""
    return lambda fields, _serial, _now_ms: (key, _json(fields))


def _without(fields: Fields, serial: int, _now_ms: int) -> KeyValue:
    """Leave out one field, another one each time; the key stays."""
    left_out = list(fields)[serial % len(fields)]
    return _key(fields), _json({name: value for name, value in fields.items() if name != left_out})


def _future(fields: Fields, _serial: int, now_ms: int) -> KeyValue:
    return _key(fields), _json({**fields, "departed_at_ms": now_ms + TEN_YEARS_MS})


def _array(fields: Fields, _serial: int, _now_ms: int) -> KeyValue:
    return _key(fields), _json({"fields": list(fields.values())})[len('{"fields":') : -1]


def _number(fields: Fields, serial: int, _now_ms: int) -> KeyValue:
    return _key(fields), str(1_000_000 + serial).encode()


_DEEP = "[" * _NESTED + "]" * _NESTED
_DEEP_OBJECTS = '{"a":' * _NESTED + "1" + "}" * _NESTED

KINDS: dict[str, Kind] = {
    "tombstone": Kind(_whole(None), ("tombstone",)),
    "empty": Kind(_whole(b""), ("empty",)),
    "invalid_utf8": Kind(_bytes(lambda value: value.replace(b'"carrier":"', b'"carrier":"\xff\xfe')), ("not_utf8",)),
    "latin1": Kind(_bytes(lambda value: value.replace(b'"dest":"', b'"dest":"\xe9')), ("not_utf8",)),
    "utf8_surrogate": Kind(_bytes(lambda value: value.replace(b'"dest":"', b'"dest":"\xed\xa0\x80')), ("not_utf8",)),
    "utf16": Kind(_bytes(lambda value: value.decode().encode("utf-16")), ("not_utf8",)),
    "truncated": Kind(_bytes(lambda value: value[: len(value) // 2]), ("malformed",)),
    "no_json": Kind(_bytes(lambda value: b"departed " + value[15:40].replace(b'"', b"")), ("malformed",)),
    "single_quotes": Kind(_bytes(lambda value: value.replace(b'"', b"'")), ("malformed",)),
    "trailing_comma": Kind(_bytes(lambda value: value[:-1] + b",}"), ("malformed",)),
    "two_objects": Kind(_bytes(lambda value: value + b"\n" + value), ("malformed",)),
    "utf8_bom": Kind(_bytes(lambda value: b"\xef\xbb\xbf" + value), ("malformed",)),
    "blank": Kind(_whole(b" \n"), ("malformed", "empty")),
    "lone_surrogate": Kind(_literal("dest", '"\\ud800"'), ("malformed", "not_utf8")),
    "array": Kind(_array, ("wrong_type",)),
    "bare_number": Kind(_number, ("wrong_type",)),
    "bare_null": Kind(_whole(b"null"), ("wrong_type",)),
    "json_in_string": Kind(_bytes(lambda value: json.dumps(value.decode()).encode()), ("wrong_type",)),
    "text_for_int": Kind(_with({"flight": "1545"}), ("wrong_type",)),
    "fraction_for_int": Kind(_with({"flight": 1545.5}), ("wrong_type",)),
    "bool_for_float": Kind(_with({"dep_delay_min": True}), ("wrong_type",)),
    "number_for_text": Kind(_with({"origin": 7}), ("wrong_type",)),
    "object_for_text": Kind(_with({"dest": {"faa": "IAH"}}), ("wrong_type",)),
    "left_out": Kind(_without, ("missing_field",)),
    "no_fields": Kind(_whole(b"{}"), ("missing_field",)),
    "extra": Kind(_with({"gate": "A12"}), ("extra_field",)),
    "misspelt": Kind(_bytes(lambda value: value.replace(b'"carrier"', b'"carier"')), ("extra_field", "missing_field")),
    "null_text": Kind(_with({"carrier": None}), ("null_field",)),
    "null_time": Kind(_with({"departed_at_ms": None}), ("null_field",)),
    "nan": Kind(_literal("dep_delay_min", "NaN"), ("not_finite",)),
    "infinity": Kind(_literal("dep_delay_min", "Infinity"), ("not_finite",)),
    "minus_infinity": Kind(_literal("distance_mi", "-Infinity"), ("not_finite",)),
    "beyond_int64": Kind(_with({"flight": 2**63}), ("out_of_range",)),
    "below_int64": Kind(_with({"departed_at_ms": -(2**63) - 1}), ("out_of_range",)),
    "huge_int": Kind(_literal("flight", "1" + "0" * 40), ("out_of_range",)),
    "beyond_double": Kind(_literal("dep_delay_min", "1e999"), ("out_of_range",)),
    "below_double": Kind(_literal("distance_mi", "-1e999"), ("out_of_range",)),
    "above_max": Kind(_with({"dep_delay_min": 2880.5}), ("out_of_range",)),
    "below_min": Kind(_with({"distance_mi": -1.0}), ("out_of_range",)),
    "no_clock_time": Kind(_with({"sched_dep_hhmm": 2400}), ("out_of_range",)),
    "deep_value": Kind(_literal("dep_delay_min", _DEEP), ("too_deep", "wrong_type")),
    "deep_extra": Kind(
        _bytes(lambda value: value[:-1] + b',"gate":' + _DEEP_OBJECTS.encode() + b"}"), ("too_deep", "extra_field")
    ),
    "deep_whole": Kind(_whole(_DEEP.encode()), ("too_deep", "wrong_type")),
    "deep_open": Kind(_whole(b"[" * (10 * _NESTED)), ("too_deep", "wrong_type", "malformed")),
    "other_key": Kind(_keyed(b"N00000"), ("key_mismatch",)),
    "null_key": Kind(_keyed(None), ("key_mismatch",)),
    "empty_key": Kind(_keyed(b""), ("key_mismatch",)),
    "key_not_utf8": Kind(_keyed(b"\xffN1"), ("key_mismatch", "not_utf8")),
    "future": Kind(_future, ("future",)),
}
