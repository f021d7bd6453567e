"""A stream of Kafka events held as columns, and how streams are put together in the order of event time."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Event:
    """One Kafka record to be sent."""

    topic: str
    key: bytes | None
    #: None is a tombstone.
    value: bytes | None
    #: Event time, epoch milliseconds UTC; orders and paces a replay, and is not sent.
    time_ms: int


@dataclass(frozen=True, slots=True)
class Events:
    """Events as columns of equal length, in the order they are sent."""

    topics: Sequence[str]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    #: int64[n]
    times_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Event]:
        columns = zip(self.topics, self.keys, self.values, self.times_ms.tolist(), strict=True)
        return itertools.starmap(Event, columns)

    def take(self, indices: NDArray[Any]) -> "Events":
        """Return the events at these positions, in this order; a boolean mask works too."""
        positions = (np.flatnonzero(indices) if indices.dtype == bool else indices).tolist()
        return Events(
            [self.topics[i] for i in positions],
            [self.keys[i] for i in positions],
            [self.values[i] for i in positions],
            self.times_ms[positions],
        )

    def prefixed(self, prefix: str) -> "Events":
        """Return the same events for topics whose names start with `prefix`, to keep runs on one broker apart."""
        return Events([prefix + topic for topic in self.topics], self.keys, self.values, self.times_ms)


def merge(*streams: Events) -> Events:
    """Put streams together by event time; at equal times, the stream named first goes first.

    Parameters
    ----------
    streams : each already in order of `times_ms`; the order inside a stream is kept.

    Examples
    --------
    >>> def one(topic: str, time_ms: int) -> Events:
    ...     return Events([topic], [None], [b"{}"], np.array([time_ms]))
    >>> [event.topic for event in merge(one("b", 2), one("a", 2), one("c", 1))]
    ['c', 'b', 'a']
    """
    together = Events(
        list(itertools.chain.from_iterable(stream.topics for stream in streams)),
        list(itertools.chain.from_iterable(stream.keys for stream in streams)),
        list(itertools.chain.from_iterable(stream.values for stream in streams)),
        np.concatenate([np.zeros(0, np.int64), *(stream.times_ms for stream in streams)]),
    )
    return together.take(np.argsort(together.times_ms, kind="stable"))


def of_rows(topic: str, key: str, columns: dict[str, list[Any]], times_ms: NDArray[np.int64]) -> Events:
    """Encode columns as one compact JSON object per row, ordered by time, rows of equal time as they come.

    Parameters
    ----------
    topic : where they are to be sent.
    key : the column whose text is the Kafka key; null gives a null key.
    columns : field name -> values, in the order of the fields in the JSON.
    times_ms : int64[n], event times.

    Examples
    --------
    >>> events = of_rows("t", "k", {"k": ["b", None], "n": [1, 2]}, np.array([9, 8]))
    >>> [(event.key, event.value) for event in events]
    [(None, b'{"k":null,"n":2}'), (b'b', b'{"k":"b","n":1}')]
    """
    encode = msgspec.json.Encoder().encode
    names = tuple(columns)
    values = [encode(dict(zip(names, row, strict=False))) for row in zip(*columns.values(), strict=True)]
    keys = [None if text is None else text.encode() for text in columns[key]]
    events = Events([topic] * len(values), keys, values, times_ms)
    return events.take(np.argsort(times_ms, kind="stable"))
