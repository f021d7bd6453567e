"""quantile: by t-digest. The values themselves up to 64 of them, beyond it centroids and up to 64 newer values.

Dunning, Ertl, "Computing Extremely Accurate Quantiles Using t-Digests", 2019; as implemented in Apache DataSketches,
k = 200. It keeps values of its own until it compresses, which it also does when it is stored: they are kept here
instead, so that storing it changes nothing.
"""

from typing import Self

import numpy as np
from datasketches import tdigest_double

from udfs.core.sketches import OBJECT_BYTES

COMPRESSION, BUFFER = 200, 64
DIGEST_BYTES = 12_000


class Quantile:
    """The values of a tile, or of a window."""

    def __init__(self, params: tuple[float, ...]) -> None:
        self._share = params[0]
        self._digest: tdigest_double | None = None
        self._values: list[float] = []

    def update(self, value: float, _time_ms: int) -> None:
        """Add one value."""
        self._values.append(float(value))
        if len(self._values) > BUFFER:
            self._compress()

    def merge(self, older: Self) -> None:
        """Add the values of an older one, which stays as it is."""
        if older._digest is not None:
            self._compress()
            assert self._digest is not None  # noqa: S101  just made
            self._digest.merge(older._digest)
            self._digest.compress()
        for value in older._values:
            self.update(value, 0)

    def value(self, _now_ms: int, _size_ms: int, _index: int) -> float | None:
        """Return the quantile: of the values themselves, interpolated as NumPy does, while there are few."""
        if self._digest is None:
            return float(np.quantile(self._values, self._share)) if self._values else None
        whole = tdigest_double.deserialize(self._digest.serialize())
        for value in self._values:
            whole.update(value)
        return float(whole.get_quantile(self._share))

    @property
    def memory_bytes(self) -> int:
        """Return what it takes in memory."""
        return OBJECT_BYTES + 40 * len(self._values) + (DIGEST_BYTES if self._digest is not None else 0)

    def to_bytes(self) -> bytes:
        """Return the number of values kept, those, and the centroids."""
        kept = np.array([len(self._values), *self._values], "<f8").tobytes()
        return kept + (self._digest.serialize() if self._digest is not None else b"")

    @classmethod
    def from_bytes(cls, data: bytes, params: tuple[float, ...]) -> Self:
        """Read what `to_bytes` wrote."""
        made = cls(params)
        count = int(np.frombuffer(data[:8], "<f8")[0])
        made._values = np.frombuffer(data[8 : 8 + 8 * count], "<f8").tolist()
        if len(data) > 8 + 8 * count:
            made._digest = tdigest_double.deserialize(data[8 + 8 * count :])
        return made

    def _compress(self) -> None:
        if self._digest is None:
            self._digest = tdigest_double(COMPRESSION)
        for value in self._values:
            self._digest.update(value)
        self._digest.compress()
        self._values = []
