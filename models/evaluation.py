"""How good scores are: ranking (AUC), probability (log loss, Brier) and calibration. NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from udfs.core.errors import ModelError

CALIBRATION_BINS = 10
SMALLEST_PROBABILITY = 1e-15  # a certain and wrong answer has no finite log loss


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Scores of one of ten equal shares of [0, 1]."""

    low: float
    high: float
    rows: int
    mean_score: float
    observed_rate: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measures of one model on one set of rows."""

    rows: int
    positive_rate: float
    auc: float
    log_loss: float
    brier: float
    #: mean distance of score and observed rate over the bins, weighted by rows
    calibration_error: float
    #: bins that have rows, ascending
    calibration: tuple[CalibrationBin, ...]


def evaluate(scores: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> Evaluation:
    """Measure scores against the truth.

    Parameters
    ----------
    scores : float[n], probabilities of the positive class
    positive : bool[n]

    Raises
    ------
    ModelError : there are no rows, one class only, or scores that are no probabilities.

    Examples
    --------
    >>> found = evaluate(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    >>> found.auc, round(found.brier, 4)
    (0.75, 0.1581)
    """
    count = int(np.count_nonzero(positive))
    if len(scores) != len(positive) or count in (0, len(positive)):
        msg = f"got {len(scores)} scores for {len(positive)} rows, {count} of them positive; both classes are needed"
        raise ModelError(msg)
    exact = scores.astype(np.float64)
    if not bool(np.all((exact >= 0) & (exact <= 1))):
        msg = f"got scores from {exact.min()} to {exact.max()}; a probability is in [0, 1]"
        raise ModelError(msg)
    bins = calibration(exact, positive)
    likely = np.clip(np.where(positive, exact, 1 - exact), SMALLEST_PROBABILITY, 1)
    return Evaluation(
        rows=len(exact),
        positive_rate=count / len(exact),
        auc=auc(exact, positive),
        log_loss=float(-np.log(likely).mean()),
        brier=float(((exact - positive) ** 2).mean()),
        calibration_error=sum(one.rows * abs(one.mean_score - one.observed_rate) for one in bins) / len(exact),
        calibration=bins,
    )


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Chance that a positive row scores above a negative one, equal scores counting half.

    References
    ----------
    Hanley and McNeil, Radiology 143(1), 1982: the area under the ROC curve is the Mann-Whitney statistic.
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    positives = int(np.count_nonzero(positive))
    negatives = len(positive) - positives
    return float((mean_rank[inverse][positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def calibration(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[CalibrationBin, ...]:
    """Mean score and observed rate per tenth of [0, 1]; a tenth without rows is left out."""
    number = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    return tuple(
        CalibrationBin(
            low=one / CALIBRATION_BINS,
            high=(one + 1) / CALIBRATION_BINS,
            rows=int(np.count_nonzero(number == one)),
            mean_score=float(scores[number == one].mean()),
            observed_rate=float(positive[number == one].mean()),
        )
        for one in np.unique(number).tolist()
    )
