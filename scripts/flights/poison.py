"""Spoil a stream of departures: bad and late records at seeded places, and a ledger of what was put in.

The departures that were there stay, in their order.
"""

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import msgspec
import numpy as np

from scripts.flights.poison_kinds import KINDS, Fields
from scripts.flights.stream import Event, Events
from udfs.core.errors import HeadraceError, did_you_mean

LATE = "late"
HOUR_MS = 3_600_000
_MARGIN_MS = 60_000
_LATER_EVENTS = (50, 500)  # how far behind the departure that makes it late a late record is put
_CANCELLED = b'"departed_at_ms":null'


class PoisonError(HeadraceError):
    """The stream cannot be spoiled as asked."""


@dataclass(frozen=True, slots=True)
class Poison:
    """One record that was put in."""

    #: A key of `KINDS`, or `late`.
    kind: str
    #: Reject reasons that are right, the usual one first; `late` belongs on the late output.
    reasons: tuple[str, ...]
    #: The record as sent.
    event: Event
    #: Index in the spoiled stream.
    position: int
    #: `flight_id` that only this record has, where the value is an object that has one.
    flight_id: str | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """All records that were put in, in their order in the stream.

    Cancelled flights that the stream had before are rejected as `null_field` too; they are not in here.
    """

    entries: tuple[Poison, ...]

    @property
    def expected(self) -> dict[str, int]:
        """Records per usual reason; a kind with several right reasons counts under its first."""
        return dict(Counter(entry.reasons[0] for entry in self.entries))

    @property
    def ids(self) -> dict[str, Poison]:
        """Return the poison that has an id, by it."""
        return {entry.flight_id: entry for entry in self.entries if entry.flight_id is not None}

    def reasons_of(self, key: bytes | None, value: bytes | None) -> tuple[str, ...]:
        """Return the right reasons of a record by its bytes; nothing when it is no poison."""
        return next(
            (entry.reasons for entry in self.entries if (entry.event.key, entry.event.value) == (key, value)), ()
        )


def poisoned(
    events: Events,
    seed: int,
    *,
    now_ms: int,
    each: int = 5,
    late: int = 25,
    allowed_lateness_ms: int = HOUR_MS,
    kinds: Collection[str] = tuple(KINDS),
) -> tuple[Events, Ledger]:
    """Put bad and late records into a stream of departures.

    Parameters
    ----------
    events : departures in order of time; at least a few hundred, a day has about 900.
    seed : decides the places and the departures the records are made from; same seed, same stream.
    now_ms : epoch milliseconds; records of kind `future` depart ten years after it.
    each : records per kind.
    late : late records. Each is an earlier departure of an aircraft under a new id, put behind a departure of the same
        aircraft that is newer by more than the allowed lateness.
    allowed_lateness_ms : as the pipeline declares it.
    kinds : which of `KINDS` to use.

    Returns
    -------
    The spoiled stream, still in order of `times_ms` (poison takes the time of its neighbour), and its ledger.

    Raises
    ------
    PoisonError : an unknown kind, or too few departures.

    Examples
    --------
    >>> import datetime as dt
    >>> from scripts.flights.events import departures
    >>> day = departures(dt.date(2013, 11, 5), dt.date(2013, 11, 5))
    >>> spoiled, ledger = poisoned(day, seed=1, now_ms=1_700_000_000_000, each=2, late=3, kinds=["nan", "truncated"])
    >>> len(spoiled) - len(day), ledger.expected == {"not_finite": 2, "malformed": 2, "late": 3}
    (7, True)
    """
    for kind in kinds:
        if kind not in KINDS:
            msg = f"no kind of poison is named {kind!r}{did_you_mean(kind, KINDS)}"
            raise PoisonError(msg)
    departed = [i for i, value in enumerate(events.values) if events.keys[i] and value and _CANCELLED not in value]
    if not departed:
        msg = f"got {len(events)} events and no departure of a known aircraft among them; poison is made from those"
        raise PoisonError(msg)
    chance = random.Random(seed)
    drafts = _bad(events, departed, chance, now_ms, [kind for kind in kinds for _ in range(each)])
    drafts += _late(events, departed, chance, late, allowed_lateness_ms)
    return _splice(events, drafts)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A record and the index of the event it goes before."""

    before: int
    kind: str
    reasons: tuple[str, ...]
    key: bytes | None
    value: bytes | None
    flight_id: str


def _bad(events: Events, departed: list[int], chance: random.Random, now_ms: int, kinds: list[str]) -> list[_Draft]:
    drafts = []
    for serial, name in enumerate(kinds):
        flight_id = f"poison-{name}-{serial:04}"
        fields: Fields = {**_fields(events, chance.choice(departed)), "flight_id": flight_id}
        kind = KINDS[name]
        key, value = kind.make(fields, serial, now_ms)
        drafts.append(_Draft(chance.randrange(1, len(events) + 1), name, kind.reasons, key, value, flight_id))
    return drafts


def _late(
    events: Events, departed: list[int], chance: random.Random, count: int, allowed_lateness_ms: int
) -> list[_Draft]:
    """Make late records; those of cancelled flights do not move an aircraft's newest departure."""
    flown: dict[bytes, list[int]] = {}
    for i in departed:
        flown.setdefault(events.keys[i] or b"", []).append(i)
    too_old_ms = allowed_lateness_ms + _MARGIN_MS
    times_ms = events.times_ms.tolist()
    able = [places for places in flown.values() if times_ms[places[-1]] - times_ms[places[0]] > too_old_ms]
    if count and not able:
        msg = f"no aircraft departs twice within these {len(events)} events, {too_old_ms} ms apart; ask for more days"
        raise PoisonError(msg)
    drafts = []
    for serial in range(count):
        places = chance.choice(able)
        old = chance.choice([i for i in places if times_ms[places[-1]] - times_ms[i] > too_old_ms])
        newer = chance.choice([i for i in places if times_ms[i] - times_ms[old] > too_old_ms])
        before = min(newer + chance.randint(*_LATER_EVENTS), len(events))
        flight_id = f"poison-late-{serial:04}"
        value = msgspec.json.encode({**_fields(events, old), "flight_id": flight_id})
        drafts.append(_Draft(before, LATE, (LATE,), events.keys[old], value, flight_id))
    return drafts


def _fields(events: Events, position: int) -> Fields:
    return msgspec.json.decode(events.values[position] or b"{}", type=dict)


def _splice(events: Events, drafts: list[_Draft]) -> tuple[Events, Ledger]:
    ordered = sorted(drafts, key=lambda draft: draft.before)
    topics, keys, values = list(events.topics), list(events.keys), list(events.values)
    times_ms = events.times_ms.tolist()
    for draft in reversed(ordered):  # from the end, so that the indices before it still hold
        topics.insert(draft.before, events.topics[0])
        keys.insert(draft.before, draft.key)
        values.insert(draft.before, draft.value)
        times_ms.insert(draft.before, int(events.times_ms[draft.before - 1]))
    spoiled = Events(topics, keys, values, np.array(times_ms, np.int64))
    entries = []
    for earlier, draft in enumerate(ordered):
        position = draft.before + earlier
        event = Event(topics[position], draft.key, draft.value, times_ms[position])
        has_id = draft.value is not None and f'"flight_id":"{draft.flight_id}"'.encode() in draft.value
        entries.append(Poison(draft.kind, draft.reasons, event, position, draft.flight_id if has_id else None))
    return spoiled, Ledger(tuple(entries))
