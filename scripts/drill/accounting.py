"""The books of a drill: ids in, ids out, versions in the order of the topic, gaps; nothing is read or measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Committed:
    """What a reader of committed records found in the predictions topic, in its order; columns of equal length."""

    #: number of the event, from its id
    ids: I64
    #: model version
    versions: I64
    #: when the broker appended it, epoch milliseconds
    appended_ms: I64


@dataclass(frozen=True, slots=True)
class Books:
    """What the ids come to."""

    produced: int
    committed: int
    #: events without a prediction
    missing: int
    #: predictions beyond the first of an event
    duplicates: int
    #: predictions of what was never sent
    invented: int

    @property
    def is_exact(self) -> bool:
        """Say whether inputs and outputs are equal as sets, and nothing came twice."""
        return not (self.missing or self.duplicates or self.invented)


def balance(sent: I64, ids: I64) -> Books:
    """Hold the ids of the predictions to those that were sent.

    Parameters
    ----------
    sent : int64[n], each once
    ids : int64[m], in any order

    Examples
    --------
    >>> balance(np.array([1, 2, 3]), np.array([2, 2, 9]))
    Books(produced=3, committed=3, missing=2, duplicates=1, invented=1)
    """
    found = np.unique(ids)
    return Books(
        produced=len(sent),
        committed=len(ids),
        missing=int(np.setdiff1d(sent, found, assume_unique=True).size),
        duplicates=len(ids) - len(found),
        invented=int(np.setdiff1d(found, sent, assume_unique=True).size),
    )


def runs(versions: I64) -> list[int]:
    """Return the versions as they follow each other, each run of equal ones once.

    Examples
    --------
    >>> runs(np.array([1, 1, 2, 2, 1]))
    [1, 2, 1]
    """
    if not len(versions):
        return []
    firsts = np.flatnonzero(np.diff(versions)) + 1
    return [int(versions[0]), *(int(one) for one in versions[firsts])]


def follows(found: Sequence[int], redeploys: Sequence[tuple[int, int, bool]], first: int) -> bool:
    """Say whether versions changed once per redeploy, and never back and forth.

    Parameters
    ----------
    found : as of `runs`
    redeploys : (version tried, version before, deployed), in order; of one that was rolled back the version tried may
        have predicted, once, or not
    first : version of the first job

    Examples
    --------
    >>> follows([1, 2, 3, 2], [(2, 1, True), (3, 2, False)], 1)
    True
    >>> follows([1, 2, 1, 2], [(2, 1, True)], 1)
    False
    """
    place, current = 1, first
    if list(found[:1]) != [first]:
        return False
    for version, before, is_deployed in redeploys:
        if before != current:
            return False
        if found[place : place + 1] == [version] and (is_deployed or found[place + 1 : place + 2] == [before]):
            place += 1 if is_deployed else 2
        elif is_deployed:
            return False
        current = version if is_deployed else before
    return place == len(found)


def longest_gap(times_ms: I64) -> tuple[int, int]:
    """Return the longest time between two neighbours, and when it began; 0 and -1 for fewer than two."""
    if len(times_ms) < 2:
        return 0, -1
    gaps = np.diff(times_ms)
    place = int(gaps.argmax())
    return int(gaps[place]), int(times_ms[place])


def first_after(committed: Committed, promoted_ms: Mapping[int, int]) -> dict[int, int | None]:
    """Return per promoted version the time from its promotion to its first prediction; None if it gave none."""
    found: dict[int, int | None] = {}
    for version, at_ms in promoted_ms.items():
        (places,) = np.nonzero(committed.versions == version)
        found[version] = int(committed.appended_ms[places[0]]) - at_ms if len(places) else None
    return found
