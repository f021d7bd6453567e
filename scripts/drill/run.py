"""A drill as the list of its steps: services, models, a first job, promotions under load, bad models, the books."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from flink_jobs.deploy.attempts import Attempt, Step, attempts_of
from flink_jobs.deploy.cluster import Cluster
from models.promotion import promote, set_alias
from scripts.demo.steps import Steps
from scripts.drill import bad
from scripts.drill.accounting import I64, Committed, balance, first_after, follows, longest_gap, runs
from scripts.drill.models import good, register, register_bad
from scripts.drill.place import Place, held_at
from scripts.drill.reader import Live, read
from scripts.drill.report import Redeploy, Refused, Report, as_json
from scripts.drill.send import read_ids
from scripts.drill.settings import DrillError, Settings
from scripts.kafka.topics import end_offsets

REPORT_FILE, SENT_FILE = "report.json", "sent.ids"
APPLY_TIMEOUT_S, REDEPLOY_TIMEOUT_S, FLUSH_TIMEOUT_S = 240.0, 240.0, 90.0


@dataclass(slots=True)
class Promoted:
    """A promotion of a good version."""

    version: str
    at_ms: int
    attempt: Attempt


def hold(settings: Settings, console: Console) -> Report:
    """Hold a drill; the report is also written to `report.json` in the folder of the settings.

    Raises
    ------
    HeadraceError : a step cannot be done, or something did not come in time.
    """
    began_s, steps = time.monotonic(), Steps(console)
    steps.title("Services")
    with held_at(settings, console) as place:
        report = _hold(place, settings, steps, began_s)
        (settings.folder / REPORT_FILE).write_text(json.dumps(as_json(report), indent=2) + "\n", encoding="utf-8")
    return report


def _hold(place: Place, settings: Settings, steps: Steps, began_s: float) -> Report:
    steps.title("Models")
    first, versions, bads = _register(place, settings, steps)
    steps.title("Job")
    predictions = place.target.topics.predictions
    with steps.step("headrace deploy apply: the first job"):
        _apply(place)
    ledger = settings.folder / SENT_FILE
    sender = [sys.executable, "-m", "scripts.drill.send", "--bootstrap", place.places.kafka, "--ledger", str(ledger)]
    sender += ["--topic", place.target.topics.source, "--rate", str(settings.rate)]
    with (
        place.program(place.deploy("watch"), "watch.log") as watch,
        Live(place.places.kafka, predictions) as live,
        place.program(sender, "send.log") as sending,
    ):
        with steps.step(f"payments come, {settings.rate:,.0f} a second; headrace deploy watch follows the alias"):
            live.wait(int(settings.rate))
            time.sleep(settings.calm_s)
        steps.title("Promotions")
        promoted = [
            _promote(place, settings, steps, version, is_doomed=False) for version in versions[: settings.promotions]
        ]
        promoted += [
            _promote(place, settings, steps, version, is_doomed=True) for version in versions[settings.promotions :]
        ]
        steps.title("Bad models")
        before = _live_job(place)
        attempts = [(one, version, _promote_bad(place, steps, one, version)) for one, version in bads]
        job_stayed = _live_job(place) == before and Cluster(place.places.flink).health(before).restarts == 0
        steps.title("Books")
        with steps.step("the sender ends; everything it sent is to be answered") as note:
            sent = _end(sending, ledger)
            note(f"{len(sent):,} payments were sent, and acknowledged by the broker")
            live.wait(len(sent))
            # One more checkpoint: nothing may come twice.
            time.sleep(settings.checkpoint_interval_ms / 1000 + 2)
        if watch.poll() is not None:
            msg = f"headrace deploy watch ended with code {watch.returncode}; see {settings.folder / 'watch.log'}"
            raise DrillError(msg)
    with steps.step("read every committed prediction"):
        found = read(place.places.kafka, predictions)
    place.ledger.verify()
    after = first_after(found, {int(one.version): one.at_ms for one in promoted})
    tried = [
        (int(one.version), int(one.attempt.asked["old_version"]), _result(one.attempt) == "deployed")
        for one in promoted
    ]
    topics = (place.target.topics.rejects, place.declared.sinks.late.topic)
    return Report(
        settings,
        balance(sent, found.ids),
        [
            Redeploy(
                one.version, _result(one.attempt), _gap_of(one, found), after[int(one.version)], _steps_ms(one.attempt)
            )
            for one in promoted
        ],
        [
            Refused(
                *(one.what, version, str(one.reason), _result(attempt)),
                *(
                    str(attempt.results.get(Step.CHECK, {}).get("refusal", "")),
                    int((found.versions == int(version)).sum()),
                ),
            )
            for one, version, attempt in attempts
        ],
        longest_gap(found.appended_ms)[0],
        live.longest_unseen_ms,
        live_agrees=live.count == len(found.ids),
        versions_in_order=follows(runs(found.versions), tried, int(first)),
        job_stayed=job_stayed,
        letters=sum(sum(end_offsets(place.places.kafka, topic).values()) for topic in topics),
        wall_s=time.monotonic() - began_s,
    )


def _register(place: Place, settings: Settings, steps: Steps) -> tuple[str, list[str], list[tuple[bad.Bad, str]]]:
    """Register all versions; the alias points at the first."""
    uri, count = place.places.mlflow, 1 + settings.promotions + settings.rollbacks
    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as scratch, steps.step("register the models") as note:
        entries = [good(place.pipeline, number, Path(scratch)) for number in range(count)]
        versions = [register(entry, uri) for entry in entries]
        bads = [(one, register_bad(one, entries[0], uri)) for one in bad.ALL] if settings.bad_models else []
        set_alias(place.model, versions[0], place.declared.model.alias, uri)
        note(f"{count} good versions and {len(bads)} bad ones of {place.model}")
    return versions[0], versions[1:], bads


def _apply(place: Place) -> None:
    done = subprocess.run(place.deploy("apply"), capture_output=True, text=True, timeout=APPLY_TIMEOUT_S, check=False)
    if done.returncode:
        msg = f"the first job was not deployed: {done.stdout[-500:]} {done.stderr[-1500:]}"
        raise DrillError(msg)


def _promote(place: Place, settings: Settings, steps: Steps, version: str, *, is_doomed: bool) -> Promoted:
    """Promote a good version; end its new job from outside if it is doomed."""
    what = "promote version {0}, and end its new job" if is_doomed else "promote version {0}"
    with steps.step(what.format(version)) as note:
        seen, at_ms = len(place.ledger.lines()), _now_ms()
        promote(place.model, version, place.declared.model.alias, place.places.mlflow)
        if is_doomed:
            begun = _wait(place, version, seen, lambda one: one.is_ok(Step.START) is not None)
            Cluster(place.places.flink).cancel(begun.job_id(Step.START))
        attempt = _wait(place, version, seen, lambda one: one.ended is not None)
        note(f"{what.format(version)}: {_result(attempt)}")
    time.sleep(settings.calm_s)
    return Promoted(version, at_ms, attempt)


def _promote_bad(place: Place, steps: Steps, one: bad.Bad, version: str) -> Attempt:
    with steps.step(one.what) as note:
        seen = len(place.ledger.lines())
        set_alias(place.model, version, place.declared.model.alias, place.places.mlflow)
        attempt = _wait(place, version, seen, lambda found: found.ended is not None)
        note(f"{one.what}: {_result(attempt)} [{attempt.results.get(Step.CHECK, {}).get('refusal', '')}]")
    return attempt


def _wait(place: Place, version: str, seen: int, is_so: Callable[[Attempt], bool]) -> Attempt:
    """Wait until the ledger says something of the attempt at a version that begins behind the lines seen."""
    deadline_s = time.monotonic() + REDEPLOY_TIMEOUT_S
    while True:
        lines = place.ledger.lines()
        begun = {line.fields["attempt"] for line in lines[seen:] if line.event == "begun"}
        for attempt in attempts_of(lines):
            if attempt.id in begun and attempt.asked["version"] == version and is_so(attempt):
                return attempt
        if time.monotonic() > deadline_s:
            msg = f"version {version}: the ledger does not say what became of it in {REDEPLOY_TIMEOUT_S:g} s"
            raise DrillError(msg)
        time.sleep(0.1)


def _live_job(place: Place) -> str:
    live = Cluster(place.places.flink).live(place.target.job_name)
    if len(live) != 1:
        msg = f"{place.target.job_name}: {len(live)} jobs run"
        raise DrillError(msg)
    return live[0].job_id


def _end(sending: "subprocess.Popen[bytes]", ledger: Path) -> I64:
    if sending.stdin is not None:
        sending.stdin.close()
    if sending.wait(FLUSH_TIMEOUT_S):
        msg = f"the sender ended with code {sending.returncode}; see {ledger.with_name('send.log')}"
        raise DrillError(msg)
    return read_ids(ledger)


def _gap_of(one: Promoted, found: Committed) -> int:
    """Return the longest gap between neighbours of which one lies within the attempt."""
    within = (found.appended_ms >= one.at_ms) & (found.appended_ms <= (one.attempt.ended_at_ms or _now_ms()))
    (places,) = np.nonzero(within)
    if not len(places):
        return 0
    return longest_gap(found.appended_ms[max(places[0] - 1, 0) : places[-1] + 2])[0]


def _steps_ms(attempt: Attempt) -> dict[str, int]:
    return {step: int(found["took_ms"]) for step, found in attempt.results.items()}


def _result(attempt: Attempt) -> str:
    return str((attempt.ended or {"result": "open"})["result"])


def _now_ms() -> int:
    return int(time.time() * 1000)
