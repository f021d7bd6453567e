"""What the payments pipeline says of events, by a plain loop over all of a key's earlier events.

It shares nothing with the kernels: sawtooth windows by their definition, sums by `math.fsum`, the model by numpy.
"""

import datetime as dt
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from scripts.bench.payments.model import scores

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LATENESS_MS = HOUR_MS
WINDOWS = ((10 * MINUTE_MS, MINUTE_MS), (HOUR_MS, MINUTE_MS), (DAY_MS, HOUR_MS))


class Payment(msgspec.Struct, gc=False):
    """One event."""

    payment_id: str
    paid_at_ms: int
    user: str
    merchant: str
    device: str
    known_device: int
    online: int
    amount: float


def _mean(amounts: list[float]) -> float:
    return math.fsum(amounts) / len(amounts)


def _std(amounts: list[float]) -> float:
    return statistics.stdev(amounts) if len(amounts) > 1 else math.nan


#: per entity its key, and what is taken of the amounts of each window
ENTITIES: tuple[tuple[Callable[[Payment], str], Sequence[Callable[[list[float]], float]]], ...] = (
    (lambda one: one.user, (len, _mean, max)),
    (lambda one: one.merchant, (len, _mean, _std)),
    (lambda one: f"{one.user}|{one.merchant}", (len, _mean)),
)


def expected(values: Sequence[bytes]) -> dict[str, float]:
    """Return event id -> score, of events that are good, each id once; late ones are left out."""
    before: list[dict[str, list[Payment]]] = [defaultdict(list) for _ in ENTITIES]
    ids, rows = [], []
    for one in (msgspec.json.decode(value, type=Payment) for value in values):
        day = dt.datetime.fromtimestamp(one.paid_at_ms / 1000, dt.UTC)
        row: list[float] = [one.amount, math.log(one.amount), one.known_device, one.online, day.hour]
        for (key_of, takes), seen in zip(ENTITIES, before, strict=True):
            mine = seen[key_of(one)]
            if mine and one.paid_at_ms < max(other.paid_at_ms for other in mine) - LATENESS_MS:
                break
            mine.append(one)
            for size_ms, slide_ms in WINDOWS:
                within = [other.amount for other in mine if _is_within(other, one, size_ms, slide_ms)]
                row += [take(within) for take in takes]
            if len(takes) == 3 and takes[2] is max:
                held = (other for other in mine if _is_within(other, one, *WINDOWS[0]))
                row.append(sum(other.online == 1 for other in held))
        else:
            ids.append(one.payment_id)
            rows.append(row)
    return dict(zip(ids, scores(np.array(rows, np.float64)).tolist(), strict=True))


def _is_within(other: Payment, one: Payment, size_ms: int, slide_ms: int) -> bool:
    tile = other.paid_at_ms // slide_ms
    return (one.paid_at_ms - size_ms) // slide_ms <= tile <= one.paid_at_ms // slide_ms
