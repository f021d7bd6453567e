"""What becomes of state when features change: the plan says it, and carrying the state over does it, to the bit."""

from typing import Any

import pytest

from tests.laned import LanedJob, Row
from tests.samples import FLIGHTS, RATE_JOIN, Sent, cut, random_payments, small_pipeline, with_rates
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError
from udfs.core.offline.featurize import chunks
from udfs.core.offline.state import build_state
from udfs.core.state.carry import carry
from udfs.core.state.header import StateHeader
from udfs.core.state.migration import MigrationPlan, plan_migration, refuse_unfit
from udfs.core.state.snapshot import Snapshot

USER = {"entity": "user", "of": "amount", "slide": "1s"}
SHOP = {"entity": "shop", "of": "amount", "take": ["mean"], "over": ["3s"], "slide": "1s"}
OLD: tuple[dict[str, Any], ...] = (
    {**USER, "take": ["sum", "max"], "over": ["4s"]},
    {"entity": "user", "of": "units", "take": ["sum"], "over": [{"last": 3}]},
    {"entity": "user", "of": "shop", "take": ["distinct"], "over": ["4s"], "slide": "1s"},
    SHOP,
)
PATIENT = {"allowed_lateness": "1500ms", "future_tolerance": "1d", "forget_idle_after": "1d"}


def pipeline(*features: dict[str, Any], **changes: Any) -> Pipeline:
    return small_pipeline(**{"features": features, "time": PATIENT, "enrichments": [RATE_JOIN]} | changes)


def header(of: Pipeline) -> StateHeader:
    return StateHeader.of(of, FLIGHTS)


def planned(old: Pipeline, new: Pipeline, bootstrap: Pipeline | None = None) -> MigrationPlan:
    return plan_migration(header(old), header(new), header(bootstrap) if bootstrap else None)


def changes(plan: MigrationPlan) -> dict[str, tuple[str, str]]:
    return {change.column: (change.action, change.why) for change in plan.changes}


def test_the_same_features_are_kept_and_fit() -> None:
    plan = planned(pipeline(*OLD), pipeline(*OLD, latency={"target": "1s"}))
    assert {action for action, _ in changes(plan).values()} == {"keep"}
    assert (plan.fits, plan.obstacles, plan.notes) == (True, (), ())
    assert list(plan.lines()) == ["7 of 7 features keep their state"]


HELD = ("keep", "new, of state that is held already")
NEW_FEATURES: dict[str, tuple[dict[str, Any], str, tuple[str, str]]] = {
    "another aggregation of the same IR": ({"take": ["mean"], "over": ["4s"]}, "mean_4s", HELD),
    "a shorter window": ({"take": ["sum"], "over": ["2s"]}, "sum_2s", HELD),
    "a longer window": ({"take": ["sum"], "over": ["9s"]}, "sum_9s", ("start empty", "only 4s of 9s are held")),
    "another IR": ({"take": ["std"], "over": ["4s"]}, "std_4s", ("start empty", "spread(amount) is not held")),
    "another slide": (
        {"take": ["sum"], "over": ["2s"], "slide": "500ms"}, "sum_2s", ("start empty", "no tiles of 500ms are held"),
    ),
    "another kind of window": (
        {"take": ["sum"], "over": [{"session": "2s"}], "slide": None},
        "sum_session_2s",
        ("start empty", "no sessions of 2s are held"),
    ),
    "another condition": (
        {"take": ["sum"], "over": ["4s"], "where": "units > 0", "as": "user_amount_if"},
        "if_sum_4s",
        ("start empty", "sums(amount where units > 0) is not held"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("new", NEW_FEATURES)
def test_a_new_feature_is_kept_if_its_state_is_there(new: str) -> None:
    group, name, expected = NEW_FEATURES[new]
    plan = planned(pipeline(*OLD), pipeline(*OLD, {**USER, **group}))
    assert changes(plan)[f"user_amount_{name}"] == expected
    assert plan.fits == (expected is HELD)


def test_a_ring_keeps_what_it_has() -> None:
    ring = {"entity": "user", "of": "units", "take": ["sum", "max"], "over": [{"last": 2}, {"last": 5}]}
    plan = changes(planned(pipeline(*OLD), pipeline(OLD[0], ring, SHOP)))
    assert plan["user_units_max_last_2"] == ("keep", "new, of state that is held already")
    assert plan["user_units_sum_last_5"] == ("start empty", "only the last 3 of 5 are held")
    assert plan["user_units_sum_last_3"] == ("drop", "")
    assert plan["user_shop_distinct_4s"] == ("drop", "")


def test_a_bootstrap_that_has_a_feature_fills_it() -> None:
    wanted = {**USER, "take": ["sum", "std"], "over": ["9s"]}
    bootstrap = pipeline({**USER, "take": ["sum"], "over": ["9s"]}, SHOP)
    plan = changes(planned(pipeline(*OLD), pipeline(*OLD, wanted), bootstrap))
    assert plan["user_amount_sum_9s"] == ("bootstrap", "only 4s of 9s are held")
    assert plan["user_amount_std_9s"] == ("start empty", "spread(amount) is not held")


OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "lanes": ({"lanes": 4}, "it has 1 lanes, the pipeline 4"),
    "a stage less": ({"features": OLD[:3], "enrichments": []}, "operator featurize is gone; enrichment rates is gone"),
    "a join less": ({"enrichments": []}, "enrichment rates is gone"),
    "lateness": ({"time": {**PATIENT, "allowed_lateness": "2d"}}, "the longest window of user, its lateness or"),
    "ids": ({"time": {**PATIENT, "duplicates_within": "1h"}}, ""),
}


@pytest.mark.parametrize("change", OBSTACLES)
def test_what_keeps_a_job_from_going_on_is_said(change: str) -> None:
    changed, why = OBSTACLES[change]
    plan = planned(pipeline(*OLD), pipeline(*OLD, **changed))
    assert why in "; ".join(plan.obstacles)
    assert plan.fits == (not why)


def test_an_unfit_definition_is_refused_with_the_plan() -> None:
    old, new = header(pipeline(*OLD)), header(pipeline(*OLD, {**USER, "take": ["std"], "over": ["4s"]}))
    message = (
        r"does not fit pipeline shop; cells of user are laid out as .*\n7 of 8 features keep .*\n  user_amount_std_4s"
    )
    with pytest.raises(StateFormatError, match=message):
        refuse_unfit(old, new)
    refuse_unfit(old, old)


def test_a_changed_derive_function_is_noted() -> None:
    plan = plan_migration(*(StateHeader.of(pipeline(*OLD), FLIGHTS) for _ in range(2)))
    assert plan.notes == ()
    old = header(pipeline(*OLD))
    derived = {"function": "transforms.py:departure_columns", "outputs": {"speed": "float64"}}
    with_derive = StateHeader.of(pipeline(*OLD, derive=derived), FLIGHTS)
    other = StateHeader(with_derive.pipeline, "other", with_derive.entities, with_derive.has_ids, "another digest")
    assert "what is kept of speed was computed by the old one" in "".join(plan_migration(other, with_derive).notes)
    assert plan_migration(old, with_derive).notes == ()


# --- the state itself

COUNT, HALF = 90, 45


def stream(seed: int = 3) -> list[Sent]:
    return with_rates(random_payments(seed, COUNT, users=5), seed + 1)


def halves() -> tuple[list[Sent], list[Sent]]:
    sent = stream()
    middle = next(i for i, one in enumerate(sent) if one.row.get("id") == f"p{HALF}")
    return sent[:middle], sent[middle:]


def values(rows: dict[str, Row], columns: list[str]) -> dict[str, Row]:
    return {name: {column: row[column] for column in columns} for name, row in rows.items()}


def gone_on(old: Pipeline, new: Pipeline, bootstrap: Snapshot | None = None) -> dict[str, Row]:
    """Return the rows of the second half, from a job that changed in the middle."""
    first, second = halves()
    snapshot = LanedJob(old).feed(first).snapshot()
    job = LanedJob(new, carry(snapshot, header(new), bootstrap))
    return job.feed(second, len(first)).rows


def whole(of: Pipeline) -> dict[str, Row]:
    """Return the rows of the second half, from a job that has seen the first, too."""
    first, second = halves()
    job = LanedJob(of).feed(first)
    job.rows = {}
    return job.feed(second, len(first)).rows


def test_kept_features_go_on_and_others_start_empty() -> None:
    ring = {"entity": "user", "of": "units", "take": ["sum"], "over": [{"last": 2}]}
    new = pipeline({**USER, "take": ["mean", "std", "max"], "over": ["4s", "2s"]}, ring, OLD[2], SHOP, lanes=2)
    plan = changes(planned(pipeline(*OLD), new))
    kept = [column for column, (action, _) in plan.items() if action == "keep"]
    assert {
        "user_amount_mean_2s",
        "user_units_sum_last_2",
        "user_shop_distinct_4s",
        "shop_amount_mean_3s",
        "rate",
    } < set(kept)
    rows = gone_on(pipeline(*OLD), new)
    assert values(rows, kept) == values(whole(new), kept)
    first, second = halves()
    fresh = LanedJob(new).feed(second, len(first)).rows
    empty = [column for column, (action, _) in plan.items() if action == "start empty"]
    assert empty == ["user_amount_std_4s", "user_amount_std_2s"]
    assert values(rows, empty) == values(fresh, empty) != values(whole(new), empty)


def test_a_longer_window_has_at_first_what_the_shorter_one_held() -> None:
    new = pipeline({**USER, "take": ["sum"], "over": ["4s", "20s"]}, SHOP)
    rows, right = gone_on(pipeline(*OLD), new), whole(new)
    wrong = [name for name, row in rows.items() if row["user_amount_sum_20s"] != right[name]["user_amount_sum_20s"]]
    assert 0 < len(wrong) < 10
    assert wrong[-1] < "p80"
    assert values(rows, ["user_amount_sum_4s"]) == values(right, ["user_amount_sum_4s"])


def built(of: Pipeline, sent: list[Sent]) -> Snapshot:
    return build_state(of, FLIGHTS, chunks(cut(sent), 10), threads=2)


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_job_that_starts_from_a_built_state_is_right_from_its_first_event(lanes: int) -> None:
    ids = {"time": {**PATIENT, "duplicates_within": "1h"}}
    of = pipeline(*OLD, lanes=lanes, **ids)
    first, second = halves()
    job = LanedJob(of, built(of, first))
    job.feed([*second, first[-1], second[0]], len(first))
    assert job.rows == whole(of)
    assert sum(reason == "duplicate" for reason, _ in job.letters.values()) == 2


def test_a_bootstrap_fills_what_the_state_lacks_and_nothing_else() -> None:
    ring = {"entity": "user", "of": "units", "take": ["sum"], "over": [{"last": 3}, {"last": 6}]}
    sketch = {"entity": "user", "of": "shop", "take": ["distinct", {"top_k": 2}], "over": ["4s"], "slide": "1s"}
    session = {**USER, "take": ["sum"], "over": [{"session": "2s"}], "slide": None}
    new = pipeline({**USER, "take": ["sum", "std"], "over": ["4s", "9s"]}, ring, sketch, session, SHOP, lanes=2)
    snapshot = LanedJob(pipeline(*OLD)).feed(halves()[0]).snapshot()
    bootstrap = built(new, halves()[0])
    same = Snapshot(snapshot.header, "export", snapshot.logs, bootstrap.offsets)
    job = LanedJob(new, carry(same, header(new), bootstrap))
    first, second = halves()
    assert job.feed(second, len(first)).rows == whole(new)


def test_a_bootstrap_of_other_records_is_refused() -> None:
    of = pipeline(*OLD)
    first, _ = halves()
    snapshot = LanedJob(of).feed(first).snapshot()
    with pytest.raises(StateFormatError, match="not of the same records"):
        carry(snapshot, header(of), built(of, first))
