"""Score operator: a piece in, its answers beside it out; asynchronous, so that no model run holds up the next piece.

Small batches run inside the coroutine, where a hand-over to a thread would cost more than the model; large ones in a
thread, since ONNX Runtime lets go of the GIL.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pyflink.common import Row
from pyflink.datastream import RuntimeContext
from pyflink.datastream.functions import AsyncFunction
from pyflink.metrics import MetricGroup

from udfs.core.declare.loading import load_pipeline
from udfs.core.model.guarded import Counts, GuardedModel
from udfs.core.model.memory import MemoryLimit
from udfs.core.model.scorer import Scorer
from udfs.core.model.serving import Answers, ArmsServer
from udfs.core.model.writing import model_folders
from udfs.core.rows.batches import Piece

INLINE_ROWS = 64
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scored:
    """A piece and what became of its rows."""

    piece: Piece
    answers: Answers


class Score(AsyncFunction):
    """Scores with the models that were shipped with the job.

    Parameters
    ----------
    bundle, model : folders of the pipeline's files and of the models, where the worker finds them
    """

    def __init__(self, bundle: str, model: str) -> None:
        self._bundle, self._model = bundle, model

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load, check and warm up the models."""
        pipeline = load_pipeline(Path(self._bundle))
        serving = pipeline.model.serving
        folders = model_folders(pipeline, Path(self._model))
        entities = {one.name: folders.pop(one.name) for one in pipeline.model.entities}
        scorers = {name: Scorer.load(folder, serving.providers) for name, folder in folders.items()}
        self._server = ArmsServer(pipeline, scorers, entities)
        # A model per entity may have to be read from disk first, which must not hold up the coroutine.
        self._inline_rows = 0 if entities else INLINE_ROWS
        self._server.warm_up()
        self._memory = MemoryLimit(serving.max_rss_mb)
        self._memory.check("after the models were loaded and warmed up")
        for name, scorer in scorers.items():
            _LOG.info(
                "arm %s: %s, sha256 %s, on %s", name, scorer.contract.what, scorer.contract.sha256, scorer.provider
            )
        self._add_gauges(runtime_context)

    def close(self) -> None:
        """End the server's thread: a worker may outlive its job's attempt."""
        if hasattr(self, "_server"):  # it is not there if `open` failed
            self._server.close()

    def _add_gauges(self, runtime_context: RuntimeContext) -> None:
        """Add the metrics: gauges, since what a counter counts inside an asynchronous function is lost."""
        server, metrics = self._server, runtime_context.get_metrics_group()
        scorers = [model.scorer for model in server.models.values()]
        # 1: the job started while the registry was away, with the last-known-good version.
        metrics.gauge("model_from_cache", lambda: int(any(one.contract.from_cache for one in scorers)))
        # 0 where `cuda` was asked for: there is no device here, the models run on the CPU.
        metrics.gauge("models_on_cuda", lambda: sum(one.provider == "cuda" for one in scorers))
        metrics.gauge("worker_rss_mb", lambda: self._memory.rss_mb)
        for rung in server.fallback:
            metrics.gauge(f"rows_by_{rung}", partial(server.fallen_back.__getitem__, rung))
        for name, model in server.models.items():
            arm = metrics.add_group("arm", name)
            _add_counts(arm, model.counts)
            arm.gauge("breaker_open", partial(_is_open, model))
        if (entities := server.composed.entities) is not None:  # thousands of them: no group each
            group = metrics.add_group("arm", "entities")
            _add_counts(group, entities.counts)
            group.gauge("models_loaded", entities.__len__)
            group.gauge("model_loads", lambda: entities.loads)
            group.gauge("models_mb", lambda: entities.held_bytes // 2**20)

    async def async_invoke(self, value: Row) -> Sequence[Scored]:
        """Score the rows of one piece."""
        self._memory.check("while scoring")
        piece = Piece.decode(value[1])
        if piece.rows.num_rows <= self._inline_rows:
            return [Scored(piece, self._server.answer(piece.rows))]
        loop = asyncio.get_running_loop()
        return [Scored(piece, await loop.run_in_executor(None, self._server.answer, piece.rows))]


def _add_counts(group: MetricGroup, counts: Counts) -> None:
    for count in ("scored_rows", "poison_rows", "failed_batches", "missed_deadlines"):
        group.gauge(count, partial(getattr, counts, count))


def _is_open(model: GuardedModel) -> int:
    return int(model.breaker.is_open)
