"""A key lives in its own time: how other keys come in between changes nothing of what is late and what is counted."""

import random
from collections import defaultdict
from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.samples import USER_FEATURES, Passage, Sent, cut, payment, random_payments, small_pipeline
from udfs.core.declare.definition import Pipeline

DAY_MS = 86_400_000
STAMPS = ("_lane_user", "_seq_user", "_offset")


@cache
def patient() -> Pipeline:
    """Return a pipeline whose horizon is beyond all events, as it is meant to be: only it looks at other keys."""
    return small_pipeline(features=USER_FEATURES, time={"allowed_lateness": "1500ms", "future_tolerance": "3650d"})


def by_user(sent: list[Sent]) -> dict[str | None, list[Any]]:
    """What came of each user's payments, in their order, but for their place among those of others."""
    passed = Passage(patient(), "user").feed(cut(sent, range(0, len(sent), 7)))
    found: dict[str | None, list[Any]] = defaultdict(list)
    for row in passed.rows:
        found[row["user"]].append({name: value for name, value in row.items() if name not in STAMPS})
    for letter in passed.letters:
        assert letter["kind"] == "late"
        found[letter["key"] and letter["key"].decode()].append((letter["detail"], letter["value"]))
    return found


def interleaved(sent: list[Sent], seed: int) -> list[Sent]:
    """Mix the payments of the users otherwise; each user's own keep their order."""
    chance = random.Random(seed)
    users: dict[str | None, list[Sent]] = defaultdict(list)
    for one in sent:
        users[one.key].append(one)
    queues = [queue[::-1] for queue in users.values()]
    mixed = []
    while queues:
        queue = chance.choice(queues)
        mixed += [queue.pop() for _ in range(min(chance.choice([1, 1, 5, 50]), len(queue)))]
        queues = [queue for queue in queues if queue]
    return mixed


@given(st.integers(0, 2**32), st.integers(0, 120), st.integers(0, 2**32))
def test_what_comes_of_a_key_does_not_depend_on_the_others(seed: int, count: int, mix: int) -> None:
    sent = random_payments(seed, count)
    expected = by_user(sent)
    assert by_user(interleaved(sent, mix)) == expected


def test_some_of_these_rows_are_late() -> None:
    found = by_user(random_payments(3, 120))
    late = [one for rows in found.values() for one in rows if isinstance(one, tuple)]
    assert 5 < len(late) < 60


def test_a_key_that_is_days_behind_or_ahead_makes_no_other_late_or_stale() -> None:
    steps = range(0, 3_000, 500)
    sent = [one for i, ms in enumerate(steps) for one in (
        payment(3 * i, ms, "slow", amount=1.0),
        payment(3 * i + 1, ms + 3 * DAY_MS, "fast", amount=1.0),
        payment(3 * i + 2, ms - 3 * DAY_MS, "old", amount=1.0),
    )]  # fmt: skip
    found = by_user(sent)
    sums = {user: [row["user_amount_sum_4s"] for row in rows] for user, rows in found.items()}
    assert sums == {user: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] for user in ("slow", "fast", "old")}
