"""What the ledger tells: attempts, what each did so far, what comes next; pure decisions, no clock, no service."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flink_jobs.deploy.cluster import Progress
from flink_jobs.deploy.ledger import Line


class Step(StrEnum):
    """The steps of a redeploy. The words stand in ledgers, so they stay."""

    CHECK = "check"
    """Fetch the version, hold it to digests, golden batch and rules; hold the stored state to the definition."""
    PREPARE = "prepare"
    """Build the new job, up to its submission."""
    STOP = "stop"
    """Stop the old job with a savepoint."""
    START = "start"
    """Submit the new job from there."""
    WATCH = "watch"
    """See it run, complete a checkpoint and commit predictions of the version."""
    HALT = "halt"
    """The new job is not healthy: end it, and find what the old version goes on from."""
    RESTORE = "restore"
    """Start the old version again."""
    END = "end"


class Result(StrEnum):
    """How an attempt ended."""

    DEPLOYED = "deployed"
    REFUSED = "refused"
    """The old job was never stopped."""
    ROLLED_BACK = "rolled_back"
    ABANDONED = "abandoned"
    """The controller ended before the old job was touched, or the registry went away."""
    FAILED = "failed"
    """No job runs, and a person must look."""


@dataclass
class Attempt:
    """One attempt to run a version, as far as it got."""

    id: str
    #: model, alias, version, old_version, old_job, config, old_config, savepoint, why, who
    asked: dict[str, Any]
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, Any] | None = None
    ended_at_ms: int = 0

    def is_ok(self, step: Step) -> bool | None:
        """Say how a step went; None if it is not known."""
        found = self.results.get(step)
        return None if found is None else bool(found["ok"])

    @property
    def has_touched(self) -> bool:
        """Say whether the old job may have been stopped, or a new one started."""
        return Step.STOP in self.intents or Step.START in self.intents

    def job_id(self, step: Step) -> str:
        """Return the id of the job that a step starts: known before, so that nobody starts it twice."""
        return hashlib.sha256(f"{self.id} {step}".encode()).hexdigest()[:32]


def attempts_of(lines: Iterable[Line]) -> list[Attempt]:
    """Return all attempts, oldest first."""
    found: dict[str, Attempt] = {}
    for line in lines:
        fields = line.fields
        if line.event == "begun":
            found[fields["attempt"]] = Attempt(fields["attempt"], fields)
        elif line.event == "intent":
            found[fields["attempt"]].intents[fields["step"]] = fields
        elif line.event == "result":
            found[fields["attempt"]].results[fields["step"]] = fields
        elif line.event == "ended":
            found[fields["attempt"]].ended, found[fields["attempt"]].ended_at_ms = fields, line.at_ms
    return list(found.values())


def next_step(attempt: Attempt) -> Step | None:
    """Return what comes next; None after the end."""
    if attempt.ended is not None:
        return None
    for step in (Step.CHECK, Step.PREPARE, Step.STOP, Step.START, Step.WATCH):
        if step is Step.STOP and attempt.asked["old_job"] is None:
            continue
        ok = attempt.is_ok(step)
        if ok is None:
            return step
        if not ok:
            return _undo(attempt) if step in (Step.START, Step.WATCH) else Step.END
    return Step.END


def _undo(attempt: Attempt) -> Step:
    for step in (Step.HALT, Step.RESTORE):
        ok = attempt.is_ok(step)
        if ok is None and attempt.asked["old_version"] is not None:
            return step
        if not ok:
            return Step.END
    return Step.END


def outcome(attempt: Attempt) -> Result:
    """Return how an attempt ends that has no next step."""
    if attempt.is_ok(Step.WATCH):
        return Result.DEPLOYED
    if attempt.is_ok(Step.RESTORE):
        return Result.ROLLED_BACK
    for step in (Step.CHECK, Step.PREPARE, Step.STOP):
        if attempt.is_ok(step) is False:
            return Result.ABANDONED if attempt.results[step].get("is_away") else Result.REFUSED
    return Result.FAILED


def reason(attempt: Attempt) -> str:
    """Return why an attempt went wrong, the first reason of all; empty if it went well."""
    return next((str(found["reason"]) for found in attempt.results.values() if not found["ok"]), "")


def rollback_source(progress: Progress | None, original: str | None, *, was_submitted: bool) -> tuple[str, str] | None:
    """Return what the old version goes on from, and why; None where nobody can tell.

    Parameters
    ----------
    progress : of the new job, after it ended; None if the cluster knows it no more
    original : savepoint of the old job
    was_submitted : the cluster may have run the new job
    """
    if not was_submitted or (progress is not None and progress.completed == 0):
        return (original, "the new job committed nothing") if original is not None else None
    if progress is None or progress.newest is None:
        return None
    return progress.newest, f"the new job committed, {progress.completed} checkpoints were completed"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger says of now."""

    is_paused: bool
    #: approved by hand, and the version that was proposed last
    approved: frozenset[str]
    proposed: str | None
    #: versions that went wrong or were rolled back from: only a person tries them again
    held: frozenset[str]
    #: newest attempt, and the one that runs
    last: Attempt | None
    deployed: Attempt | None
    #: requests by hand that no attempt answers yet
    requests: tuple[Line, ...]


def standing(lines: Sequence[Line]) -> Standing:
    """Return what the ledger says of now."""
    attempts = attempts_of(lines)
    deployed = [one for one in attempts if one.ended is not None and one.ended["result"] == Result.DEPLOYED]
    switches = [line.event for line in lines if line.event in ("paused", "resumed")]
    proposed = [line.fields["version"] for line in lines if line.event == "proposed"]
    approved, held = _verdicts(lines)
    return Standing(
        is_paused=switches[-1:] == ["paused"],
        approved=approved,
        proposed=proposed[-1] if proposed else None,
        held=held,
        last=attempts[-1] if attempts else None,
        deployed=deployed[-1] if deployed else None,
        requests=_open_requests(lines),
    )


def _verdicts(lines: Sequence[Line]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the versions that are approved, and those that are held back."""
    approved: set[str] = set()
    held: set[str] = set()
    for line in lines:
        if line.event == "approved":
            approved.add(line.fields["version"])
        elif line.event == "held":
            held.add(line.fields["version"])
        elif line.event == "ended" and line.fields["result"] != Result.ABANDONED:
            version = line.fields["version"]
            approved.discard(version)
            if line.fields["result"] == Result.DEPLOYED:
                held.discard(version)
            else:
                held.add(version)
    return frozenset(approved), frozenset(held)


def _open_requests(lines: Sequence[Line]) -> tuple[Line, ...]:
    answered = {line.fields.get("request") for line in lines if line.event in ("answered", "begun")}
    return tuple(line for line in lines if line.event == "requested" and line.number not in answered)


def why_not(
    now: Standing, version: str, running: str | None, at_ms: int, cooldown_ms: int, *, is_manual: bool
) -> str | None:
    """Return why the version that the alias points at is not deployed now; None: it is to be deployed.

    Parameters
    ----------
    running : version that runs
    at_ms : now
    cooldown_ms : shortest time between two attempts
    is_manual : a person must approve each version
    """
    if version == running:
        return "it runs"
    if now.is_paused:
        return "deployments are paused: headrace deploy resume"
    if version in now.held:
        return f"version {version} went wrong before; only a person tries it again: headrace deploy apply"
    if is_manual and version not in now.approved:
        return f"version {version} waits for approval: headrace deploy approve"
    if now.last is not None and now.last.ended is not None:
        left_ms = now.last.ended_at_ms + cooldown_ms - at_ms
        if left_ms > 0 and now.last.ended["result"] != Result.ABANDONED:
            return f"cooldown, {left_ms / 1000:.0f} s left"
    return None


def previous(lines: Sequence[Line], running: str | None) -> str | None:
    """Return the version that ran before the running one and did not go wrong since; None if there was none."""
    versions, held = [], _verdicts(lines)[1]
    for one in attempts_of(lines):
        if one.ended is not None and one.ended["result"] == Result.DEPLOYED:
            versions += [one.asked["old_version"], one.asked["version"]]
    return next((version for version in reversed(versions) if version not in (None, running, *held)), None)
