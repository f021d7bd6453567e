"""top_k: the most frequent values. Counts, exact up to 192 values; beyond it the small ones are purged.

A purge takes the median of 193 counts from each: at least 97 of them lose it whole, so no count loses more than a 97th
of all events, however many purges and merges there were.

Anderson, Bevin, Lang, Liberty, Rhodes, Thaler, "A High-Performance Algorithm for Identifying Frequent Items in Data
Streams", IMC 2017; as implemented in Apache DataSketches. That sketch lies in memory as its history has it; so the
counts are kept in a mapping, and it is only asked to purge them, in the order of the values: a restart then changes
nothing.
"""

from collections import Counter
from sys import getsizeof
from typing import Self

import msgspec
from datasketches import frequent_items_error_type, frequent_strings_sketch

from udfs.core.sketches import OBJECT_BYTES

LG_MAP, MOST = 8, 192


class Frequent:
    """Counts of the values of a tile, or of a window."""

    def __init__(self, params: tuple[float, ...]) -> None:
        self._wanted = int(params[0])
        self._counts: Counter[str] = Counter()

    def update(self, value: object, _time_ms: int) -> None:
        """Add one value, as text."""
        self._counts[str(value)] += 1
        self._purge()

    def merge(self, older: Self) -> None:
        """Add the counts of an older one."""
        self._counts.update(older._counts)
        self._purge()

    def value(self, _now_ms: int, _size_ms: int, _index: int) -> list[str]:
        """Return the most frequent values; of equally frequent ones the smaller first."""
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return [value for value, _ in ranked[: self._wanted]]

    @property
    def memory_bytes(self) -> int:
        """Return what it takes in memory."""
        return OBJECT_BYTES + sum(getsizeof(value) + 40 for value in self._counts)

    def to_bytes(self) -> bytes:
        """Return the counts as MessagePack, in the order of the values."""
        return msgspec.msgpack.encode(dict(sorted(self._counts.items())))

    @classmethod
    def from_bytes(cls, data: bytes, params: tuple[float, ...]) -> Self:
        """Read what `to_bytes` wrote."""
        made = cls(params)
        made._counts = Counter(msgspec.msgpack.decode(data, type=dict[str, int]))
        return made

    def _purge(self) -> None:
        if len(self._counts) <= MOST:
            return
        sketch = frequent_strings_sketch(LG_MAP)
        for value, count in sorted(self._counts.items()):
            sketch.update(value, count)
        kept = sketch.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES, 0)
        self._counts = Counter({value: lower for value, _, lower, _ in kept})
