"""INV, the clauses that need more than the books: features and scores, the archive, the online store, what is left."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from scripts.bench.payments.oracle import expected
from scripts.chaos.invariant import Entry
from scripts.chaos.victims import orphans
from scripts.demo.outputs import Letter, Prediction, observed_of
from scripts.kafka.batches import raw_batch
from scripts.kafka.consume import Record
from scripts.kafka.transactions import transactions
from scripts.services.home import Home
from udfs.core.declare.definition import Pipeline
from udfs.core.offline.archive import ArchiveError, open_archive
from udfs.core.offline.parity import check_parity
from udfs.core.online.schema import Key
from udfs.core.plan.features import plan_stages
from udfs.online.reader import OnlineStore

SCORE_TOLERANCE = 1e-5
ONLINE_WITHIN_S, ARCHIVE_WITHIN_S, LEFT_WITHIN_S = 30.0, 60.0, 10.0
_READ_KEYS, _STEP_S = 1_000, 0.5


def check_features(
    pipeline: Pipeline,
    folder: Path,
    inputs: Sequence[Record],
    predictions: list[Prediction],
    letters: list[Letter],
) -> list[str]:
    """Judge clause 5 for features: computed again offline in the stamped order, they are the same, bit for bit."""
    raw = raw_batch(pipeline.source.topic, inputs)
    report = check_parity(pipeline, folder, [raw], observed_of(predictions, letters))
    if report.mismatches or report.rows != len(predictions):
        example = report.examples[0] if report.examples else f"{report.missing} are not there offline"
        return [f"clause 5: of {len(predictions)} rows {report.mismatches} have other features: {example}"]
    return []


def check_scores(
    entries: Sequence[Entry], predictions: Sequence[Prediction], letters: Sequence[Letter], late_topic: str
) -> list[str]:
    """Judge clause 5 for scores, and what is late, by a plain loop over all events in the order of their stamps.

    It shares nothing with the kernels. It needs one lane, and each id once among what was not rejected.
    """
    values = {one.sent.origin: one.sent.value or b"" for one in entries}
    late = [one for one in letters if one.topic == late_topic]
    both: list[Prediction | Letter] = [*predictions, *late]
    seen = sorted((one.order["user"][1], one.origin) for one in both)
    wanted = expected([values.get(origin, b"{}") for _, origin in seen])
    found = {one.event_id: one.score for one in predictions}
    if found.keys() != wanted.keys():
        odd = min(found.keys() ^ wanted.keys())
        return [f"clause 5: {odd!r} is {'scored' if odd in found else 'late'}, and a plain loop says otherwise"]
    worst = max(found, key=lambda name: abs(found[name] - wanted[name]), default="")
    if found and not abs(found[worst] - wanted[worst]) <= SCORE_TOLERANCE:
        return [f"clause 5: {worst} has score {found[worst]}; a plain loop says {wanted[worst]}"]
    return []


def check_archive(root: str, pipeline: Pipeline, predictions: Sequence[Prediction]) -> list[str]:
    """Judge clause 6: the events of the committed Parquet files are those that were predicted, each as often."""

    def found() -> list[str]:
        try:
            archived = (
                open_archive(root, pipeline, "predictions").to_table(columns=["event_id"])["event_id"].to_pylist()
            )
        except (ArchiveError, OSError) as error:
            return [f"clause 6: {error}"]
        wanted = sorted(one.event_id for one in predictions)
        if sorted(archived) == wanted:
            return []
        missing, extra = set(wanted) - set(archived), len(archived) - len(set(archived))
        return [
            f"clause 6: {len(archived)} of {len(wanted)} rows are archived, {len(missing)} missing, {extra} doubled"
        ]

    return _within(ARCHIVE_WITHIN_S, found)[0]


def check_online(
    url: str, pipeline: Pipeline, entries: Sequence[Entry], predictions: Sequence[Prediction]
) -> tuple[list[str], float]:
    """Judge clause 7: of each key the row is that of its newest event; return how long that took, too."""
    store = pipeline.sinks.online_store
    assert store is not None  # noqa: S101  the caller looked
    wanted = newest_rows(pipeline, entries, predictions)

    def found() -> list[str]:
        with OnlineStore.connect(url, store.prefix) as reader:
            for entity, rows in wanted.items():
                keys = list(rows)
                for at in range(0, len(keys), _READ_KEYS):
                    part = keys[at : at + _READ_KEYS]
                    # By the clock of the events, nothing has drained.
                    for key, row in zip(part, reader.read(entity, part, now_ms=0), strict=True):
                        if row.values != rows[key]:
                            return [f"clause 7: {entity} {key}: the online row is {row.values}, not {rows[key]}"]
        return []

    return _within(ONLINE_WITHIN_S, found)


def newest_rows(
    pipeline: Pipeline, entries: Sequence[Entry], predictions: Sequence[Prediction]
) -> dict[str, dict[Key, dict[str, float | int | None]]]:
    """Return entity -> key -> features of its newest event, by event time and number in its lane."""
    values = {one.sent.origin: one.sent.value or b"" for one in entries}
    events = {one.origin: msgspec.json.decode(values[one.origin]) for one in predictions}
    found: dict[str, dict[Key, dict[str, float | int | None]]] = {}
    for stage in plan_stages(pipeline):
        rows: dict[Key, tuple[tuple[int, int], Prediction]] = {}
        for one in predictions:
            event = events[one.origin]
            parts = tuple(str(event[name]) for name in stage.fields)
            key: Key = parts[0] if len(parts) == 1 else parts
            age = (event[pipeline.contract.time], one.order[stage.entity][1])
            if key not in rows or rows[key][0] < age:
                rows[key] = (age, one)
        names = [feature.name for feature in stage.features]
        found[stage.entity] = {key: {name: one.features[name] for name in names} for key, (_, one) in rows.items()}
    return found


def check_left(home: Home, bootstrap: str, job_names: Sequence[str]) -> list[str]:
    """Judge clause 8: no worker without its TaskManager, no open transaction; the jobs have ended."""

    def found() -> list[str]:
        broken = [f"clause 8: a worker without its TaskManager, pid {one.pid}" for one in orphans(home)]
        for name in job_names:
            broken += [f"clause 8: transaction {one.name} is {one.state}" for one in transactions(bootstrap, name)]
        return broken

    return _within(LEFT_WITHIN_S, found)[0]


def _within(limit_s: float, found: Callable[[], list[str]]) -> tuple[list[str], float]:
    """Ask again and again until nothing is wrong; return what is wrong at the end of the time, and the time."""
    begun_s = time.monotonic()
    while True:
        broken = found()
        took_s = time.monotonic() - begun_s
        if not broken or took_s > limit_s:
            return [f"{one} (after {took_s:.0f} s)" for one in broken], round(took_s, 1)
        time.sleep(_STEP_S)
