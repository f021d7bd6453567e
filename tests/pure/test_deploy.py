"""Decisions of a redeploy: what comes next, where a rollback starts, what is kept back, which notices count."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flink_jobs.deploy.attempts import (
    Attempt,
    Result,
    Step,
    attempts_of,
    next_step,
    outcome,
    previous,
    reason,
    rollback_source,
    standing,
    why_not,
)
from flink_jobs.deploy.cluster import Progress
from flink_jobs.deploy.ledger import Line, following
from flink_jobs.deploy.webhook import DELIVERY, SIGNATURE, TIMESTAMP, NoticeError, Notices, sign

FORWARD = (Step.CHECK, Step.PREPARE, Step.STOP, Step.START, Step.WATCH)


def attempt(old_version: str | None = "1", old_job: str | None = "job") -> Attempt:
    return Attempt("a", {"version": "2", "old_version": old_version, "old_job": old_job})


def run(one: Attempt, failing: set[Step]) -> list[Step]:
    """Take an attempt to its end, with the steps that fail."""
    done: list[Step] = []
    while (step := next_step(one)) not in (Step.END, None):
        assert step is not None
        one.intents[step] = {}
        one.results[step] = {"ok": step not in failing, "reason": f"{step} failed"}
        done.append(step)
    return done


def ledger(*written: tuple[str, dict[str, Any]]) -> list[Line]:
    lines: list[Line] = []
    for at_ms, (event, fields) in enumerate(written):
        lines.append(following(lines[-1] if lines else None, event, at_ms, fields))
    return lines


def ended(version: str, result: Result, old: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    asked = {"attempt": version, "version": version, "old_version": old, "old_job": "j", "request": None}
    return [("begun", asked), ("ended", {"attempt": version, "version": version, "result": result, "reason": ""})]


def test_a_redeploy_that_goes_well_takes_every_step_once() -> None:
    one = attempt()
    assert run(one, set()) == list(FORWARD)
    assert outcome(one) is Result.DEPLOYED


@pytest.mark.parametrize("step", [Step.CHECK, Step.PREPARE])
def test_what_is_wrong_before_the_stop_leaves_the_old_job_alone(step: Step) -> None:
    one = attempt()
    assert Step.STOP not in run(one, {step})
    assert not one.has_touched
    assert (outcome(one), reason(one)) == (Result.REFUSED, f"{step} failed")


def test_a_job_that_cannot_be_stopped_goes_on() -> None:
    one = attempt()
    assert Step.START not in run(one, {Step.STOP})
    assert outcome(one) is Result.REFUSED


@pytest.mark.parametrize("step", [Step.START, Step.WATCH])
def test_a_new_job_that_fails_is_halted_before_the_old_version_starts(step: Step) -> None:
    one = attempt()
    assert run(one, {step})[-2:] == [Step.HALT, Step.RESTORE]
    assert outcome(one) is Result.ROLLED_BACK


@given(st.sets(st.sampled_from(list(Step))), st.booleans(), st.booleans())
def test_every_attempt_ends_and_says_deployed_only_of_what_was_seen_healthy(
    failing: set[Step], has_job: bool, has_version: bool
) -> None:
    one = attempt("1" if has_version else None, "job" if has_job else None)
    done = run(one, failing)
    assert len(done) == len(set(done))
    assert (outcome(one) is Result.DEPLOYED) == (done[-1] is Step.WATCH and Step.WATCH not in failing)
    assert (outcome(one) is Result.ROLLED_BACK) == (done[-1] is Step.RESTORE and Step.RESTORE not in failing)
    if outcome(one) in (Result.REFUSED, Result.ABANDONED):
        assert Step.START not in done


def test_a_first_job_has_nothing_to_stop_and_nothing_to_go_back_to() -> None:
    one = attempt(None, None)
    assert run(one, {Step.WATCH}) == [Step.CHECK, Step.PREPARE, Step.START, Step.WATCH]
    assert outcome(one) is Result.FAILED


def test_each_start_has_a_job_id_of_its_own_that_never_changes() -> None:
    ids = {attempt().job_id(step) for step in (Step.START, Step.RESTORE, Step.START)}
    assert len(ids) == 2
    assert all(len(one) == 32 for one in ids)


CHECKPOINT, SAVEPOINT = ("chk-3", 30), ("sp", 40)


@pytest.mark.parametrize(
    ("progress", "was_submitted", "found"),
    [
        (None, False, "original"),
        (Progress(0, None, -1, None, -1), True, "original"),
        (Progress(2, *CHECKPOINT, None, -1), True, "chk-3"),
        (Progress(3, *CHECKPOINT, *SAVEPOINT), True, "sp"),
        (Progress(3, *SAVEPOINT, *CHECKPOINT), True, "sp"),
        (None, True, None),
        (Progress(2, None, -1, None, -1), True, None),
    ],
)
def test_a_rollback_starts_where_nothing_is_doubled(
    progress: Progress | None, was_submitted: bool, found: str | None
) -> None:
    source = rollback_source(progress, "original", was_submitted=was_submitted)
    assert (source[0] if source else None) == found


def test_the_cooldown_begins_at_the_end_of_the_last_attempt() -> None:
    now = standing(ledger(*ended("2", Result.DEPLOYED)))
    assert "cooldown" in (why_not(now, "3", "2", 500, 1000, is_manual=False) or "")
    assert why_not(now, "3", "2", 1001, 1000, is_manual=False) is None


@pytest.mark.parametrize("result", [Result.REFUSED, Result.ROLLED_BACK, Result.FAILED])
def test_a_version_that_went_wrong_is_tried_again_only_by_a_person(result: Result) -> None:
    lines = ledger(*ended("2", result, "1"))
    assert "only a person" in (why_not(standing(lines), "2", "1", 10**6, 0, is_manual=False) or "")
    assert why_not(standing(lines), "3", "1", 10**6, 0, is_manual=False) is None
    again = ledger(*ended("2", result, "1"), *ended("2", Result.DEPLOYED, "1"))
    assert why_not(standing(again), "2", "1", 10**6, 0, is_manual=False) is None


def test_an_attempt_that_touched_nothing_is_made_again_at_once() -> None:
    now = standing(ledger(*ended("2", Result.ABANDONED, "1")))
    assert why_not(now, "2", "1", 1, 10**6, is_manual=False) is None


def test_manual_mode_waits_for_the_approval_of_that_very_version() -> None:
    lines = ledger(("approved", {"version": "2"}))
    assert why_not(standing(lines), "2", "1", 0, 0, is_manual=True) is None
    assert "waits for approval" in (why_not(standing(lines), "3", "1", 0, 0, is_manual=True) or "")
    used = ledger(("approved", {"version": "2"}), *ended("2", Result.ROLLED_BACK, "1"))
    assert standing(used).approved == frozenset()


def test_a_pause_holds_until_the_resume() -> None:
    assert "paused" in (why_not(standing(ledger(("paused", {}))), "2", "1", 0, 0, is_manual=False) or "")
    assert why_not(standing(ledger(("paused", {}), ("resumed", {}))), "2", "1", 0, 0, is_manual=False) is None


def test_a_request_is_open_until_an_attempt_or_a_refusal_answers_it() -> None:
    asked = ("requested", {"version": "2", "why": "", "who": "", "savepoint": None})
    assert [line.number for line in standing(ledger(asked)).requests] == [1]
    assert standing(ledger(asked, ("answered", {"request": 1}))).requests == ()
    begun = ("begun", {"attempt": "a", "version": "2", "old_version": None, "old_job": None, "request": 1})
    assert standing(ledger(asked, begun)).requests == ()


def test_a_rollback_by_hand_goes_to_the_version_before() -> None:
    lines = ledger(
        *ended("2", Result.DEPLOYED, "1"), *ended("3", Result.DEPLOYED, "2"), *ended("4", Result.REFUSED, "3")
    )
    assert previous(lines, "3") == "2"
    assert previous([], "3") is None


def test_a_second_rollback_by_hand_does_not_go_back_to_what_was_left() -> None:
    begun = [*ended("2", Result.DEPLOYED, "1"), *ended("3", Result.DEPLOYED, "2"), ("held", {"version": "3"})]
    lines = ledger(*begun, *[(event, fields | {"attempt": "r"}) for event, fields in ended("2", Result.DEPLOYED, "3")])
    assert previous(lines, "2") == "1"


def test_the_ledger_says_how_far_an_attempt_got() -> None:
    lines = ledger(
        ("begun", {"attempt": "a", "version": "2", "old_version": "1", "old_job": "j"}),
        ("intent", {"attempt": "a", "step": "check"}),
        ("result", {"attempt": "a", "step": "check", "ok": True}),
        ("intent", {"attempt": "a", "step": "prepare"}),
    )
    [one] = attempts_of(lines)
    assert next_step(one) is Step.PREPARE
    assert not one.has_touched


SECRET, NOW_S, BODY = "s3cret", 1_000_000, b'{"entity": "registered_model_alias"}'


def headers(delivery: str = "d1", at_s: int = NOW_S, body: bytes = BODY, secret: str = SECRET) -> dict[str, str]:
    return {DELIVERY: delivery, TIMESTAMP: str(at_s), SIGNATURE: sign(secret, delivery, str(at_s), body)}


def test_a_notice_counts_once() -> None:
    notices = Notices(SECRET, 300)
    assert notices.accept(headers(), BODY, NOW_S)
    assert not notices.accept(headers(), BODY, NOW_S + 1)
    assert notices.accept(headers("d2"), BODY, NOW_S + 1)


@pytest.mark.parametrize(
    ("sent", "body", "now_s"),
    [
        (headers(), BODY + b" ", NOW_S),
        (headers(secret=SECRET[::-1]), BODY, NOW_S),
        (headers() | {DELIVERY: "d9"}, BODY, NOW_S),
        (headers() | {TIMESTAMP: str(NOW_S + 1)}, BODY, NOW_S),
        (headers() | {SIGNATURE: ""}, BODY, NOW_S),
        (headers() | {SIGNATURE: "v1,%%%"}, BODY, NOW_S),
        (headers() | {SIGNATURE: headers()[SIGNATURE].replace("v1,", "v2,")}, BODY, NOW_S),
        (headers(), BODY, NOW_S + 301),
        (headers(at_s=NOW_S + 301), BODY, NOW_S),
    ],
)
def test_a_notice_that_is_forged_altered_or_old_is_refused(sent: dict[str, str], body: bytes, now_s: float) -> None:
    with pytest.raises(NoticeError):
        Notices(SECRET, 300).accept(sent, body, now_s)


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(NoticeError, match="empty"):
        Notices("", 300)


def test_a_promotion_on_kubernetes_changes_the_arguments_of_the_job_alone(tmp_path: Path) -> None:
    from flink_jobs.config import Environment
    from flink_jobs.deploy.kubernetes import manifest, patch_of
    from tests import synthetic
    from udfs.core.declare.loading import load_pipeline, load_yaml

    folder = synthetic.write_pipeline(tmp_path / "shop")
    file = Path(__file__).parents[2] / "conf" / "prod.yaml"
    settings = load_yaml(file, Environment)

    def of(version: str) -> dict[str, Any]:
        return manifest(load_pipeline(folder), folder, settings, file, version, "headrace:1")

    before, after, patch = of("1"), of("2"), patch_of(of("2"))
    assert json.loads(json.dumps(after)) == after
    before["metadata"] |= patch["metadata"] | {"annotations": patch["metadata"]["annotations"]}
    before["spec"]["job"] |= patch["spec"]["job"]
    assert before == after
    assert "1" not in patch["spec"]["job"]["args"]
