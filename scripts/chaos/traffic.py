"""What is sent, with the outcome that each record must have: payments of the load generator, and what is put in."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from scripts.demo.accounting import LATE, PREDICTION
from scripts.load import faults
from scripts.load.settings import Load
from scripts.load.stream import sample

_AMOUNT = b',"amount":'
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Event:
    """A record to be sent."""

    key: bytes | None
    value: bytes | None
    #: outcomes that are right, the usual one first
    expected: tuple[str, ...] = (PREDICTION,)
    partition: int = 0

    @property
    def event_id(self) -> str | None:
        """Of an event that may be scored; None for others."""
        if PREDICTION not in self.expected:
            return None
        return msgspec.json.decode(self.value or b"", type=_Id).payment_id


class _Id(msgspec.Struct):
    payment_id: str


def load_of(seed: int, **more: float) -> Load:
    """Return the load of a run: a few minutes of event time, histories of some tens of events per key."""
    return replace(Load(seed=seed, users=2_000, merchants=200, skew=0.5, event_rate=20.0), **more)  # type: ignore[arg-type]


def payments(load: Load, count: int) -> list[Event]:
    """Return the first records of a load; `duplicate` is right only where the pipeline looks at ids."""
    found = sample(load, count)
    expected = {faults.GOOD: (PREDICTION,), faults.DUPLICATE: ("duplicate",), faults.LATE: (LATE,)}
    return [
        Event(key, value, expected.get(kind) or (found.reasons[place],))
        for place, (key, value, kind) in enumerate(zip(found.keys, found.values, found.kinds.tolist(), strict=True))
    ]


def payment(name: str, at_ms: int, amount: str = "20.00", user: str = "", merchant: str = "") -> Event:
    """Return one hand-made payment; user and merchant are its own unless named."""
    user = user or name
    value = (
        f'{{"payment_id":"{name}","paid_at_ms":{at_ms},"user":"{user}","merchant":"{merchant or user}","device":"d1",'
        f'"known_device":1,"online":0,"amount":{amount}}}'
    )
    return Event(user.encode(), value.encode())


def conflicting(events: Sequence[Event]) -> list[Event]:
    """Give every third duplicate another amount than the event that it repeats."""
    found, seen = [], 0
    for one in events:
        seen += one.expected == ("duplicate",)
        if one.expected == ("duplicate",) and seen % 3 == 0:
            found.append(replace(one, value=_amount(one, b"98765.43"), expected=("conflict",)))
        else:
            found.append(one)
    return found


def hostile(events: Sequence[Event], seed: int, share: float) -> list[Event]:
    """Replace some good events by records that a contract must refuse, beyond those of the load generator."""
    chance, found, kinds = random.Random(f"hostile {seed}"), list(events), list(HOSTILE.items())
    good = [place for place, one in enumerate(found) if one.expected == (PREDICTION,)]
    for turn, place in enumerate(sorted(chance.sample(good, int(share * len(found))))):
        reason, make = kinds[turn % len(kinds)]
        found[place] = replace(make(found[place]), expected=(reason.partition(" ")[0],))
    return found


def scattered(events: Sequence[Event], groups: Sequence[Sequence[Event]], seed: int) -> list[Event]:
    """Put groups of events among others at seeded places; the events of a group keep their order."""
    chance, found = random.Random(f"scattered {seed}"), list(events)
    for group in groups:
        places = sorted(chance.sample(range(1, len(found)), len(group)))
        for shift, (place, one) in enumerate(zip(places, group, strict=True)):
            found.insert(place + shift, one)
    return found


def edges_of_lateness(start_ms: int, count: int) -> list[list[Event]]:
    """Return groups of a user of its own: one inside, one at and one past the allowed lateness of an hour."""
    groups = []
    for number in range(count):
        user, newest_ms = f"edge{number}", start_ms + number
        times = {"first": 0, "inside": 1 - HOUR_MS, "at": -HOUR_MS, "past": -1 - HOUR_MS, "last": 5}
        made = [payment(f"{user}-{name}", newest_ms + behind_ms, user=user) for name, behind_ms in times.items()]
        groups.append([replace(one, expected=(LATE,)) if b"-past" in (one.value or b"") else one for one in made])
    return groups


def _amount(one: Event, text: bytes) -> bytes:
    value = one.value or b""
    return value[: value.index(_AMOUNT)] + _AMOUNT + text + b"}"


def _more(one: Event, text: bytes) -> bytes:
    """Return the value with one more field."""
    return (one.value or b"")[:-1] + b',"x":' + text + b"}"


def _text(one: Event, name: bytes, text: bytes) -> bytes:
    """Return the value with another text in a field."""
    value, mark = one.value or b"", b'"' + name + b'":"'
    begin = value.index(mark) + len(mark)
    return value[:begin] + text + value[value.index(b'"', begin) :]


def _time(one: Event, number: bytes) -> bytes:
    value, mark = one.value or b"", b'"paid_at_ms":'
    begin = value.index(mark) + len(mark)
    return value[:begin] + number + value[value.index(b",", begin) :]


#: reason, with what tells two kinds of one reason apart -> what makes a good event so
HOSTILE: dict[str, Callable[[Event], Event]] = {
    "too_deep": lambda one: replace(one, value=_more(one, b"[" * 10_000 + b"]" * 10_000)),
    "out_of_range of int64": lambda one: replace(one, value=_time(one, b"9223372036854775808")),
    "not_finite Infinity": lambda one: replace(one, value=_amount(one, b"Infinity")),
    "out_of_range of float64": lambda one: replace(one, value=_amount(one, b"1e999")),
    "key_mismatch no key": lambda one: replace(one, key=None),
    "key_mismatch empty key": lambda one: replace(one, key=b""),
    "extra_field": lambda one: replace(one, value=_more(one, b"1")),
    "invalid_id": lambda one: replace(one, value=_text(one, b"payment_id", b"a\\u001eb")),
}
