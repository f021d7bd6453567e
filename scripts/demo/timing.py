"""Throughput and latency by the timestamps that the broker gave when it appended inputs and predictions.

A prediction is appended inside a transaction: readers of committed records see it at the next checkpoint.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.demo.outputs import Prediction

PERCENTILES = (50, 90, 99, 99.9)


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast it was."""

    #: predictions of the backlog per second, from its first append in to its last append out: sending included
    throughput_eps: float
    #: the same from when all of the backlog could be read: the job alone
    catch_up_eps: float
    throughput_rows: int
    #: percentile -> prediction's append minus input's append
    latency_ms: dict[float, float]
    latency_rows: int


def measure(predictions: list[Prediction], backlog_visible_ms: int, paced_from_offset: int) -> Timing:
    """Measure throughput on the backlog, and latency on the events behind it.

    Parameters
    ----------
    predictions : of an input topic with one partition
    backlog_visible_ms : when all events before `paced_from_offset` could be read
    paced_from_offset : the first event that was sent at an even pace
    """
    offset = np.array([one.origin.offset for one in predictions], np.int64)
    taken_ms = np.array([one.input_appended_ms for one in predictions], np.int64)
    out_ms = np.array([one.appended_ms for one in predictions], np.int64)
    paced = offset >= paced_from_offset
    return Timing(
        throughput_eps(int(taken_ms[~paced].min(initial=backlog_visible_ms)), out_ms[~paced]),
        throughput_eps(backlog_visible_ms, out_ms[~paced]),
        int(np.count_nonzero(~paced)),
        percentiles_ms((out_ms - taken_ms)[paced]),
        int(np.count_nonzero(paced)),
    )


def throughput_eps(start_ms: int, out_ms: NDArray[np.int64]) -> float:
    """Return rows per second from a start to the last append out; 0.0 without rows.

    Examples
    --------
    >>> throughput_eps(1_000, np.array([1_200, 1_500]))
    4.0
    """
    if len(out_ms) == 0:
        return 0.0
    # Timestamps are whole milliseconds: a shorter time than one cannot be told.
    return len(out_ms) * 1000.0 / max(int(out_ms.max()) - start_ms, 1)


def percentiles_ms(latency_ms: NDArray[np.int64]) -> dict[float, float]:
    """Return the percentiles of latencies, each one that was measured (no interpolation); 0.0 without rows."""
    if len(latency_ms) == 0:
        return dict.fromkeys(PERCENTILES, 0.0)
    found = np.percentile(latency_ms, PERCENTILES, method="higher").tolist()
    return dict(zip(PERCENTILES, map(float, found), strict=True))
