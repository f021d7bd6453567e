"""Throughput, latency, quality and the report of the demo, on made-up records."""

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from models.evaluation import evaluate
from scripts.demo.accounting import PREDICTION, Outcome, Sent, account
from scripts.demo.check import Checks
from scripts.demo.outputs import OutputError, Prediction, letter_of, observed_of, prediction_of
from scripts.demo.quality import Quality, differing_scores, judge, score_again
from scripts.demo.report import Report, as_json, failures
from scripts.demo.screen import show
from scripts.demo.timing import measure, percentiles_ms, throughput_eps
from scripts.kafka.consume import Record
from udfs.core.declare.declarations import Label
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.scorer import F32, Scorer
from udfs.core.offline.parity import Observed, Origin, ParityReport
from udfs.core.rows.letters import Letter, headers

KEYS = [
    "events", "predictions", "rejects", "late", "duplicates", "missing", "throughput_eps", "latency_ms_p50",
    "latency_ms_p99", "auc", "auc_baseline", "parity_rows", "parity_mismatches", "details",
]  # fmt: skip


def prediction(offset: int, taken_ms: int, out_ms: int, score: float = 0.5) -> Prediction:
    features = {"a": score, "b": None}
    return Prediction(
        Origin("t", 0, offset), taken_ms, out_ms, f"e{offset}", score, features, {"k": (0, offset)}, b"{}"
    )


class FirstColumn(Scorer):
    """Scores with the first input."""

    def __init__(self) -> None:
        self.contract = ModelContract(
            name="m",
            files={},
            pipeline="p",
            feature_set="f",
            tensors=[Tensor("x", "float32", ["a", "b"])],
            output=Output("y", "probability"),
        )

    def score(self, matrix: Any, options: Any = None) -> F32:
        assert options is None
        assert np.isnan(matrix[:, 1]).all()
        found: F32 = matrix[:, 0]
        return found


def test_throughput_is_of_the_backlog_and_latency_of_what_came_after() -> None:
    backlog = [prediction(i, 1_000 + i, 2_000 + 10 * i) for i in range(101)]  # the last one is out at 3000
    paced = [prediction(200 + i, 10_000 + i, 10_000 + 2 * i) for i in range(1, 101)]  # latency 1 to 100
    timing = measure([*paced, *backlog], backlog_visible_ms=1_990, paced_from_offset=200)
    assert timing.throughput_eps == pytest.approx(101 / 2.0)
    assert timing.catch_up_eps == pytest.approx(101 / 1.010)
    assert (timing.throughput_rows, timing.latency_rows) == (101, 100)
    assert timing.latency_ms == {50: 51.0, 90: 91.0, 99: 100.0, 99.9: 100.0}


def test_speed_of_nothing_is_zero() -> None:
    nothing = np.zeros(0, np.int64)
    assert throughput_eps(0, nothing) == 0.0
    assert throughput_eps(5, np.array([5])) == 1000.0
    assert percentiles_ms(nothing)[99] == 0.0


def test_a_prediction_is_read_with_its_evidence() -> None:
    value = b"""{"event_id":"e","event_time_ms":1,"score":0.25,"model":{"name":"m","version":"1","sha256":"x"},
        "arm":"champion","feature_set":"f","origin":{"topic":"t","partition":0,"offset":3,"timestamp_ms":70},
        "order":{"k":[0,9]},"features":{"a":1.5,"b":null}}"""
    found = prediction_of(Record("out", 0, 0, 90, b"e", value, ()))
    assert (found.origin, found.input_appended_ms, found.appended_ms) == (Origin("t", 0, 3), 70, 90)
    assert (found.score, found.features, found.order) == (0.25, {"a": 1.5, "b": None}, {"k": (0, 9)})
    with pytest.raises(OutputError, match="out at offset 0: no prediction"):
        prediction_of(Record("out", 0, 0, 90, b"e", b'{"event_id":"e"}', ()))


def test_a_letter_is_read_by_the_headers_that_the_job_writes() -> None:
    sent = Letter("rejects", "t", 0, 3, 70, "score", "score_failed", "", '{"k":[0,9]}', b"k", None)
    record = Record("rejected", 0, 5, 90, sent.key, sent.value, tuple(headers(sent).items()))
    found = letter_of(record)
    assert (found.topic, found.origin, found.reason, found.order) == (
        "rejected",
        Origin("t", 0, 3),
        "score_failed",
        {"k": (0, 9)},
    )
    assert observed_of([prediction(4, 0, 0)], [found, replace(found, origin=Origin("t", 0, 6), order={})]) == {
        Origin("t", 0, 3): Observed({"k": (0, 9)}, None),
        Origin("t", 0, 4): Observed({"k": (0, 4)}, {"a": 0.5, "b": None}),
    }
    with pytest.raises(OutputError, match="rejected at offset 5: headers are no letter's"):
        letter_of(replace(record, headers=()))


def test_quality_joins_labels_by_id_and_leaves_out_those_without() -> None:
    label = Label.model_validate(
        {
            "topic": "l",
            "of": "delay",
            "above": 15,
            "contract": {"id": "id", "time": "t", "fields": {"id": "string", "t": "int64", "delay": "float64?"}},
        }
    )
    predictions = [prediction(i, 0, 0, score) for i, score in enumerate([0.1, 0.9, 0.8, 0.3, 0.7])]
    delays = {"e0": 15.0, "e1": 15.5, "e2": 99.0, "e3": -3.0, "e4": None, "stranger": 20.0}
    labels = [msgspec.json.encode({"id": name, "t": 1, "delay": delay}) for name, delay in delays.items()]
    found = judge(predictions, labels, label, FirstColumn())
    assert (found.model.rows, found.model.auc) == (4, 1.0)
    assert found.baseline.auc == found.model.auc


def test_a_score_that_the_model_does_not_give_is_found() -> None:
    exact = [float(np.float32(value)) for value in (0.1, 0.7)]
    predictions = [prediction(i, 0, 0, score) for i, score in enumerate(exact)]
    assert score_again(predictions, FirstColumn()).tolist() == exact
    assert differing_scores(predictions, FirstColumn()) == 0
    off = replace(predictions[0], score=float(np.nextafter(np.float32(exact[0]), np.float32(1))))
    assert differing_scores([off, predictions[1]], FirstColumn()) == 1
    assert differing_scores([], FirstColumn()) == 0


@pytest.fixture
def report() -> Report:
    origin = Origin("t", 0, 0)
    books = account([Sent(origin, (PREDICTION,), None, b"{}")], [Outcome(origin, PREDICTION)])
    scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    quality = evaluate(scores, positive)
    return Report(
        Checks(books, 0, ParityReport(rows=1), 0),
        measure([prediction(0, 5, 9), prediction(1, 5, 12)], 7, 1),
        Quality(quality, quality),
        weather=3,
        labels=4,
        rate_eps=600.0,
        model="m version 1",
        sample=b'{"event_id":"e","features":{"a":1.5,"b":null}}',
        row_key="p:origin:{JFK}",
        row={"a": "1.5", "b": ""},
        pages={"Flink": "http://127.0.0.1:1"},
        submitted="flink run",
        cores=2,
        load_average_1min=1.5,
        wall_s=1.25,
        steps_s={"train": 0.55},
    )


def test_the_report_has_exactly_its_keys_and_is_json(report: Report) -> None:
    numbers = json.loads(json.dumps(as_json(report)))
    assert list(numbers) == KEYS
    assert all(isinstance(numbers[key], int | float) for key in KEYS[:-1])
    assert numbers["events"] == numbers["predictions"] + numbers["rejects"] + numbers["late"] == 1
    assert (numbers["throughput_eps"], numbers["latency_ms_p99"], numbers["auc"]) == (250.0, 7.0, 0.75)
    assert numbers["details"]["catch_up_eps"] == 500.0
    assert numbers["details"]["failures"] == failures(report) == []


def test_each_thing_that_must_not_be_is_said(report: Report) -> None:
    checks, books = report.checks, report.checks.accounting
    for wrong, sentence in (
        (replace(books, duplicates=2), "more than one outcome"),
        (replace(books, missing=2), "no outcome"),
        (replace(books, strangers=2), "no event that was sent"),
        (replace(books, misjudged=2), "otherwise than expected"),
        (replace(books, altered=2), "bytes that were sent"),
    ):
        [said] = failures(replace(report, checks=replace(checks, accounting=wrong)))
        assert said.startswith("2 ")
        assert sentence in said
    worse = replace(report, checks=replace(checks, parity=ParityReport(rows=0), score_mismatches=1), row={})
    assert len(failures(worse)) == 3


@pytest.mark.parametrize("width", [80, 160])
def test_the_screen_shows_the_report_and_what_is_wrong(report: Report, width: int) -> None:
    text = StringIO()
    show(report, Console(file=text, width=width))
    for word in ("events in", "throughput", "AUC", '"b": null', "b=(null)", "bit-equal"):
        assert word in text.getvalue()
    wrong = replace(report, checks=replace(report.checks, score_mismatches=7))
    show(wrong, Console(file=text, width=width))
    assert "7 scores differ" in text.getvalue()
