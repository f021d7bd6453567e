"""Features of real flights against an independent tool: DuckDB, by its own joins over the raw data of the package.

A few days of departures and weather go through the kernels in event-time order; SQL computes the same from the tables.
"""

from __future__ import annotations  # an annotation that holds a DuckDB type makes DuckDB complain at exit

import datetime as dt
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from scripts.flights import dataset, events
from udfs.core.declare.feature import Feature
from udfs.core.declare.loading import load_pipeline
from udfs.core.offline.featurize import featurize_offline
from udfs.core.plan.features import plan_stages
from udfs.core.rows.batches import RawBatch

FOLDER = Path(__file__).parents[2] / "conf" / "flights"
PIPELINE = load_pipeline(FOLDER)
FIRST, LAST = dt.date(2013, 12, 1), dt.date(2013, 12, 2)
FEATURES = [feature for stage in plan_stages(PIPELINE) for feature in stage.features]
FUNCTIONS = {"count": "count", "sum": "sum", "mean": "avg", "min": "min", "max": "max", "std": "stddev_samp"}

DEPARTED = """
CREATE TABLE departed AS
SELECT row_number() OVER (ORDER BY departed_at_ms, place) AS seq, * FROM (
  SELECT *, epoch_ms(time_hour) + minute * 60000 + CAST(dep_delay AS BIGINT) * 60000 AS departed_at_ms,
         dep_delay AS dep_delay_min, distance AS distance_mi, CAST(dep_delay > 15 AS DOUBLE) AS is_delayed_15
  FROM (SELECT row_number() OVER () AS place, * FROM flights) WHERE dep_delay IS NOT NULL)
"""


def raw_batches() -> Iterator[RawBatch]:
    """Departures and weather in event-time order, cut where the topic changes."""
    offset = 0
    merged = events.merged(FIRST, LAST)
    for topic, run in itertools.groupby(merged, key=lambda event: event.topic):
        sent = list(run)
        times = [event.time_ms for event in sent]
        offsets = list(range(offset, offset + len(sent)))
        offset += len(sent)
        if topic != events.ARRIVALS:
            keys, values = [event.key for event in sent], [event.value for event in sent]
            yield RawBatch(topic, values, keys, [0] * len(sent), offsets, times)


@pytest.fixture(scope="module")
def featurized() -> pa.Table:
    return featurize_offline(PIPELINE, FOLDER, raw_batches()).rows


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for name, table in (
            ("flights", dataset.flights(FIRST, LAST)),
            ("weather", dataset.weather(FIRST, LAST)),
            ("planes", dataset.planes()),
        ):
            connection.register(f"{name}_arrow", table)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_arrow")
        connection.execute(DEPARTED)
        yield connection


def column(database: duckdb.DuckDBPyConnection, query: str) -> list[float | None]:
    return [
        None if row[0] is None or math.isnan(row[0]) else float(row[0]) for row in database.execute(query).fetchall()
    ]


def assert_same(found: list[float | None], wanted: list[float | None]) -> None:
    assert len(found) == len(wanted) > 1500
    assert [one is None for one in found] == [one is None for one in wanted]
    assert [one for one in found if one is not None] == pytest.approx(
        [one for one in wanted if one is not None], rel=1e-9
    )


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_windowed_feature_is_what_sql_says(
    feature: Feature, featurized: pa.Table, database: duckdb.DuckDBPyConnection
) -> None:
    entity = feature.entity
    query = f"""
        SELECT {FUNCTIONS[feature.aggregation]}(held.{feature.of})
        FROM departed AS event JOIN departed AS held ON held.{entity} = event.{entity} AND held.seq <= event.seq
          AND held.departed_at_ms // {feature.slide_ms} BETWEEN
              event.departed_at_ms // {feature.slide_ms} - {feature.size_ms // feature.slide_ms}
              AND event.departed_at_ms // {feature.slide_ms}
        GROUP BY event.seq ORDER BY event.seq"""
    assert_same(featurized[feature.name].to_pylist(), column(database, query))


@pytest.mark.parametrize(("name", "field"), PIPELINE.enrichments[0].take.items())
def test_a_joined_column_is_what_sql_says(
    name: str, field: str, featurized: pa.Table, database: duckdb.DuckDBPyConnection
) -> None:
    max_age_ms = PIPELINE.enrichments[0].max_age_ms
    query = f"""
        SELECT CASE WHEN event.departed_at_ms - epoch_ms(seen.time_hour) <= {max_age_ms} THEN seen.{field} END
        FROM departed AS event ASOF LEFT JOIN weather AS seen
          ON seen.origin = event.origin AND make_timestamp(event.departed_at_ms * 1000) >= seen.time_hour
        ORDER BY event.seq"""
    assert_same(featurized[name].to_pylist(), column(database, query))


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("plane_age_years", "2013 - planes.year"),
        ("plane_seats", "planes.seats"),
        ("dep_hour", "sched_dep_time // 100"),
        ("dep_weekday", "isodow(make_date(departed.year, month, day)) - 1"),
        ("is_delayed_15", "CASE WHEN dep_delay > 15 THEN 1 ELSE 0 END"),
    ],
)
def test_a_stateless_column_is_what_sql_says(
    name: str, expression: str, featurized: pa.Table, database: duckdb.DuckDBPyConnection
) -> None:
    query = f"SELECT {expression} FROM departed LEFT JOIN planes USING (tailnum) ORDER BY seq"
    assert_same(featurized[name].to_pylist(), column(database, query))
