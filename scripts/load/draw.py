"""Numbers drawn by a law or derived from other numbers, all at once."""

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


def zipf(uniform: F64, keys: int, skew: float) -> I64:
    """Return int64[n] of 0 .. keys - 1, key k with a chance of about (k + 1) ** -skew.

    The law is inverted in closed form, as that of a continuous variable that is rounded down: no table of the keys,
    so ten million cost what ten do.

    Parameters
    ----------
    uniform : in [0, 1)

    Examples
    --------
    >>> zipf(np.array([0.0, 0.5, 0.999]), 1_000, 1.0).tolist()
    [0, 30, 993]
    """
    if abs(skew - 1.0) < 1e-9:
        drawn = (keys + 1.0) ** uniform
    else:
        power = 1.0 - skew
        drawn = (((keys + 1.0) ** power - 1.0) * uniform + 1.0) ** (1.0 / power)
    return np.clip(drawn.astype(np.int64) - 1, 0, keys - 1)


def hashed(numbers: I64, salt: int) -> NDArray[np.uint64]:
    """Return uint64[n], the same for the same number and salt (SplitMix64, Steele et al., OOPSLA 2014)."""
    mixed = numbers.astype(np.uint64) + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hashed_uniform(numbers: I64, salt: int) -> F64:
    """Return float64[n] in [0, 1), the same for the same number and salt."""
    return (hashed(numbers, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53
