"""A slow oracle of windowed features, in plain Python: it keeps every event and makes each window from all of them.

It shares no code with the engine; groups of features are given as YAML would give them.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tests.slow_aggregations import SLOW, Event, Given
from udfs.core.declare.durations import parse_duration_ms

EPOCH, DAY_MS = datetime(1970, 1, 1, tzinfo=UTC), 86_400_000
MONDAY_MS = 4 * DAY_MS  # 5 January 1970
BEFORE_EVENT = ("lag", "delta", "time_since_last")
Row = dict[str, Any]


class Life:
    """What a key has seen since it was born, or born again."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        #: condition -> the sessions that it cut: (start, events)
        self.sessions: dict[str, list[tuple[int, list[Event]]]] = {}

    @property
    def newest_ms(self) -> float:
        return max((event.time_ms for event in self.events), default=-math.inf)


class Keys:
    """The lives of the keys of one stream in one lane."""

    def __init__(self, lateness_ms: int, horizon_ms: int) -> None:
        self.lateness_ms, self.horizon_ms = lateness_ms, horizon_ms
        self._lives: dict[str, Life] = {}
        self._clock_ms = -math.inf

    def find(self, key: str) -> Life:
        """Return the life of a key, an empty one if it is unknown or forgotten."""
        life = self._lives.get(key, Life())
        return Life() if self._clock_ms - life.newest_ms > self.horizon_ms else life

    def admit(self, key: str, time_ms: int) -> Life | None:
        """Return the life that an event belongs to, None if it is late; the lane's clock moves."""
        life = self._lives[key] = self.find(key)
        limit_ms = time_ms if self._clock_ms == -math.inf else self._clock_ms + self.horizon_ms // 2
        self._clock_ms = max(self._clock_ms, min(time_ms, limit_ms))
        return None if time_ms < life.newest_ms - self.lateness_ms else life


class Asked(NamedTuple):
    """For what a feature is: the life of a key as of a time, and the event, if it is one of that life."""

    keys: Keys
    life: Life
    now_ms: int
    own: Event | None
    #: condition -> whether a row meets it
    conditions: Mapping[str, Callable[[Row], bool]]

    def enter(self, cuts: Sequence[str] = ()) -> None:
        """Let the event enter the life; `cuts` are the conditions that cut sessions."""
        assert self.own is not None
        for condition in cuts:
            session = open_session(condition, self)
            if session is None:
                session = (self.now_ms, [])
                self.life.sessions.setdefault(condition, []).append(session)
            session[1].append(self.own)
        self.life.events.append(self.own)


def features(groups: Sequence[Row], asked: Asked) -> list[Any]:
    """Return the features of some groups, in the order of declaration."""
    found: list[Any] = []
    windows: dict[str, list[Event]] = {}
    for group in groups:
        for declared in group["over"]:
            window = long(declared)
            for take in group["take"]:
                name, argument = next(iter(take.items())) if isinstance(take, dict) else (take, None)
                includes = group.get("include_event", True) and name not in BEFORE_EVENT
                kind = f"{window} {group.get('slide')} {includes}"
                if kind not in windows:
                    windows[kind] = sorted(window_of(window, group.get("slide"), includes, asked))
                found += taken(group, window, name, argument, windows[kind], asked)
    return found


def long(window: Row | str) -> Row:
    if isinstance(window, str):
        return {"lifetime": True} if window == "lifetime" else {"sliding": window}
    return window


def taken(group: Row, window: Row, name: str, argument: Any, inside: Sequence[Event], asked: Asked) -> list[Any]:
    """Return the outputs of one aggregation over the events of one window."""
    size = window.get("sliding") or window.get("tumbling")

    def value_of(event: Event | None) -> Any:
        if event is None or ("where" in group and not asked.conditions[group["where"]](event.row)):
            return None
        if name == "ratio":
            return float(asked.conditions[argument](event.row))
        return 1.0 if group.get("of") is None else event.row[group["of"]]

    def outputs(bucket: str | None) -> list[Any]:
        mine = inside if bucket is None else [one for one in inside if one.row[group["by"]] == bucket]
        events = [one for one in mine if value_of(one) is not None]
        values = [value_of(one) for one in events]
        size_ms = parse_duration_ms(size) if size else 0
        return SLOW[name](Given(events, values, argument, value_of(asked.own), asked.now_ms, size_ms))

    if "by" not in group:
        return outputs(None)
    buckets = sorted({one.row[group["by"]] for one in inside if value_of(one) is not None} - {None})
    of_each = [(bucket, outputs(bucket)) for bucket in buckets]
    return [[(bucket, values[part]) for bucket, values in of_each] for part in range(len(outputs("")))]


def window_of(window: Row, slide: str | None, includes: bool, asked: Asked) -> Iterator[Event]:
    """Yield the events of a window, in any order."""
    own = [asked.own] if asked.own is not None and includes else []
    match window:
        case {"lifetime": True}:
            yield from [*asked.life.events, *own]
        case {"sliding": size}:
            slide_ms = parse_duration_ms(slide) if slide else about_a_fiftieth_ms(size)
            tiles = parse_duration_ms(size) // slide_ms
            delay = parse_duration_ms(window["delay"]) // slide_ms if "delay" in window else 0
            last = tile(asked.now_ms, slide_ms) - (delay + 1 if delay else 0)
            first = max(tile(asked.now_ms, slide_ms), nearest_tile(asked, slide_ms)) - delay - tiles
            yield from (one for one in [*asked.life.events, *own] if first <= tile(one.time_ms, slide_ms) <= last)
        case {"tumbling": size}:
            size_ms = parse_duration_ms(size)
            if tile(asked.now_ms, size_ms) >= nearest_tile(asked, size_ms):
                start_ms = calendar_start_ms(asked.now_ms, size_ms)
                yield from (one for one in [*asked.life.events, *own] if 0 <= one.time_ms - start_ms < size_ms)
        case {"session": gap}:
            yield from [*sessions_near(parse_duration_ms(gap), asked), *own]
        case {"session_from": condition}:
            session = None if is_from_afar(condition, asked) else open_session(condition, asked)
            yield from [*(session[1] if session else []), *own]
        case {"last": count}:
            remembered = sorted(asked.life.events)[-count:]
            before = [one for one in remembered if one.time_ms <= asked.now_ms]
            yield from [*before[max(len(before) + len(own) - count, 0) :], *own]


def about_a_fiftieth_ms(size: str) -> int:
    return {"10s": 200}[size]


def tile(time_ms: int, width_ms: int) -> int:
    """Return which of the tiles of that width since a Monday a time falls into."""
    return (time_ms - MONDAY_MS) // width_ms


def nearest_tile(asked: Asked, width_ms: int) -> float:
    """Return the tile from which an event would look that is as late as can be; no window reaches back farther."""
    newest_ms = asked.life.newest_ms
    if newest_ms == -math.inf:
        return -math.inf
    return tile(int(newest_ms), width_ms) - asked.keys.lateness_ms // width_ms - 1


def calendar_start_ms(now_ms: int, size_ms: int) -> int:
    """Return where the week from Monday, the day, or the part of a day began, by the calendar of UTC."""
    now = EPOCH + timedelta(milliseconds=now_ms)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if size_ms == 7 * DAY_MS:
        start -= timedelta(days=start.weekday())
    elif size_ms < DAY_MS:
        start += (now - start) // timedelta(milliseconds=size_ms) * timedelta(milliseconds=size_ms)
    return (start - EPOCH) // timedelta(milliseconds=1)


def sessions_near(gap_ms: int, asked: Asked) -> list[Event]:
    """Return the events of the session, or of the two, that an event of now belongs to or would join."""
    sessions: list[list[Event]] = []
    for event in sorted(asked.life.events):
        if not sessions or event.time_ms - sessions[-1][-1].time_ms > gap_ms:
            sessions.append([])
        sessions[-1].append(event)
    ended_ms = asked.life.newest_ms - asked.keys.lateness_ms - gap_ms
    return [
        event
        for one in sessions
        if one[-1].time_ms >= ended_ms and one[0].time_ms - gap_ms <= asked.now_ms <= one[-1].time_ms + gap_ms
        for event in one
    ]


def open_session(condition: str, asked: Asked) -> tuple[int, list[Event]] | None:
    """Return the session that is open at a time, None if an event of now starts one."""
    started = [one for one in asked.life.sessions.get(condition, []) if one[0] <= asked.now_ms]
    found = max(started, key=lambda one: one[0], default=None)
    own_starts = asked.own is not None and asked.conditions[condition](asked.own.row)
    if found is None or (own_starts and found[0] < asked.now_ms):
        return None
    is_idle = asked.now_ms - max(event.time_ms for event in found[1]) > asked.keys.horizon_ms
    return None if is_idle else found


def is_from_afar(condition: str, asked: Asked) -> bool:
    """Return whether a row looks from so far behind that what was open then may be forgotten."""
    newest = max(asked.life.sessions.get(condition, []), key=lambda one: one[0], default=None)
    newest_ms = max(event.time_ms for event in newest[1]) if newest else -math.inf
    return asked.now_ms < newest_ms - asked.keys.lateness_ms
