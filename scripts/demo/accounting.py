"""Accounting: every event sent must have exactly one outcome, the right one, and a letter must carry its very bytes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from udfs.core.offline.parity import Origin

PREDICTION, LATE, REJECT = "prediction", "late", "reject"
"""Outcomes are `prediction`, `late` and the reject reasons."""
_MOST_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Sent:
    """One record of the input topic."""

    origin: Origin
    #: outcomes that are right, the usual one first
    expected: tuple[str, ...]
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One record of an output topic."""

    origin: Origin
    #: `prediction`, `late` or a reject reason
    what: str
    #: of a letter; a prediction has none
    key: bytes | None = None
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class Accounting:
    """The books."""

    events: int
    predictions: int
    rejects: int
    late: int
    #: outcomes beyond the first of an event
    duplicates: int
    #: events without an outcome
    missing: int
    #: outcomes of an event that was never sent
    strangers: int
    #: events whose outcome is not one of the expected
    misjudged: int
    #: letters whose key or value differs from the event's
    altered: int
    #: reason -> expected and found; an event with several right reasons counts under the one it got, else the usual
    rejects_by_reason: dict[str, tuple[int, int]]
    #: a few of what is wrong, for people
    examples: tuple[str, ...]


def account(sent: Sequence[Sent], outcomes: Iterable[Outcome]) -> Accounting:
    """Compare what was sent with what came out.

    Parameters
    ----------
    sent : all records of the input topic, each origin once
    outcomes : all predictions, rejects and late rows of that topic

    Examples
    --------
    >>> good, bad = Origin("t", 0, 0), Origin("t", 0, 1)
    >>> sent = [Sent(good, (PREDICTION,), b"k", b"{}"), Sent(bad, ("malformed",), b"k", b"{")]
    >>> books = account(sent, [Outcome(good, PREDICTION), Outcome(good, PREDICTION)])
    >>> books.duplicates, books.missing
    (1, 1)
    """
    by_origin = {one.origin: one for one in sent}
    times: Counter[Origin] = Counter()
    kinds: Counter[str] = Counter()
    found: Counter[str] = Counter()
    problems = _Problems()
    for outcome in outcomes:
        kind = outcome.what if outcome.what in (PREDICTION, LATE) else REJECT
        kinds[kind] += 1
        found[outcome.what] += kind == REJECT
        times[outcome.origin] += 1
        problems.judge(outcome, by_origin.get(outcome.origin), times[outcome.origin])
    for one in sent:
        if one.origin not in times:
            problems.note("missing", f"{one.origin}: nothing came of it, expected {one.expected[0]}")
    right = Counter(problems.judged.get(one.origin, one.expected[0]) for one in sent)
    reasons = sorted((right.keys() - {PREDICTION, LATE}) | {reason for reason in found if found[reason]})
    return Accounting(
        events=len(sent),
        predictions=kinds[PREDICTION],
        rejects=kinds[REJECT],
        late=kinds[LATE],
        duplicates=problems.counts["duplicates"],
        missing=problems.counts["missing"],
        strangers=problems.counts["strangers"],
        misjudged=problems.counts["misjudged"],
        altered=problems.counts["altered"],
        rejects_by_reason={reason: (right[reason], found[reason]) for reason in reasons},
        examples=tuple(problems.examples),
    )


class _Problems:
    """What is wrong, counted by name, the first few in words."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []
        #: origin -> its outcome, where that is right
        self.judged: dict[Origin, str] = {}

    def note(self, name: str, text: str) -> None:
        self.counts[name] += 1
        if self.counts[name] <= _MOST_EXAMPLES:
            self.examples.append(f"{name}: {text}")

    def judge(self, outcome: Outcome, event: Sent | None, time: int) -> None:
        """Note what is wrong with the `time`-th outcome of an event."""
        what = f"{outcome.what} of {outcome.origin}"
        if event is None:
            self.note("strangers", f"{what}, which was never sent")
            return
        if time > 1:
            self.note("duplicates", f"{what}, outcome number {time}")
        if outcome.what in event.expected:
            self.judged[outcome.origin] = outcome.what
        else:
            self.note("misjudged", f"{what}: expected {' or '.join(event.expected)}: {event.value!r:.160}")
        if outcome.what != PREDICTION and (outcome.key, outcome.value) != (event.key, event.value):
            self.note("altered", f"{what}: {outcome.value!r:.80} was {event.value!r:.80}")
