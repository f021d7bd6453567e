"""A slow oracle of every aggregation, over the values of a window as they are, by NumPy, pandas and plain Python."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from udfs.core.declare.durations import parse_duration_ms


class Event(NamedTuple):
    """One event of a key; `seq` is its place among all, so that events sort by time, then by arrival."""

    time_ms: int
    seq: int
    row: dict[str, Any]


class Given(NamedTuple):
    """What an aggregation looks at."""

    #: oldest first
    events: Sequence[Event]
    #: theirs, none of them null
    values: Sequence[Any]
    #: argument of the aggregation
    argument: Any = None
    #: value of the event for which the feature is
    own: Any = None
    now_ms: int = 0
    #: size of the window, 0 without one
    size_ms: int = 0

    @property
    def ages_ms(self) -> list[int]:
        return [self.now_ms - event.time_ms for event in self.events]

    def at(self, index: int) -> Any:
        """Return a value, counted from the end if negative; None where there is none."""
        return self.values[index] if -len(self.values) <= index < len(self.values) else None

    @property
    def weights(self) -> list[float]:
        """How much each counts by its age; of an event that is late the newest has weight 1."""
        youngest_ms = min([0, *self.ages_ms])
        return [2.0 ** ((youngest_ms - age_ms) / parse_duration_ms(self.argument)) for age_ms in self.ages_ms]

    def mean(self, weights: Sequence[float]) -> float | None:
        return self.decayed_sum(weights) / math.fsum(weights) if self.values else None  # type: ignore[operator]

    def decayed_sum(self, weights: Sequence[float]) -> float | None:
        products = (weight * value for weight, value in zip(weights, self.values, strict=True))
        return math.fsum(products) if self.values else None

    def moment(self, name: str, least: int) -> float | None:
        if len(self.values) < least or len(set(self.values)) == 1:
            return None
        return float(getattr(pd.Series(self.values, dtype=np.float64), name)())

    def there(self, sign: int) -> Any:
        """Return the value where another column is largest, or smallest; of several the latest."""
        pairs = zip(self.events, self.values, strict=True)
        found = [(event, value) for event, value in pairs if event.row[self.argument] is not None]
        return max(found, key=lambda one: (sign * one[0].row[self.argument], *one[0][:2]))[1] if found else None

    def bins(self) -> list[float]:
        counts = Counter(bisect_right(self.argument, value) for value in self.values)
        return [float(counts[i]) for i in range(len(self.argument) + 1)]

    def rate(self) -> float | None:
        length_ms = self.size_ms or max(self.ages_ms, default=0)
        return len(self.values) * parse_duration_ms(self.argument) / length_ms if length_ms > 0 else None

    def ranked(self) -> list[str]:
        counts = Counter(map(str, self.values))
        return [value for value, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][: self.argument]


SLOW: dict[str, Callable[[Given], list[Any]]] = {
    "count": lambda given: [float(len(given.values))],
    "sum": lambda given: [math.fsum(given.values) if given.values else None],
    "mean": lambda given: [math.fsum(given.values) / len(given.values) if given.values else None],
    "ratio": lambda given: [math.fsum(given.values) / len(given.values) if given.values else None],
    "min": lambda given: [min(given.values, default=None)],
    "max": lambda given: [max(given.values, default=None)],
    "variance": lambda given: [float(np.var(given.values, ddof=1)) if len(given.values) > 1 else None],
    "std": lambda given: [float(np.std(given.values, ddof=1)) if len(given.values) > 1 else None],
    "skew": lambda given: [given.moment("skew", 3)],
    "kurtosis": lambda given: [given.moment("kurt", 4)],
    "first": lambda given: [given.at(0)],
    "first_n": lambda given: [given.at(i) for i in range(given.argument)],
    "last": lambda given: [given.at(-1)],
    "last_n": lambda given: [given.at(-1 - i) for i in range(given.argument)],
    "lag": lambda given: [given.at(-given.argument)],
    "delta": lambda given: [
        None if given.own is None or given.at(-given.argument) is None else given.own - given.at(-given.argument)
    ],
    "time_since_first": lambda given: [float(given.ages_ms[0]) if given.values else None],
    "time_since_last": lambda given: [float(given.ages_ms[-1]) if given.values else None],
    "decayed_count": lambda given: [math.fsum(given.weights)],
    "decayed_sum": lambda given: [given.decayed_sum(given.weights)],
    "decayed_mean": lambda given: [given.mean(given.weights)],
    "argmax": lambda given: [given.there(1)],
    "argmin": lambda given: [given.there(-1)],
    "histogram": lambda given: given.bins(),
    "rate": lambda given: [given.rate()],
    "distinct": lambda given: [float(len(set(given.values)))],
    "unique": lambda given: [sorted(set(given.values))[: given.argument]],
    "top_k": lambda given: [given.ranked()],
    "quantile": lambda given: [float(np.quantile(given.values, given.argument)) if given.values else None],
}
"""Name of an aggregation -> its outputs, None for null."""
