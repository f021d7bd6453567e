"""Waiting joins, slowly: one row after the other, in dicts and lists; and streams that make events wait."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.samples import EVENTS, RATE_JOIN, SHOP_FEATURES, Sent, random_payments, rate, small_pipeline
from udfs.core.declare.declarations import Enrichment
from udfs.core.declare.definition import Pipeline

HOURS = "shop.hours"
HOURS_JOIN: dict[str, Any] = {
    "name": "hours",
    "topic": HOURS,
    "key": "shop",
    "entity": "shop",
    "max_age": "3s",
    "keep": "6s",
    "take": {"staff": "staff"},
    "contract": {"time": "from_ms", "fields": {"shop": "string?", "from_ms": "int64", "staff": "int64?"}},
}
LONG_AGO = -(10**15)


def waiting_pipeline(rates: dict[str, Any], hours: dict[str, Any] | None = None, **changes: Any) -> Pipeline:
    """Return a pipeline whose joins wait as given; no payment is late."""
    joins = [RATE_JOIN | rates, *([HOURS_JOIN | hours] if hours is not None else [])]
    time = {"allowed_lateness": "1d", "future_tolerance": "1d", "forget_idle_after": "0ms"}
    return small_pipeline(**({"enrichments": joins, "features": SHOP_FEATURES, "time": time} | changes))


def hours(shop: str | None, from_ms: int, staff: int | None) -> Sent:
    return Sent(HOURS, shop, {"shop": shop, "from_ms": from_ms, "staff": staff})


def with_streams(seed: int, count: int, step_ms: int = 300) -> list[Sent]:
    """Return payments with rates and hours that come before or after the payments they fit, or never."""
    chance = random.Random(seed)
    sent: list[tuple[float, Sent]] = []
    for place, one in enumerate(random_payments(seed, count, step_ms=step_ms)):
        sent.append((place, one))
        at_ms = one.row["at_ms"]
        for probability, make in ((0.5, rate), (0.4, hours)):
            if chance.random() < probability:
                shop, value = chance.choice(["s0", "s1", None]), chance.choice([None, chance.randrange(100)])
                time_ms = at_ms + chance.choice([0, -chance.randrange(4_000), chance.randrange(-9_000, 4_000)])
                sent.append((place + chance.uniform(-3, 8), make(shop, time_ms, value)))
    return [one for _, one in sorted(sent, key=lambda pair: pair[0])]


@dataclass
class Stream:
    """The rows of one enrichment that a lane has seen."""

    join: Enrichment
    clock_ms: int = LONG_AGO
    lives: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)

    def add(self, row: dict[str, Any]) -> None:
        shop, time_ms = row[self.join.key], row[self.join.contract.time]
        if shop is None:
            return
        life = self._life(shop)
        horizon_ms = self.join.keep_ms + self.join.max_age_ms
        if time_ms >= max(life, default=LONG_AGO) - self.join.keep_ms:
            self.lives[shop] = {**life, time_ms: row}
        ahead_ms = time_ms if self.clock_ms == LONG_AGO else self.clock_ms + horizon_ms // 2
        self.clock_ms = max(self.clock_ms, min(time_ms, ahead_ms))

    def look(self, shop: str | None, at_ms: int, max_age_ms: float) -> dict[str, Any] | None:
        life = self._life(shop or "")
        oldest_ms = max(max(life, default=LONG_AGO) - self.join.keep_ms, at_ms - max_age_ms)
        fitting = [time_ms for time_ms in life if oldest_ms <= time_ms <= at_ms]
        return life[max(fitting)] if fitting and shop is not None else None

    def _life(self, shop: str) -> dict[int, dict[str, Any]]:
        life = self.lives.get(shop, {})
        is_forgotten = self.clock_ms - max(life, default=LONG_AGO) > self.join.keep_ms + self.join.max_age_ms
        return {} if is_forgotten else life


@dataclass
class Event:
    """A payment on its way: per join the row, `None` for none, and how many rows had been seen."""

    sent: Sent
    seq: int
    since_ms: int | None
    settled: dict[str, tuple[dict[str, Any] | None, int, bool]] = field(default_factory=dict)


class SlowWaits:
    """One lane of the stage `shop`.

    Attributes
    ----------
    rows : id, joined columns and the numbers of rows seen, of the payments that went on
    rejects : id and the enrichment that was missing
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.streams = {join.topic: Stream(join) for join in pipeline.enrichments}
        self.waiting: list[Event] = []
        self.seen = 0
        self.rows: list[tuple[str, dict[str, float | None], dict[str, int]]] = []
        self.rejects: list[tuple[str, str]] = []

    def feed(self, sent: Sequence[Sent], now_ms: int | None = None) -> "SlowWaits":
        """Take a batch that comes at a processing time."""
        if now_ms is not None:
            self.expire(now_ms)
        for one in sent:
            self.seen += 1
            if one.topic == EVENTS:
                self._arrive(Event(one, self.seen - 1, now_ms))
            else:
                stream = self.streams[one.topic]
                stream.add(one.row)
                self._try_all(stream)
        return self

    def expire(self, now_ms: float = math.inf) -> "SlowWaits":
        """Give up what has waited long enough at a processing time."""
        for stream in self.streams.values():
            for event in self.waiting:
                due_ms = math.inf if event.since_ms is None else event.since_ms + stream.join.wait_ms
                if stream.join.name not in event.settled and due_ms <= now_ms:
                    self._give_up(stream, event, self.seen)
        self._release()
        return self

    def _arrive(self, event: Event) -> None:
        for stream in self.streams.values():
            join, row = stream.join, event.sent.row
            found = stream.look(row["shop"], row["at_ms"], join.max_age_ms)
            is_over = join.wait_ms == 0 or row["shop"] is None or stream.clock_ms > row["at_ms"] + join.wait_ms
            if found is not None:
                event.settled[join.name] = found, event.seq, False
            elif is_over:
                self._give_up(stream, event, event.seq)
        self.waiting.append(event)
        for stream in self.streams.values():
            asking = [one for one in self.waiting if stream.join.name not in one.settled]
            if len(asking) > stream.join.waiting_max:
                self._give_up(stream, asking[0], self.seen)
        self._release()

    def _try_all(self, stream: Stream) -> None:
        join = stream.join
        for event in self.waiting:
            row = event.sent.row
            if join.name in event.settled:
                continue
            found = stream.look(row["shop"], row["at_ms"], join.max_age_ms)
            if found is not None:
                event.settled[join.name] = found, self.seen, False
            elif stream.clock_ms > row["at_ms"] + join.wait_ms:
                self._give_up(stream, event, self.seen)
        self._release()

    def _give_up(self, stream: Stream, event: Event, seen: int) -> None:
        join, row = stream.join, event.sent.row
        found = stream.look(row["shop"], row["at_ms"], math.inf) if join.on_missing == "stale" else None
        if join.on_missing == "default":
            found = {old: (join.default or {})[new] for new, old in join.take.items()}
        event.settled[join.name] = found, seen, True

    def _release(self) -> None:
        for event in self.waiting:
            if len(event.settled) == len(self.streams):
                self._go_on(event)
        self.waiting = [event for event in self.waiting if len(event.settled) < len(self.streams)]

    def _go_on(self, event: Event) -> None:
        columns: dict[str, float | None] = {}
        for stream in self.streams.values():
            found, _, is_missing = event.settled[stream.join.name]
            if is_missing and stream.join.on_missing == "reject":
                self.rejects.append((event.sent.row["id"], stream.join.name))
                return
            for new, old in stream.join.take.items():
                value = None if found is None else found[old]
                columns[new] = None if value is None else float(value)
        until = {
            stream.join.name: event.settled[stream.join.name][1]
            for stream in self.streams.values()
            if stream.join.wait_ms
        }
        self.rows.append((event.sent.row["id"], columns, until))
