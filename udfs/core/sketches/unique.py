"""unique: the n smallest of the different values. Exact. State: the values."""

from bisect import insort
from sys import getsizeof
from typing import Any, Self

import msgspec

from udfs.core.sketches import OBJECT_BYTES


class Unique:
    """The smallest different values of a tile, or of a window, ascending."""

    def __init__(self, params: tuple[float, ...]) -> None:
        self._most = int(params[0])
        self._values: list[Any] = []

    def update(self, value: Any, _time_ms: int) -> None:
        """Add one value."""
        if value not in self._values:
            insort(self._values, value)
            del self._values[self._most :]

    def merge(self, older: Self) -> None:
        """Add the values of an older one."""
        for value in older._values:
            self.update(value, 0)

    def value(self, _now_ms: int, _size_ms: int, _index: int) -> list[Any]:
        """Return the values, ascending."""
        return list(self._values)

    @property
    def memory_bytes(self) -> int:
        """Return what it takes in memory."""
        return OBJECT_BYTES + sum(getsizeof(value) + 12 for value in self._values)

    def to_bytes(self) -> bytes:
        """Return the values as MessagePack."""
        return msgspec.msgpack.encode(self._values)

    @classmethod
    def from_bytes(cls, data: bytes, params: tuple[float, ...]) -> Self:
        """Read what `to_bytes` wrote."""
        made = cls(params)
        made._values = msgspec.msgpack.decode(data)
        return made
