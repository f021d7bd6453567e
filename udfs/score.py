"""Score operator: a piece in, its scores beside it out; asynchronous, so that no model run holds up the next piece.

Small batches run inside the coroutine, where a hand-over to a thread would cost more than the model; large ones in a
thread, since ONNX Runtime lets go of the GIL.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyflink.common import Row
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import AsyncFunction

from udfs.core.model.scorer import Scorer
from udfs.core.rows.batches import Piece

INLINE_ROWS = 64


@dataclass(frozen=True, slots=True)
class Scored:
    """A piece and the scores of its rows: float32[n], or float32[n, width] for class scores and vectors."""

    piece: Piece
    scores: NDArray[np.float32]


class Score(AsyncFunction):
    """Scores with the model that was shipped with the job; `model` is its folder, where the worker finds it."""

    def __init__(self, model: str) -> None:
        self._model = model

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load and check the model."""
        self._scorer = scorer = Scorer.load(Path(self._model))
        # 1: the job started while the registry was away, with the last-known-good version.
        runtime_context.get_metrics_group().gauge("model_from_cache", lambda: int(scorer.contract.from_cache))

    async def async_invoke(self, value: Row) -> Sequence[Scored]:
        """Score the rows of one piece."""
        piece = Piece.decode(value[1])
        if piece.rows.num_rows == 0:
            return [Scored(piece, np.empty(0, np.float32))]
        if piece.rows.num_rows <= INLINE_ROWS:
            return [Scored(piece, self._score(piece.rows))]
        scores = await asyncio.get_running_loop().run_in_executor(None, self._score, piece.rows)
        return [Scored(piece, scores)]

    def _score(self, rows: pa.RecordBatch) -> NDArray[np.float32]:
        return self._scorer.score(self._scorer.matrix(rows))
