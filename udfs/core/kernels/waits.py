"""As-of join that waits: a reader without a fitting row is joined when one comes, or given up when its wait is over."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel
from udfs.core.kernels.admit import OK, SKIPPED, advanced
from udfs.core.kernels.arrays import UPDATES, Events, Pool
from udfs.core.kernels.asof import latest_row, place_row

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
ANY_AGE_MS = 1 << 62


class Rule(NamedTuple):
    """What fits, and what a reader gets that is given up."""

    max_age_ms: int
    keep_ms: int
    horizon_ms: int
    #: True: an older row, if there is one
    is_stale: bool
    #: float64[columns], otherwise
    fallback: F64


class Waits(NamedTuple):
    """How the rows of a sequence wait."""

    #: int64[n], the lane's clock after each row
    clocks_ms: I64
    #: int64[n], row after which a reader is given up: itself to wait not at all, n to wait beyond the sequence
    expires: I64
    #: int64[], the readers that are given up in the sequence, in the order in which they are
    by_expiry: I64
    #: int64[n], number of the row's key within the sequence
    groups: I64
    #: True: a row that comes joins nobody, only `expires` says when a reader is joined
    is_told: bool
    #: how many may wait; one more and the first is given up
    most: int


class Outcome(NamedTuple):
    """What became of the readers."""

    #: float64[n, columns], what they are joined with
    values: F64
    #: int64[n], row after which they were; -1: they wait on
    joined_at: I64
    #: bool[n], they were given up
    is_missing: NDArray[np.bool_]


@kernel
def clocks_after(
    times_ms: I64, flags: NDArray[np.int8], status: NDArray[np.int8], clock_ms: int, horizon_ms: int, clocks_ms: I64
) -> None:
    """Write the lane's clock after each row, `clock_ms` being that before, as `admit` advances it."""
    for i in range(times_ms.size):
        if flags[i] & UPDATES and status[i] != SKIPPED:
            clock_ms = advanced(clock_ms, times_ms[i], horizon_ms)
        clocks_ms[i] = clock_ms


@kernel
def settle(
    i: int, after: int, is_given_up: bool, events: Events, waits: Waits, rule: Rule, pool: Pool, outcome: Outcome
) -> bool:
    """Join reader `i` with what there is after a row; without a fitting one only if it is given up. Say if it was."""
    slot, time_ms = events.slots[i], events.times_ms[i]
    head, older, tile = pool.head, pool.older, pool.tile
    is_alive = slot >= 0 and head[slot] >= 0 and waits.clocks_ms[after] - tile[head[slot]] <= rule.horizon_ms
    cell = latest_row(slot, time_ms, rule.max_age_ms, rule.keep_ms, head, older, tile) if is_alive else -1
    if cell < 0 and not is_given_up:
        return False
    outcome.joined_at[i] = after
    outcome.is_missing[i] = cell < 0
    if cell < 0 and is_alive and rule.is_stale:
        cell = latest_row(slot, time_ms, ANY_AGE_MS, rule.keep_ms, head, older, tile)
    for column in range(rule.fallback.size):
        outcome.values[i, column] = pool.irs[cell, column] if cell >= 0 else rule.fallback[column]
    return True


@kernel
def settle_key(
    group: int,
    after: int,
    last: I64,
    earlier: I64,
    events: Events,
    waits: Waits,
    rule: Rule,
    pool: Pool,
    outcome: Outcome,
) -> int:
    """Join the readers of a key that its new row fits, and take all that are joined off its list; return how many."""
    count, kept, reader = 0, -1, last[group]
    while reader >= 0:
        if outcome.joined_at[reader] < 0 and settle(reader, after, False, events, waits, rule, pool, outcome):
            count += 1
        if outcome.joined_at[reader] < 0:
            kept = reader
        elif kept < 0:
            last[group] = earlier[reader]
        else:
            earlier[kept] = earlier[reader]
        reader = earlier[reader]
    return count


@kernel
def join_waiting(events: Events, waits: Waits, rule: Rule, pool: Pool, touched: I64, outcome: Outcome) -> None:
    """Store the rows that update; join those that read, at once or when a fitting row has come.

    Parameters
    ----------
    events, pool, touched : as in `join_latest`
    outcome : written for the rows that read
    """
    slots, times_ms, values, flags, statuses, reborn = events
    head, older, owner, tile, irs, free, free_count = pool
    expires, by_expiry, groups, joined_at = waits.expires, waits.by_expiry, waits.groups, outcome.joined_at
    #: readers that wait, per key as a list, the last one first
    last, earlier = np.full(slots.size, -1), np.full(slots.size, -1)
    waiting = oldest = expired = 0
    for i in range(slots.size):
        touched[i] = -1
        slot, group = slots[i], groups[i]
        if not flags[i] & UPDATES:
            joined_at[i] = -1
            if not settle(i, i, expires[i] <= i, events, waits, rule, pool, outcome):
                waiting += 1
                earlier[i], last[group] = last[group], i
        elif statuses[i] == OK:
            cell = place_row(slot, times_ms[i], reborn[i], rule.keep_ms, head, older, owner, tile, free, free_count)
            touched[i] = cell
            irs[cell] = values[i]
            if not waits.is_told:
                waiting -= settle_key(group, i, last, earlier, events, waits, rule, pool, outcome)
        while expired < by_expiry.size and expires[by_expiry[expired]] <= i:
            if joined_at[by_expiry[expired]] < 0:
                waiting -= settle(by_expiry[expired], i, True, events, waits, rule, pool, outcome)
            expired += 1
        while waiting > waits.most:
            if not flags[oldest] & UPDATES and joined_at[oldest] < 0:
                waiting -= settle(oldest, i, True, events, waits, rule, pool, outcome)
            oldest += 1
