"""first, last, lag of text: by event time; of equal times the earlier arrival is first and the later last. Exact."""

from sys import getsizeof
from typing import Any, Self

import msgspec

from udfs.core.sketches import OBJECT_BYTES


class _Ends:
    """A short list of (time, value); subclasses say at which end it begins."""

    def __init__(self, params: tuple[float, ...]) -> None:
        self._most = int(params[0])
        self._pairs: list[tuple[int, Any]] = []

    def _insert(self, time_ms: int, value: Any, at: int) -> None:
        self._pairs.insert(at, (time_ms, value))
        del self._pairs[self._most :]

    def value(self, _now_ms: int, _size_ms: int, index: int) -> Any:
        """Return the value at a position, None where there are fewer."""
        return self._pairs[index][1] if index < len(self._pairs) else None

    @property
    def memory_bytes(self) -> int:
        """Return what it takes in memory."""
        return OBJECT_BYTES + sum(getsizeof(value) + 80 for _, value in self._pairs)

    def to_bytes(self) -> bytes:
        """Return the pairs as MessagePack."""
        return msgspec.msgpack.encode(self._pairs)

    @classmethod
    def from_bytes(cls, data: bytes, params: tuple[float, ...]) -> Self:
        """Read what `to_bytes` wrote."""
        made = cls(params)
        made._pairs = msgspec.msgpack.decode(data, type=list[tuple[int, Any]])
        return made


class First(_Ends):
    """The oldest values."""

    def update(self, value: Any, time_ms: int) -> None:
        """Add one value, behind those of its time."""
        self._insert(time_ms, value, sum(time <= time_ms for time, _ in self._pairs))

    def merge(self, older: Self) -> None:
        """Add the values of an older one, before those of the same time."""
        self._pairs = sorted([*older._pairs, *self._pairs], key=lambda pair: pair[0])[: self._most]


class Last(_Ends):
    """The newest values."""

    def update(self, value: Any, time_ms: int) -> None:
        """Add one value, before those of its time."""
        self._insert(time_ms, value, sum(time > time_ms for time, _ in self._pairs))

    def merge(self, older: Self) -> None:
        """Add the values of an older one, behind those of the same time."""
        self._pairs = sorted([*self._pairs, *older._pairs], key=lambda pair: -pair[0])[: self._most]
