"""Thresholds of a LightGBM model rounded to float32, so that its ONNX form takes the same branch for every input.

LightGBM compares doubles, ONNX float32. Rounded to nearest, a threshold may pass the float32 just above it and send
that very value the other way; rounded down, `x <= threshold` keeps its answer for every float32 x.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import lightgbm as lgb

# LightGBM reads a smaller value as zero, and puts a threshold here to tell zero from negative numbers.
ZERO_BELOW = np.float32(1e-35)


def round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return per threshold the largest float32 that is not above it; see `ZERO_BELOW` for the one exception.

    Parameters
    ----------
    thresholds : float64[n], not NaN

    Examples
    --------
    >>> float(np.float32(0.1)) > 0.1, float(round_down(np.array([0.1]))[0]) <= 0.1
    (True, True)
    """
    below = np.float32(-np.inf)
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    rounded: NDArray[np.float32] = np.where(nearest > thresholds, np.nextafter(nearest, below), nearest)
    zeros = (rounded < 0) & (rounded >= -ZERO_BELOW)
    return np.where(zeros, np.nextafter(-ZERO_BELOW, below), rounded)


def round_thresholds(booster: "lgb.Booster") -> "lgb.Booster":
    """Return the same model with float32 thresholds; its scores of float32 inputs do not change."""
    lines = booster.model_to_string().split("\n")
    rounded = [_round_line(line) if line.startswith("threshold=") else line for line in lines]
    # The text names the length of each tree, which other digits make wrong; without it LightGBM finds the trees itself.
    kept = [line for line in rounded if not line.startswith("tree_sizes=")]
    import lightgbm as lgb

    return lgb.Booster(model_str="\n".join(kept))


def _round_line(line: str) -> str:
    name, _, numbers = line.partition("=")
    thresholds = round_down(np.array(numbers.split(), np.float64)).astype(np.float64)
    return f"{name}={' '.join(f'{value:.17g}' for value in thresholds)}"
