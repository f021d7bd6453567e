"""`by`: an aggregate of its own for each value of another column, up to 256 of them; the others share one bucket."""

from sys import getsizeof
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from udfs.core.aggregations import AGGREGATIONS, IRS
from udfs.core.kernels import dispatch
from udfs.core.sketches import OBJECT_BYTES

MOST, OTHERS = 256, "…"
F64 = NDArray[np.float64]


class Buckets:
    """The aggregates of a tile, or of a window, by value.

    Parameters
    ----------
    aggregation : name of the aggregation of each bucket
    params : its parameters
    """

    def __init__(self, aggregation: str, params: tuple[float, ...]) -> None:
        self._aggregation, self._params = AGGREGATIONS[aggregation], params
        self._ir, self._numbers = IRS[self._aggregation.ir], np.array(params, np.float64)
        self._irs: dict[str, F64] = {}

    def update(self, bucket_and_value: tuple[str, float], time_ms: int) -> None:
        """Add one value to its bucket."""
        bucket, value = bucket_and_value
        dispatch.update(self._ir.opcode, self._of(bucket), value, np.nan, time_ms, self._numbers, 0)

    def merge(self, older: Self) -> None:
        """Add the buckets of an older one."""
        for bucket in sorted(older._irs):
            dispatch.merge(self._ir.opcode, self._of(bucket), older._irs[bucket], self._numbers, 0)

    def value(self, now_ms: int, size_ms: int, index: int) -> list[tuple[str, float | None]]:
        """Return one output of each bucket, in the order of their names; None for null."""
        found = []
        for bucket in sorted(self._irs):
            ir = self._irs[bucket]
            one = dispatch.finalize(self._aggregation.opcode, ir, self._numbers, 0, index, np.nan, now_ms, size_ms)
            found.append((bucket, float(one) if np.isfinite(one) else None))
        return found

    @property
    def memory_bytes(self) -> int:
        """Return what it takes in memory."""
        return OBJECT_BYTES + sum(getsizeof(bucket) + 190 + ir.nbytes for bucket, ir in self._irs.items())

    def to_bytes(self) -> bytes:
        """Return bucket -> IR as MessagePack."""
        return msgspec.msgpack.encode(
            {bucket: self._irs[bucket].astype("<f8").tobytes() for bucket in sorted(self._irs)}
        )

    @classmethod
    def from_bytes(cls, data: bytes, aggregation: str, params: tuple[float, ...]) -> Self:
        """Read what `to_bytes` wrote."""
        made = cls(aggregation, params)
        stored = msgspec.msgpack.decode(data, type=dict[str, bytes])
        made._irs = {bucket: np.frombuffer(ir, "<f8").copy() for bucket, ir in stored.items()}
        return made

    def _of(self, bucket: str) -> F64:
        if bucket not in self._irs:
            if len(self._irs) >= MOST:
                bucket = OTHERS
            if bucket not in self._irs:
                self._irs[bucket] = np.empty(self._ir.width(self._params))
                dispatch.init(self._ir.opcode, self._irs[bucket], self._numbers, 0)
        return self._irs[bucket]
