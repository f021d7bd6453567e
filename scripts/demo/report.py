"""The report as data: the numbers of a demo, and what is wrong with them."""

from dataclasses import asdict, dataclass
from typing import Any

from scripts.demo.check import Checks
from scripts.demo.quality import Quality
from scripts.demo.timing import Timing


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a demo found out."""

    checks: Checks
    timing: Timing
    quality: Quality
    #: enrichment rows and labels sent beside the events
    weather: int
    labels: int
    rate_eps: float
    #: registered model name and version
    model: str
    #: one prediction, as it stands in its topic
    sample: bytes
    #: key of one row of the online store, and the row
    row_key: str
    row: dict[str, str]
    #: name -> address of what can be looked at
    pages: dict[str, str]
    #: the command that submitted the job
    submitted: str
    #: of the machine, at the end: numbers on a busy one say little
    cores: int
    load_average_1min: float
    wall_s: float
    steps_s: dict[str, float]


def failures(report: Report) -> list[str]:
    """Say in sentences what a right run would not show; nothing when all is well."""
    books, parity = report.checks.accounting, report.checks.parity
    found = [
        (books.duplicates, "events have more than one outcome"),
        (books.missing, "events have no outcome"),
        (books.strangers, "outcomes belong to no event that was sent"),
        (books.misjudged, "events were judged otherwise than expected"),
        (books.altered, "letters do not carry the bytes that were sent"),
        (report.checks.enrichment_letters, "weather records were rejected or late, and none was bad"),
        (parity.mismatches, "predictions have features that differ from those computed offline"),
        (abs(books.predictions - parity.rows - parity.missing), "predictions were not computed again offline"),
        (report.checks.score_mismatches, "scores differ from what the model gives for the features beside them"),
        (int(report.timing.latency_rows == 0), "part of the demo has no paced prediction, so no latency"),
        (int(not report.row), "row is missing in the online store"),
    ]
    return [f"{count:,} {text}" for count, text in found if count]


def as_json(report: Report) -> dict[str, Any]:
    """Return the numbers that count at the top, all others under `details`."""
    books, parity, timing, quality = (
        report.checks.accounting,
        report.checks.parity,
        report.timing,
        report.quality,
    )
    return {
        "events": books.events,
        "predictions": books.predictions,
        "rejects": books.rejects,
        "late": books.late,
        "duplicates": books.duplicates,
        "missing": books.missing,
        "throughput_eps": round(timing.throughput_eps, 1),
        "latency_ms_p50": timing.latency_ms[50],
        "latency_ms_p99": timing.latency_ms[99],
        "auc": round(quality.model.auc, 6),
        "auc_baseline": round(quality.baseline.auc, 6),
        "parity_rows": parity.rows,
        "parity_mismatches": parity.mismatches,
        "details": {
            "failures": failures(report),
            "examples": [*books.examples, *parity.examples],
            "rejects_by_reason": {
                reason: {"expected": expected, "found": found}
                for reason, (expected, found) in books.rejects_by_reason.items()
            },
            "misjudged": books.misjudged,
            "altered": books.altered,
            "strangers": books.strangers,
            "score_mismatches": report.checks.score_mismatches,
            "parity_by_feature": dict(parity.by_feature),
            "weather": report.weather,
            "labels": report.labels,
            "throughput_of": "the backlog, from its first append in to its last append out; sending it is part of that",
            "catch_up_eps": round(timing.catch_up_eps, 1),
            "throughput_rows": timing.throughput_rows,
            "latency_rows": timing.latency_rows,
            "latency_ms": {f"p{percentile:g}": value for percentile, value in timing.latency_ms.items()},
            "latency_rate_eps": report.rate_eps,
            "quality": {"model": asdict(quality.model), "baseline": asdict(quality.baseline)},
            "model": report.model,
            "submitted": report.submitted,
            "pages": report.pages,
            "cores": report.cores,
            "load_average_1min": round(report.load_average_1min, 2),
            "wall_s": round(report.wall_s, 1),
            "steps_s": {text: round(seconds, 1) for text, seconds in report.steps_s.items()},
        },
    }
