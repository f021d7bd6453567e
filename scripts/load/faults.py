"""Disorder, duplicates, late payments and poison, put into a block of payments; each says what is to come of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scripts.load.draw import I64
from scripts.load.payments import Payments
from scripts.load.settings import Load

GOOD, DUPLICATE, LATE, POISON = 0, 1, 2, 3
KINDS = {GOOD: "good", DUPLICATE: "duplicate", LATE: "late", POISON: "poison"}
_AMOUNT = b',"amount":'


@dataclass(frozen=True, slots=True)
class Sent:
    """A block in the order in which it is sent."""

    payments: Payments
    #: int8[n], GOOD to POISON
    kind: NDArray[np.int8]


def _with_amount(text: bytes) -> Callable[[bytes], bytes]:
    return lambda value: value[: value.index(_AMOUNT)] + text + b"}"


#: Reason for which the contract of `conf/payments` refuses it -> what makes it so. The key stays as it was.
POISONS: dict[str, Callable[[bytes], bytes | None]] = {
    "malformed": lambda value: value[:-12],
    "wrong_type": _with_amount(_AMOUNT + b'"12"'),
    "missing_field": _with_amount(b""),
    "null_field": _with_amount(_AMOUNT + b"null"),
    "out_of_range": _with_amount(_AMOUNT + b"-1.00"),
    "not_finite": _with_amount(_AMOUNT + b"NaN"),
    "not_utf8": lambda value: value[:-1] + b',"\xff":0}',
    "empty": lambda _value: b"",
    "tombstone": lambda _value: None,
}


def as_sent(load: Load, block: int, made: Payments) -> Sent:
    """Return a block in the order in which it is sent, with its faults."""
    count = made.number.size
    chance = np.random.default_rng([load.seed, block, 1])
    if load.disorder_ms:
        behind = chance.integers(0, load.disorder_ms + 1, count)
        made = made.take(np.argsort(made.time_ms + behind, kind="stable"))
    kind = np.zeros(count, np.int8)
    drawn = chance.random(count)
    bounds = np.cumsum([load.duplicate_share, load.late_share, load.poison_share])
    kind[drawn < bounds[2]] = POISON
    kind[drawn < bounds[1]] = LATE
    kind[drawn < bounds[0]] = DUPLICATE
    kind[0] = GOOD
    good = np.flatnonzero(kind == GOOD)
    # Of some good event before each place: what is repeated, or what a late one comes behind.
    before = np.searchsorted(good, np.arange(count))
    earlier = good[(chance.random(count) * np.maximum(before, 1)).astype(np.int64)]
    late = kind == LATE
    source = np.where(kind == DUPLICATE, earlier, np.arange(count))
    if late.any():
        made = replace(made, user=made.user.copy(), time_ms=made.time_ms.copy())
        made.user[late] = made.user[earlier[late]]
        behind_ms = load.late_ms + 1 + chance.integers(0, 60_000, count)
        made.time_ms[late] = (made.time_ms[earlier] - behind_ms)[late]
    return Sent(made.take(source), kind)


def poisoned(values: list[bytes], kind: NDArray[np.int8]) -> tuple[list[bytes | None], dict[int, str]]:
    """Return the texts with poison in place of those that are to be, and per place the reason.

    Parameters
    ----------
    kind : int8[n]
    """
    found: list[bytes | None] = list(values)
    reasons: dict[int, str] = {}
    names = list(POISONS)
    places: I64 = np.flatnonzero(kind == POISON)
    for i, place in enumerate(places.tolist()):
        name = names[i % len(names)]
        found[place], reasons[place] = POISONS[name](values[place]), name
    return found, reasons
