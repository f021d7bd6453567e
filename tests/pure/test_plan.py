"""The plan says what the engine does: its sizes and times are held to the arrays and the log themselves."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flink_jobs.plan import print_plan
from udfs.core.cells.keyed import Layout, Track
from udfs.core.declare.loading import load_pipeline
from udfs.core.declare.model_reference import ModelReference
from udfs.core.plan.describe import CELL_BYTES, VALUE_BYTES, describe
from udfs.core.plan.features import feature_columns, feature_set_hash, plan_stages
from udfs.core.plan.report import PlanReport, Runtime
from udfs.core.rows.batches import RawBatch
from udfs.core.rows.ingest import Ingest
from udfs.core.stage.lane import Lane
from udfs.core.stage.stamps import stage_name

FLIGHTS = Path(__file__).parents[2] / "conf" / "flights"
RUNTIME = Runtime(10, 5, 1, 5_000, 2, 128, exactly_once=True, online_store=True, topic_prefix="")
HALF_HOUR_MS = 1_800_000
LONG_AGO_MS = 1_356_998_400_000


@pytest.fixture(scope="module")
def report() -> PlanReport:
    return describe(load_pipeline(FLIGHTS), FLIGHTS, RUNTIME)


def test_stages_and_features_are_those_of_the_engine(report: PlanReport) -> None:
    pipeline = load_pipeline(FLIGHTS)
    stages = plan_stages(pipeline)
    assert [stage.name for stage in report.stages] == [stage_name(stage) for stage in stages]
    assert [one.column for stage in report.stages for one in stage.features] == [
        feature.name for stage in stages for feature in stage.features
    ]
    assert report.inputs == feature_columns(pipeline)
    assert report.feature_set == feature_set_hash(pipeline, FLIGHTS)


def test_a_window_of_one_hour_by_minutes_folds_61_tiles(report: PlanReport) -> None:
    one = next(one for one in report.stages[1].features if one.column == "origin_dep_delay_min_mean_1h")
    assert (one.window_ms, one.slide_ms, one.tiles, one.aggregation) == (3_600_000, 60_000, 61, "mean")


@pytest.mark.parametrize("width", [1, 7])
def test_bytes_of_a_cell_are_those_of_the_arrays(width: int) -> None:
    track = Track(Layout("", 1, width))
    arrays = (track.older, track.owner, track.tile, track.free, track.irs)
    assert sum(array.nbytes for array in arrays) == track.owner.size * (CELL_BYTES + VALUE_BYTES * width)


def test_times_are_those_of_state_and_log(report: PlanReport) -> None:
    pipeline = load_pipeline(FLIGHTS)
    for planned, stage in zip(report.stages, plan_stages(pipeline), strict=True):
        lane = Lane(pipeline, stage, 0, {})
        times = [(planned.horizon_ms, planned.retention_ms), *((j.horizon_ms, j.retention_ms) for j in planned.joins)]
        assert times == [(store.cells.horizon_ms, store.log.retention_ms) for store in lane._stores.values()]
        layouts = [track.layout for store in lane._stores.values() for track in store.cells.tracks]
        sizes = [track.cell_bytes for track in planned.tracks] + [join.row_bytes for join in planned.joins]
        assert sizes == [CELL_BYTES + VALUE_BYTES * layout.width for layout in layouts]


def test_a_key_with_an_event_in_every_tile_holds_the_cells_it_says(report: PlanReport) -> None:
    pipeline = load_pipeline(FLIGHTS)
    lane = Lane(pipeline, plan_stages(pipeline)[0], 0, {})
    ingest = Ingest.of_source(pipeline, FLIGHTS)
    most = report.stages[0].tracks[0].cells_per_key_max
    most_seen = 0
    for number in range(most + 20):
        time_ms = LONG_AGO_MS + number * HALF_HOUR_MS
        lane.process(ingest.process(_departure(number, time_ms)))
        most_seen = max(most_seen, lane._stores[pipeline.source.topic].cells.tracks[0].live)
    assert most_seen <= most
    assert most_seen >= most - 1


def test_sinks_state_their_guarantees() -> None:
    pipeline = load_pipeline(FLIGHTS)
    report = describe(pipeline, FLIGHTS, replace(RUNTIME, topic_prefix="blue."))
    sinks = {sink.name: sink for sink in report.sinks}
    assert sinks["predictions"].target == "topic blue.flights.predictions"
    assert sinks["predictions"].guarantee == "exactly once, visible at checkpoint"
    assert "fenced" in sinks["online_store"].guarantee
    weaker = describe(pipeline, FLIGHTS, replace(RUNTIME, exactly_once=False, online_store=False))
    assert [sink.guarantee for sink in weaker.sinks] == ["at least once, visible at once"] * 4 + [
        "not written: the environment has no redis"
    ]


def test_lanes_are_spread_over_the_subtasks() -> None:
    four = load_pipeline(FLIGHTS).model_copy(update={"lanes": 4})
    lanes = describe(four, FLIGHTS, RUNTIME).lanes
    assert [lane.subtask for lane in lanes] == [0, 0, 1, 1]
    assert len({lane.key_group for lane in lanes}) == 4


def _departure(number: int, time_ms: int) -> RawBatch:
    event = {
        "flight_id": str(number),
        "scheduled_at_ms": time_ms,
        "departed_at_ms": time_ms,
        "sched_dep_hhmm": 1200,
        "dep_delay_min": 1.0,
        "carrier": "UA",
        "flight": 1,
        "tailnum": "N1",
        "origin": "EWR",
        "dest": "IAH",
        "distance_mi": 10.0,
    }
    return RawBatch("flights.departures", [json.dumps(event).encode()], [b"N1"], [0], [number], [time_ms])


def test_arms_are_shown_with_what_they_answer_and_the_routing_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = load_pipeline(FLIGHTS)
    plain = describe(pipeline, FLIGHTS, RUNTIME)
    assert [(arm.name, arm.model) for arm in plain.arms] == [("champion", "flights-arrival-delay@champion")]
    declared = pipeline.model.model_dump(mode="json", by_alias=True) | {
        "challengers": [{"name": "b", "model": "other", "weight": "20%"}],
        "canary": {"ramp": {"from": "2026-01-01T00:00:00Z", "every": "1d", "steps": ["1%", "25%"]}},
        "shadows": [{"name": "next"}],
        "rules": [{"when": 'carrier in ["UA", "AA"]', "arm": "b"}],
        "serving": {"fallback": ["previous_version", "reject"]},
    }
    armed = pipeline.model_copy(update={"model": ModelReference.model_validate(declared)})
    planned = describe(armed, FLIGHTS, RUNTIME)
    assert planned.routing_epoch == armed.model.routing_epoch("tailnum") != plain.routing_epoch
    assert planned.feature_set == plain.feature_set
    print_plan(planned)
    text = capsys.readouterr().out
    for said in (
        f"arms by tailnum, routing epoch {planned.routing_epoch}",
        "champion  flights-arrival-delay@champion: all that no other arm answers",
        'b  other@b: where carrier in ["UA", "AA"], 20% of the keys',
        "canary  flights-arrival-delay@canary: 1%, 25% of all keys, a step each 1d from 2026-01-01T00:00:00+00:00",
        "next  flights-arrival-delay@next: none; it scores all",
        "previous  flights-arrival-delay@previous: batches that an arm fails on",
        "a batch that a model fails on: previous_version, reject",
    ):
        assert said in text
