"""Hashes of texts, one 64-bit number each, the same on every machine and in every process."""

import numpy as np
from numpy.typing import NDArray

from udfs.core.jit import kernel

FNV_START, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@kernel
def hash_texts(ends: NDArray[np.int32], data: NDArray[np.uint8], hashes: NDArray[np.uint64]) -> None:
    """Write the hash of each text.

    Parameters
    ----------
    ends : int32[n + 1], text i is data[ends[i] : ends[i + 1]], as in Arrow
    data : uint8[bytes], UTF-8
    hashes : uint64[n], out

    References
    ----------
    Fowler, Noll, Vo: FNV-1a, 64 bits.
    """
    for i in range(hashes.size):
        code = FNV_START
        for at in range(ends[i], ends[i + 1]):
            code = (code ^ np.uint64(data[at])) * FNV_PRIME
        hashes[i] = code
