"""Bars as SVG text: one row per name, parts of a row side by side."""

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#3b6ea5", "#e0a030", "#7a9e4e", "#a0522d", "#777777")
_WIDTH, _LEFT, _BAR, _GAP, _TOP = 720, 190, 22, 10, 46


def bars(title: str, unit: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return a plot of stacked bars.

    Parameters
    ----------
    rows : name -> part -> value, none negative

    Examples
    --------
    >>> bars("CPU", "us", {"ours": {"jvm": 3.0, "python": 1.0}}).count("<rect")
    5
    """
    parts: Sequence[str] = list(dict.fromkeys(part for row in rows.values() for part in row))
    most = max((sum(row.values()) for row in rows.values()), default=0.0) or 1.0
    scale = (_WIDTH - _LEFT - 90) / most
    height = _TOP + len(rows) * (_BAR + _GAP)
    drawn = [_text(0, 16, title, "bold")]
    at = _LEFT
    for part, colour in zip(parts, COLOURS, strict=False):
        if len(parts) > 1:
            drawn += [_rect(at, 26, 12, 12, colour), _text(at + 16, 37, part)]
            at += 40 + 7 * len(part)
    for place, (name, row) in enumerate(rows.items()):
        top, left = _TOP + place * (_BAR + _GAP), float(_LEFT)
        drawn.append(_text(0, top + 15, name))
        for part, colour in zip(parts, COLOURS, strict=False):
            drawn.append(_rect(left, top, row.get(part, 0.0) * scale, _BAR, colour))
            left += row.get(part, 0.0) * scale
        drawn.append(_text(left + 6, top + 15, f"{sum(row.values()):,.4g} {unit}"))
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif"'
        f' font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _rect(left: float, top: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _text(left: float, top: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{left:.1f}" y="{top:.1f}" font-weight="{weight}">{escape(text)}</text>'
