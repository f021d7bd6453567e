"""The three event streams of the flights pipeline, as its `pipeline.yaml` declares them; nothing is filtered.

Days are scheduled local days of New York, the first and the last included.
"""

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scripts.flights import dataset
from scripts.flights.arrival_times import MINUTE_MS, arrived_at_ms
from scripts.flights.stream import Events, merge, of_rows

DEPARTURES = "flights.departures"
WEATHER = "flights.weather"
ARRIVALS = "flights.arrivals"


def departures(start: dt.date, end: dt.date) -> Events:
    """One event per flight, keyed by aircraft, when it departs.

    A cancelled flight has null `departed_at_ms` and `dep_delay_min`, comes at its scheduled time, and where no aircraft
    was assigned has a null `tailnum` and a null key.

    Parameters
    ----------
    start, end : first and last day.

    Returns
    -------
    Events in order of departure; flights of the same minute as the data has them.

    Raises
    ------
    DatasetError : the data is not installed, or the days are not in 2013.

    Examples
    --------
    >>> day = departures(dt.date(2013, 11, 5), dt.date(2013, 11, 5))
    >>> len(day), day.keys[0], day.values[0][:42]
    (967, b'N156UW', b'{"flight_id":"2013-11-05-US-1895-EWR-0500"')
    """
    flights = dataset.flights(start, end)
    scheduled_ms = _scheduled_at_ms(flights)
    departed_ms = pc.add(pa.array(scheduled_ms), pc.multiply(flights["dep_delay"], MINUTE_MS))
    columns = {
        "flight_id": _flight_ids(flights),
        "scheduled_at_ms": scheduled_ms.tolist(),
        "departed_at_ms": departed_ms.to_pylist(),
        "sched_dep_hhmm": flights["sched_dep_time"].to_pylist(),
        "dep_delay_min": flights["dep_delay"].cast(pa.float64()).to_pylist(),
        **{name: flights[name].to_pylist() for name in ("carrier", "flight", "tailnum", "origin", "dest")},
        "distance_mi": flights["distance"].to_pylist(),
    }
    return of_rows(DEPARTURES, "tailnum", columns, pc.coalesce(departed_ms, pa.array(scheduled_ms)).to_numpy())


def weather(start: dt.date, end: dt.date) -> Events:
    """One event per origin and hour, keyed by origin; hours that the data lacks are lacking here.

    Examples
    --------
    >>> weather(dt.date(2013, 11, 5), dt.date(2013, 11, 5)).keys[:3]
    [b'EWR', b'JFK', b'LGA']
    """
    table = dataset.weather(start, end)
    observed_ms = _epoch_ms(table["time_hour"])
    columns = {
        "origin": table["origin"].to_pylist(),
        "observed_at_ms": observed_ms.tolist(),
        **{name: table[name].to_pylist() for name in dataset.MEASURES},
    }
    return of_rows(WEATHER, "origin", columns, observed_ms)


def arrivals(start: dt.date, end: dt.date) -> Events:
    """One event per departed flight, keyed by `flight_id`, when it arrives; null `arr_delay_min`: it was diverted.

    A cancelled flight has none. When a flight arrived is told by `arrival_times.arrived_at_ms`.

    Examples
    --------
    >>> arrivals(dt.date(2013, 1, 1), dt.date(2013, 1, 1)).values[0]
    b'{"flight_id":"2013-01-01-B6-1806-JFK-0559","arrived_at_ms":1357041720000,"arr_delay_min":-4.0}'
    """
    flights = dataset.flights(start, end)
    flights = flights.filter(flights["dep_delay"].is_valid())
    arrived_ms = arrived_at_ms(flights, _scheduled_at_ms(flights))
    columns = {
        "flight_id": _flight_ids(flights),
        "arrived_at_ms": arrived_ms.tolist(),
        "arr_delay_min": flights["arr_delay"].cast(pa.float64()).to_pylist(),
    }
    return of_rows(ARRIVALS, "flight_id", columns, arrived_ms)


def merged(start: dt.date, end: dt.date) -> Events:
    """Weather, departures and arrivals in order of event time; at equal times in this order.

    Examples
    --------
    >>> len(merged(dt.date(2013, 11, 5), dt.date(2013, 11, 5)))
    2000
    """
    return merge(weather(start, end), departures(start, end), arrivals(start, end))


def _scheduled_at_ms(flights: pa.Table) -> NDArray[np.int64]:
    minutes: NDArray[np.int64] = flights["minute"].to_numpy()
    return _epoch_ms(flights["time_hour"]) + minutes * MINUTE_MS


def _epoch_ms(times: pa.ChunkedArray) -> NDArray[np.int64]:
    epoch_ms: NDArray[np.int64] = times.cast(pa.int64()).to_numpy()
    return epoch_ms


def _flight_ids(flights: pa.Table) -> list[Any]:
    """Return ids such as `2013-11-05-UA-1545-EWR-0515`, unique over the year."""
    names = ("year", "month", "day", "carrier", "flight", "origin", "sched_dep_time")
    rows = zip(*(flights[name].to_pylist() for name in names), strict=True)
    return [f"{y}-{m:02}-{d:02}-{carrier}-{n}-{origin}-{hhmm:04}" for y, m, d, carrier, n, origin, hhmm in rows]
