"""A trial run: a model scores a batch that nobody sees, and is held to what a score must be."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import F32, Matrix, Scorer

LIMIT_S = 20.0
PROBABILITY_SLACK = 1e-6  # of float32 sums
SAME = 1e-5
"""How far a score may differ with the size of its batch: matrix products add up in another order."""


def trial(scorer: Scorer, matrix: Matrix, limit_s: float = LIMIT_S) -> F32:
    """Score a matrix, whole and in parts.

    Parameters
    ----------
    matrix : [n, inputs], n at least 1
    limit_s : how long one run may take

    Returns
    -------
    The scores, finite, see `Scorer.score`.

    Raises
    ------
    ModelRefusedError : `failed`, `timeout`, `shape`, `not_finite`, `range` or `batch`.
    """
    contract, output = scorer.contract, scorer.contract.output
    scores = run(scorer, matrix, limit_s)
    bad = np.flatnonzero(~np.isfinite(scores).reshape(len(scores), -1).all(axis=1))
    if len(bad):
        row = int(bad[0])
        msg = f"{contract.what}: row {row} of the golden batch scores {scores[row]}; a score must be finite"
        raise ModelRefusedError(Refusal.NOT_FINITE, msg)
    low, high = float(scores.min()), float(scores.max())
    if output.meaning == "probability" and not (-PROBABILITY_SLACK <= low <= high <= 1 + PROBABILITY_SLACK):
        msg = (
            f"{contract.what}: scores the golden batch from {low:.6g} to {high:.6g}; a probability is in [0, 1];"
            " is the output a value or a logit?"
        )
        raise ModelRefusedError(Refusal.RANGE, msg)
    half = len(matrix) // 2
    parts = [run(scorer, part, limit_s) for part in (matrix[:1], matrix[1:half], matrix[max(half, 1) :]) if len(part)]
    apart = np.abs(np.concatenate(parts) - scores) / np.maximum(np.abs(scores), 1)
    if not apart.max() <= SAME:
        msg = (
            f"{contract.what}: the score of a row changes by up to {apart.max():.3g} with the rows beside it; was it"
            " exported in training mode?"
        )
        raise ModelRefusedError(Refusal.BATCH, msg)
    return scores


def run(scorer: Scorer, matrix: Matrix, limit_s: float = LIMIT_S) -> F32:
    """Score a matrix within a time limit; the scores may be anything.

    Raises
    ------
    ModelRefusedError : `failed`: ONNX Runtime gave up. `timeout`. `shape`: not one score per row.
    """
    contract, output = scorer.contract, scorer.contract.output
    try:
        with limited(limit_s) as options:
            scores = scorer.score(matrix, options)
    except TimeoutError as error:
        msg = f"{contract.what}: a batch of {len(matrix)} rows took more than {limit_s:g} s"
        raise ModelRefusedError(Refusal.TIMEOUT, msg) from error
    except IndexError as error:
        msg = f"{contract.what}: output {output.name} has no column {output.column}"
        raise ModelRefusedError(Refusal.SHAPE, msg) from error
    except Exception as error:
        msg = f"{contract.what}: ONNX Runtime failed on a batch of {len(matrix)} rows: {error}"
        raise ModelRefusedError(Refusal.FAILED, msg) from error
    is_number = output.meaning in ("probability", "value")
    wanted = (len(matrix),) if is_number else (len(matrix), output.width)
    if scores.shape != wanted:
        msg = f"{contract.what}: output {output.name} gave {list(scores.shape)} for {len(matrix)} rows; {list(wanted)}"
        raise ModelRefusedError(Refusal.SHAPE, f"{msg} is expected")
    return scores


@contextmanager
def limited(limit_s: float) -> Iterator[ort.RunOptions]:
    """Yield options with which a run ends, at the next operator, once the time is over.

    Raises
    ------
    TimeoutError : it was over.
    """
    options, is_over = ort.RunOptions(), threading.Event()
    options.log_severity_level = 4

    def stop() -> None:
        is_over.set()
        options.terminate = True

    timer = threading.Timer(limit_s, stop)
    timer.daemon = True
    timer.start()
    try:
        yield options
    except Exception as error:
        if is_over.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()


def random_rows(dtypes: list[str], count: int, seed: int = 7) -> NDArray[Any]:
    """Return made-up rows of very different sizes, float64[count, columns], whole numbers for whole inputs."""
    chance = np.random.default_rng(seed)
    shape = (count, len(dtypes))
    rows = chance.normal(size=shape) * 10.0 ** chance.uniform(-2, 3, size=shape)
    for i, dtype in enumerate(dtypes):
        if dtype == "bool":
            rows[:, i] = rows[:, i] > 0
        elif dtype.startswith("int"):
            rows[:, i] = np.abs(np.rint(rows[:, i])) % 3
    return rows
