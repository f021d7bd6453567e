"""Durations as people write them (`90s`, `1h`, `7d`) and as code uses them: integer milliseconds."""

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration_ms(text: object) -> int:
    """Milliseconds of a duration such as `500ms`, `90s`, `5m`, `1h` or `7d`.

    Examples
    --------
    >>> parse_duration_ms("1h"), parse_duration_ms("250ms")
    (3600000, 250)
    """
    match = re.fullmatch(r"(\d+)\s*(ms|s|m|h|d)", text.strip()) if isinstance(text, str) else None
    if match is None:
        msg = f"got {text!r}; a duration is a whole number and a unit, such as '30s', '5m', '1h' or '7d'"
        raise ValueError(msg)
    return int(match[1]) * UNITS_MS[match[2]]


def format_duration(duration_ms: int) -> str:
    """Return the shortest exact spelling of a duration.

    Examples
    --------
    >>> format_duration(5_400_000), format_duration(86_400_000)
    ('90m', '1d')
    """
    for unit, unit_ms in reversed(UNITS_MS.items()):
        if duration_ms >= unit_ms and duration_ms % unit_ms == 0:
            return f"{duration_ms // unit_ms}{unit}"
    return f"{duration_ms}ms"


DurationMs = Annotated[
    int,
    BeforeValidator(parse_duration_ms),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+\s*(ms|s|m|h|d)$", "examples": ["30s", "5m", "1h", "7d"]}),
]
"""Pydantic field type: written as text with a unit, held as integer milliseconds."""
