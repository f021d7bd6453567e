"""Patience: what the readers of an enrichment's sequence are joined with, and which of them wait on.

A reader waits until a fitting row of its key comes, or until the clock of the enrichment in this lane has passed its
time by more than `wait`. The number of rows that the lane had seen by then is kept with it, as evidence: with these
numbers told, the same rows give the same joins, whatever else released them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from udfs.core.declare.declarations import Enrichment
from udfs.core.kernels.admit import NULL_KEY
from udfs.core.kernels.arrays import READS, Events, Pool
from udfs.core.kernels.waits import Outcome, Rule, Waits, clocks_after, join_waiting

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Patience:
    """How the readers of a sequence wait; arrays are in their order."""

    #: the first so many have waited before
    held: int
    #: rows that the lane had seen before the sequence
    first_seq: int
    #: bool[readers], those that wait no longer, whatever comes
    is_given_up: NDArray[np.bool_]
    #: int64[readers], of a run that is repeated: how many rows the lane had seen when each was joined
    told: I64 | None
    #: rows that the lane has seen after the sequence
    end_seq: int


class Joined(NamedTuple):
    """What became of the readers, in their order."""

    #: float64[readers, columns]
    values: F64
    #: int64[readers], rows that the lane had seen when they were joined: its own number at once; -1: they wait on
    until: I64
    #: bool[readers], no fitting row had come
    is_missing: NDArray[np.bool_]


def join_or_wait(
    join: Enrichment,
    events: Events,
    seqs: I64,
    clock_ms: int,
    horizon_ms: int,
    pool: Pool,
    touched: I64,
    patience: Patience,
) -> Joined:
    """Take a sequence of rows and readers.

    Parameters
    ----------
    events, seqs : the sequence, and the places of its rows in the lane's
    clock_ms, horizon_ms : the lane's clock before the sequence, and the time after which idle keys are forgotten
    pool, touched : as in `kernels.asof.join_latest`
    """
    count = events.slots.size
    at = np.flatnonzero(events.flags & READS)
    clocks_ms = np.empty(count, np.int64)
    clocks_after(events.times_ms, events.flags, events.status, clock_ms, horizon_ms, clocks_ms)
    expires = np.full(count, count)
    if patience.told is not None:
        last_seen = np.maximum(np.searchsorted(seqs, patience.told) - 1, at)
        expires[at] = np.where(patience.told > patience.end_seq, count, last_seen)
    elif join.wait_ms:
        expires[at] = np.maximum(np.searchsorted(clocks_ms, events.times_ms[at] + join.wait_ms, "right"), at)
    else:
        expires[at] = at
    is_hopeless = patience.is_given_up | (events.slots[at] == NULL_KEY)
    expires[at[is_hopeless]] = at[is_hopeless]
    by_expiry = at[np.argsort(expires[at], kind="stable")]
    waits = Waits(
        clocks_ms,
        expires,
        by_expiry[: np.searchsorted(expires[by_expiry], count)],
        np.unique(events.slots, return_inverse=True)[1],
        patience.told is not None,
        join.waiting_max if patience.told is None else count,
    )
    outcome = Outcome(np.empty((count, len(join.take))), np.empty(count, np.int64), np.zeros(count, np.bool_))
    rule = Rule(join.max_age_ms, join.keep_ms, horizon_ms, join.on_missing == "stale", join.fallback)
    join_waiting(events, waits, rule, pool, touched, outcome)
    joined_at = outcome.joined_at[at]
    has_waited = joined_at > at
    has_waited[: patience.held] = True
    until = np.where(has_waited, np.maximum(seqs[joined_at] + 1, patience.first_seq), seqs[at])
    if patience.told is not None:
        until = np.where(has_waited, patience.told, until)
    until[joined_at < 0] = -1
    return Joined(outcome.values[at], until, outcome.is_missing[at])
