"""Windows drawn as text, from what the engine says: event i has the value 2^i, so that a sum tells which it holds.

Time runs to the right. Each line is one moment: that of its last event.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.docs.worked import Example, Record, at_once, parse, time_ms
from udfs.core.plan.features import windowed_features

INSIDE, OUTSIDE, OWN, OWN_OUTSIDE, NOTHING = "●", "○", "◆", "◇", "·"
LEGEND = (
    f"{INSIDE} in the window   {OUTSIDE} not in it   {NOTHING} no event\n"
    f"{OWN} the event itself, in   {OWN_OUTSIDE} not in"
)
STEP_MS, HOUR_MS, MARGIN = 300_000, 3_600_000, 8


@dataclass(frozen=True, slots=True)
class Timeline:
    """A window, and the events that it is shown on."""

    #: the group's keys beside `entity`, `of` and `take`
    group: dict[str, Any]
    #: times of events, such as `9:00 9:05`; a `!` behind one marks what the group's condition asks for
    events: str
    #: which of them are drawn
    moments: str


def drawn(timeline: Timeline, base: dict[str, Any]) -> str:
    """Return the drawing: a ruler, a line that marks what a condition asks for, and a line per moment."""
    events = [(text.rstrip("!"), text.endswith("!")) for text in timeline.events.split()]
    table = "at user kind amount -> _\n" + "\n".join(
        f"{text} ann {'login' if is_marked else 'view'} {2**i}" for i, (text, is_marked) in enumerate(events)
    )
    group = {"entity": "user", "of": "amount", "take": ["sum"]} | timeline.group
    example = parse(base, {"features": [group]}, table)
    name = windowed_features(example.pipeline)[0].name
    outcomes = at_once(Example(example.pipeline, example.records, (name,), ()), digits=20)
    places = [_place(one) for one in example.records]
    start = min(places) // _places(HOUR_MS) * _places(HOUR_MS)
    lines = [_ruler(start, max(places) + 1)]
    if any(is_marked for _, is_marked in events):
        marks = {place: "▼" for place, (_, is_marked) in zip(places, events, strict=True) if is_marked}
        lines.append(" " * MARGIN + _line(marks, start, " "))
    for moment in timeline.moments.split():
        now = [text for text, _ in events].index(moment)
        (value,) = outcomes[now]
        held = 0 if value == "null" else int(float(value))
        lines.append(moment.rjust(MARGIN - 2) + "  " + _line(_signs(places[: now + 1], held), start, NOTHING))
    return "\n".join(lines)


def _signs(places: Sequence[int], held: int) -> dict[int, str]:
    signs = {place: INSIDE if held >> i & 1 else OUTSIDE for i, place in enumerate(places)}
    signs[places[-1]] = OWN if held >> (len(places) - 1) & 1 else OWN_OUTSIDE
    return signs


def _line(signs: dict[int, str], start: int, nothing: str) -> str:
    return "".join(signs.get(place, nothing) for place in range(start, max(signs) + 1))


def _ruler(start: int, end: int) -> str:
    hours = range(start, end + 1, _places(HOUR_MS))
    labels = [f"{place * STEP_MS // HOUR_MS % 24}:00".ljust(_places(HOUR_MS)) for place in hours]
    return (" " * MARGIN + "".join(labels)).rstrip()


def _places(length_ms: int) -> int:
    return length_ms // STEP_MS


def _place(record: Record) -> int:
    return (record.timestamp_ms - time_ms("0:00")) // STEP_MS
