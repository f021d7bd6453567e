"""distinct: number of different values. A set of 8-byte digests up to 256 of them, beyond it a HyperLogLog.

HyperLogLog: Heule, Nunkesser, Hall, "HyperLogLog in Practice", EDBT 2013; as implemented in Apache DataSketches, with
2^12 registers of a byte. The estimate is that of a union, which does not depend on the order of the values.
"""

from hashlib import blake2b
from typing import Self

from datasketches import HLL_8, hll_sketch, hll_union

from udfs.core.sketches import OBJECT_BYTES

BOUND, LG_REGISTERS = 256, 12
DIGEST_BYTES = 8
SET_BYTES, SKETCH_BYTES = 200, 4_300


class Distinct:
    """The different values of a tile, or of a window."""

    def __init__(self, _params: tuple[float, ...] = ()) -> None:
        self._digests: set[bytes] = set()
        self._sketch: hll_sketch | None = None

    def update(self, value: object, _time_ms: int) -> None:
        """Add one value."""
        self._add({blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()})

    def merge(self, older: Self) -> None:
        """Add the values of an older one, which stays as it is."""
        if older._sketch is not None:
            union = hll_union(LG_REGISTERS)
            union.update(older._sketch)
            if self._sketch is not None:
                union.update(self._sketch)
            self._sketch = union.get_result(HLL_8)
        self._add(older._digests)

    def value(self, _now_ms: int, _size_ms: int, _index: int) -> float:
        """Return the number of different values."""
        if self._sketch is None:
            return float(len(self._digests))
        union = hll_union(LG_REGISTERS)
        for _ in range(2):  # of one alone it would give an estimate that goes by the history of that one
            union.update(self._sketch)
        return float(union.get_estimate())

    @property
    def memory_bytes(self) -> int:
        """Return what it takes in memory."""
        return OBJECT_BYTES + (SKETCH_BYTES if self._sketch is not None else SET_BYTES + 80 * len(self._digests))

    def to_bytes(self) -> bytes:
        """Return the digests in order, or the registers."""
        if self._sketch is not None:
            return b"h" + bytes(self._sketch.serialize_updatable())
        return b"s" + b"".join(sorted(self._digests))

    @classmethod
    def from_bytes(cls, data: bytes, params: tuple[float, ...] = ()) -> Self:
        """Read what `to_bytes` wrote."""
        made = cls(params)
        if data[:1] == b"h":
            made._sketch = hll_sketch.deserialize(data[1:])
        else:
            made._digests = {data[at : at + DIGEST_BYTES] for at in range(1, len(data), DIGEST_BYTES)}
        return made

    def _add(self, digests: set[bytes]) -> None:
        self._digests |= digests
        if self._sketch is None and len(self._digests) > BOUND:
            self._sketch = hll_sketch(LG_REGISTERS, HLL_8)
        if self._sketch is not None:
            for digest in sorted(self._digests):
                self._sketch.update(int.from_bytes(digest, "little", signed=True))
            self._digests = set()
