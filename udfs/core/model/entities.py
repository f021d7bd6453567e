"""Models per entity: which one a row gets, and the few that are in memory; the least recently used one leaves first."""

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.core.declare.composition import PerEntity
from udfs.core.declare.serving import Serving
from udfs.core.model.breaker import Breaker
from udfs.core.model.contract import ModelContract
from udfs.core.model.deadline import Deadlines
from udfs.core.model.files import ONNX_FILE, read_file
from udfs.core.model.guarded import Counts, GuardedModel
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import Scorer

MEMORY_PER_BYTE, MEMORY_LEAST = 6, 256 * 1024
"""What a loaded model is counted as, per byte of its file, and at least: as measured for ensembles of trees, which take
the most; a network of dense layers takes two bytes per byte."""


def memory_of(onnx_bytes: int) -> int:
    """Return what a loaded model is counted as, in bytes."""
    return MEMORY_LEAST + MEMORY_PER_BYTE * onnx_bytes


def refuse_too_large(per: PerEntity, what: str, onnx_bytes: int) -> None:
    """Refuse a model that would not fit alone.

    Raises
    ------
    ModelRefusedError : `too_large`.
    """
    if memory_of(onnx_bytes) > per.memory_mb * 2**20:
        msg = (
            f"{what}: model.onnx has {onnx_bytes} bytes and counts as {memory_of(onnx_bytes) / 2**20:.1f} MB in memory;"
            f" model.per_entity.memory_mb allows {per.memory_mb} for all loaded models together; allow more"
        )
        raise ModelRefusedError(Refusal.TOO_LARGE, msg)


class EntityKeys:
    """Says by a row's key which entity's model it gets; a function of the row alone.

    Parameters
    ----------
    per : as declared
    """

    def __init__(self, per: PerEntity) -> None:
        self.key, self._values = per.key, pa.array(list(per.values), pa.string())

    def assign(self, rows: pa.RecordBatch) -> NDArray[np.int64]:
        """Return the place of each row's value in the declaration, -1 where it has none, int64[n]."""
        column = rows[self.key]
        texts = column if pa.types.is_string(column.type) else pc.cast(column, pa.string())
        found = pc.index_in(texts, value_set=self._values).fill_null(-1)
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


class EntityModels:
    """Loads models when they are asked for, from their verified folders, and lets go of them when memory is short.

    A model that leaves while a batch is scored with it is there until that batch is done: each thread that scores may
    hold one beyond the limit.

    Parameters
    ----------
    folders : model -> its folder, as shipped with the job
    per, serving : as declared
    deadlines : of the job's models
    """

    def __init__(self, folders: Mapping[str, Path], per: PerEntity, serving: Serving, deadlines: Deadlines) -> None:
        self._folders, self._per, self._serving, self._deadlines = dict(folders), per, serving, deadlines
        self._limit = per.memory_mb * 2**20
        self._loaded: OrderedDict[str, tuple[GuardedModel, int]] = OrderedDict()
        self._breakers = {name: Breaker(serving.breaker) for name in folders}
        self._lock = threading.Lock()  # batches are scored by several threads
        self._let_go_bytes = 0
        #: of all models together: what became of rows, models loaded, and what those in memory count as
        self.counts, self.loads, self.held_bytes = Counts(), 0, 0

    def __len__(self) -> int:
        return len(self._loaded)

    def warm_up(self) -> None:
        """Load models in the order of the declaration, as many as fit."""
        for name, folder in self._folders.items():
            if self.held_bytes + memory_of((folder / ONNX_FILE).stat().st_size) > self._limit:
                return
            self.get(name)

    def get(self, name: str) -> GuardedModel:
        """Return a model, loaded.

        Raises
        ------
        ModelRefusedError : it is not the one that was shipped, see `Scorer`; or it does not fit alone.
        """
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name][0]
            folder = self._folders[name]
            onnx = read_file(folder, ONNX_FILE)
            refuse_too_large(self._per, name, len(onnx))
            self._make_room(memory_of(len(onnx)))
            # An arena would keep what the largest batch took, per model.
            scorer = Scorer(onnx, ModelContract.read(folder), self._serving.providers, arena=False)
            model = GuardedModel(scorer, self._serving, self._deadlines, self._breakers[name], self.counts)
            model.warm_up(up_to=1)
            self._loaded[name] = (model, memory_of(len(onnx)))
            self.held_bytes += memory_of(len(onnx))
            self.loads += 1
            return model

    def _make_room(self, needed: int) -> None:
        while self.held_bytes + needed > self._limit:
            _, (_, size) = self._loaded.popitem(last=False)
            self.held_bytes -= size
            self._let_go_bytes += size
        if self._let_go_bytes > self._limit // 4:
            self._let_go_bytes = 0
            _give_back()


def _give_back() -> None:
    """Have the C library give freed memory back to the system: glibc keeps blocks of up to 32 MB otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
