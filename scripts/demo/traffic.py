"""The events of a demo: departures with poison among them, cut in two parts, weather before and arrivals after them."""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from scripts.demo.accounting import PREDICTION, Sent
from scripts.demo.settings import Settings
from scripts.flights import events
from scripts.flights.poison import Ledger, poisoned
from scripts.flights.stream import Events
from udfs.core.offline.parity import Origin

_CANCELLED = b'"departed_at_ms":null'
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent, in this order: weather, backlog, paced departures, arrivals."""

    weather: Events
    backlog: Events
    paced: Events
    arrivals: Events
    #: departures and poison as they will stand in their topic, which has one partition and was empty
    sent: list[Sent]


def traffic(settings: Settings, now_ms: int) -> Traffic:
    """Load the days and put poison in.

    Parameters
    ----------
    now_ms : epoch milliseconds; some poison departs ten years after it
    """
    departures, ledger = poisoned(
        events.departures(settings.start, settings.end),
        settings.seed,
        now_ms=now_ms,
        each=settings.poison_each,
        late=settings.poison_late,
    )
    # Cut by time of departure: a flight that left after midnight would be late behind those of the morning.
    midnight = dt.datetime.combine(settings.paced_from, dt.time(), ZoneInfo("America/New_York"))
    cut = int(np.searchsorted(departures.times_ms, int(midnight.timestamp() * 1000)))
    places = np.arange(len(departures))
    return Traffic(
        # The first departures look for weather of the hours before them.
        events.weather(settings.start - _DAY, settings.end),
        departures.take(places[:cut]),
        departures.take(places[cut:]),
        events.arrivals(settings.start, settings.end),
        expectations(departures, ledger, cut),
    )


def expectations(departures: Events, ledger: Ledger, backlog: int) -> list[Sent]:
    """Say what is to come of each: poison by its ledger, cancelled flights are rejected, other departures scored.

    Parameters
    ----------
    backlog : this many come in one transaction, whose end mark takes up an offset
    """
    poison = {entry.position: entry.reasons for entry in ledger.entries}
    sent = []
    for position, event in enumerate(departures):
        usual = ("null_field",) if event.value is not None and _CANCELLED in event.value else (PREDICTION,)
        origin = Origin(event.topic, 0, position + (position >= backlog))
        sent.append(Sent(origin, poison.get(position, usual), event.key, event.value))
    return sent
