"""Windows: which events of its entity a feature looks at, as declared under `over`."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, StrictInt, model_validator

from udfs.core.declare.conditions import Where
from udfs.core.declare.contract import Declared
from udfs.core.declare.durations import UNITS_MS, DurationMs, format_duration

Kind = Literal["sliding", "tumbling", "session", "session_from", "last", "lifetime"]
KINDS: tuple[Kind, ...] = ("sliding", "tumbling", "session", "session_from", "last", "lifetime")
MIN_TILES, MAX_TILES = 48, 20_000
MAX_LAST = 1_000
# Widths of tiles that divide the usual window sizes; the widest that cuts a window into MIN_TILES is taken.
SLIDES_MS = sorted(
    count * UNITS_MS[unit]
    for unit, counts in {
        "ms": (1, 2, 5, 10, 20, 50, 100, 200, 500),
        "s": (1, 2, 5, 10, 15, 30),
        "m": (1, 2, 5, 10, 15, 30),
        "h": (1, 2, 3, 4, 6, 12),
        "d": (1,),
    }.items()
    for count in counts
)


class Window(Declared):
    """One window. `1h` is short for `{sliding: 1h}`, and `lifetime` for `{lifetime: true}`.

    Exactly one of the kinds is given; `delay` goes with `sliding` alone.

    A window holds events of the key's present life that came before in the lane's sequence, and the event itself unless
    `include_event: false`; a key that is idle too long begins a new life. Which of them:

    - `sliding`: those of the event's own tile and of the size / slide tiles before it; with a `delay`, of the size /
      slide tiles that are at least so old as a whole.
    - `tumbling`: those of the event's own tile. Tiles are counted from a Monday, 0:00 UTC: hours, days and weeks are
      those of the calendar.
    - `session`: those linked to the event by gaps of at most so long. A late event may join two sessions into one.
    - `session_from`: those of the newest session that began at or before the event. A session begins with an event that
      meets the condition, with one before all others, and with one after a pause that would let a key be forgotten;
      what was added to a session stays in it, also when an event that comes late begins another in between.
    - `last`: of the n newest events those not newer than the event, which is one of the n itself. Events that `where`
      leaves out are among them. Ties of time go to the later arrival.
    - `lifetime`: all of them.

    An event that is late, and one that reads another stream, sees its tile, session or lifetime as it is by then: also
    what is later in time than itself. What it reads is as of the allowed lateness (of a stream: its `keep`) at most.
    """

    sliding_ms: DurationMs | None = Field(
        None, alias="sliding", description="the last so long, in whole tiles of `slide`: between size and size + slide"
    )
    delay_ms: DurationMs | None = Field(
        None,
        alias="delay",
        description="ends so long before the event: the same hour a day ago",
    )
    tumbling_ms: DurationMs | None = Field(
        None, alias="tumbling", description="since the last calendar boundary, UTC; weeks start on Monday"
    )
    session_ms: DurationMs | None = Field(
        None, alias="session", description="events with gaps of at most so long between them"
    )
    session_from: Where | None = Field(None, description="since the last event that meets this condition")
    last: Annotated[StrictInt, Field(ge=1, le=MAX_LAST)] | None = Field(None, description="the last n events")
    lifetime: Literal[True] | None = Field(None, description="all events, as long as the key is not idle too long")

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [kind for kind in KINDS if self._of(kind) is not None]
        if len(given) != 1:
            got = f"got {', '.join(given)}" if given else "got none of them"
            msg = f"{got}; a window is one of {', '.join(KINDS)}, such as 1h or {{tumbling: 1d}}"
            raise ValueError(msg)
        if self.delay_ms is not None and self.sliding_ms is None:
            msg = f"delay goes with a sliding window; got {given[0]}; write {{sliding: 1h, delay: 1d}}"
            raise ValueError(msg)
        if 0 in (self.sliding_ms, self.tumbling_ms, self.session_ms):
            msg = f"got {given[0]}: 0ms; a window is at least 1ms long"
            raise ValueError(msg)
        return self

    @property
    def kind(self) -> Kind:
        """Which of the kinds it is."""
        return next(kind for kind in KINDS if self._of(kind) is not None)

    @property
    def size_ms(self) -> int:
        """Length of a sliding or tumbling window, gap of a session, 0 for the others."""
        return self.sliding_ms or self.tumbling_ms or self.session_ms or 0

    @property
    def suffix(self) -> str:
        """Last part of a feature's name: `1h`, `1h_delay_1d`, `tumbling_1d`, `session_30m`, `last_10`, `lifetime`."""
        if self.sliding_ms is not None:
            delay = f"_delay_{format_duration(self.delay_ms)}" if self.delay_ms else ""
            return format_duration(self.sliding_ms) + delay
        if self.last is not None:
            return f"last_{self.last}"
        return self.kind + (f"_{format_duration(self.size_ms)}" if self.size_ms else "")

    def slide_ms(self, declared_ms: int | None) -> int:
        """Return the width of the tiles of a sliding window: as declared, or fine enough for an edge of about 2 %."""
        if declared_ms is not None or self.sliding_ms is None:
            return declared_ms or 0
        fits = [s for s in SLIDES_MS if self.sliding_ms % s == 0 and (self.delay_ms or 0) % s == 0]
        return max((s for s in fits if self.sliding_ms // s >= MIN_TILES), default=fits[0])

    def check_slide(self, declared_ms: int | None) -> None:
        """Raise ValueError if a sliding window is no whole number of tiles, or of too many."""
        if self.sliding_ms is None:
            return
        slide_ms = self.slide_ms(declared_ms)
        slide = format_duration(slide_ms)
        if self.sliding_ms % slide_ms or (self.delay_ms or 0) % slide_ms:
            msg = f"over: got {self.suffix}; a window and its delay are whole multiples of its slide ({slide})"
            raise ValueError(msg)
        if self.sliding_ms // slide_ms > MAX_TILES:
            msg = (
                f"over: got {self.suffix} with a slide of {slide}; a window has at most {MAX_TILES} tiles: choose a "
                "wider slide, or none"
            )
            raise ValueError(msg)

    def _of(self, kind: Kind) -> object:
        return getattr(self, kind if kind in ("session_from", "last", "lifetime") else f"{kind}_ms")


def _expand(spec: object) -> object:
    """Turn the short forms into the long one."""
    if spec == "lifetime":
        return {"lifetime": True}
    return spec if isinstance(spec, dict | Window) else {"sliding": spec}


DeclaredWindow = Annotated[
    Window, BeforeValidator(_expand, json_schema_input_type=DurationMs | Literal["lifetime"] | Window)
]
"""Pydantic field type of a window in its short or long form."""
