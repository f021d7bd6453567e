"""A sequence: the rows that meet a store in the lane's order, its own stream's and the events that only read it."""

from collections.abc import Sequence as Names
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.cells.inputs import input_matrix
from udfs.core.cells.keyed import KeyedCells
from udfs.core.declare.conditions import Condition
from udfs.core.declare.feature import ARROW, Feature, Input
from udfs.core.kernels.arrays import READS, UPDATES, read_only
from udfs.core.rows.batches import objects

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
EVERY = slice(None)


@dataclass(frozen=True)
class Rows:
    """Rows of one stream with their places in the lane's sequence."""

    batch: pa.RecordBatch
    #: int64[n], ascending
    seqs: I64
    #: column that says which key a row is about
    key: str
    #: column of event time
    time: str


@dataclass(frozen=True)
class Sequence:
    """Rows of a store's own stream and, for the store of an enrichment, the events that read it.

    Without readers, the own rows read what they update: they are the events themselves.
    """

    own: Rows
    readers: Rows | None = None

    @cached_property
    def order(self) -> I64 | slice:
        """Where each merged row stands in own rows followed by readers."""
        if self.readers is None or self.readers.seqs.size == 0:
            return EVERY
        return np.argsort(np.concatenate([self.own.seqs, self.readers.seqs]), kind="stable")

    @cached_property
    def own_at(self) -> I64 | slice:
        """Where the own rows stand in the merged ones."""
        if isinstance(self.order, slice):
            return EVERY
        return np.argsort(self.order)[: self.own.seqs.size]

    @cached_property
    def seqs(self) -> I64:
        """int64[n], places in the lane's sequence."""
        return self._merge(self.own.seqs, self.readers.seqs if self.readers else None)

    @cached_property
    def times_ms(self) -> I64:
        """int64[n], event times, read-only."""
        own = self.own.batch[self.own.time].to_numpy(zero_copy_only=False)
        readers = self.readers.batch[self.readers.time].to_numpy(zero_copy_only=False) if self.readers else None
        return read_only(self._merge(own, readers))

    @cached_property
    def flags(self) -> NDArray[np.int8]:
        """int8[n], which rows update and which read."""
        if self.readers is None:
            return np.full(self.own.seqs.size, UPDATES | READS, np.int8)
        flags = np.repeat(np.array([UPDATES, READS], np.int8), [self.own.seqs.size, self.readers.seqs.size])
        merged: NDArray[np.int8] = flags[self.order]
        return merged

    def keys(self) -> list[str | None]:
        """Return the keys of all rows, each once."""
        columns = [rows.batch[rows.key] for rows in (self.own, self.readers) if rows is not None]
        return list(dict.fromkeys(name for column in columns for name in objects(column.unique())))

    def slots(self, cells: KeyedCells) -> I64:
        """Return the slot of each row's key, int64[n]; own rows get one if they have none."""
        own = cells.find_or_add(self.own.batch[self.own.key])
        return self._merge(own, cells.find(self.readers.batch[self.readers.key]) if self.readers else None)

    def matrix(self, columns: Names[str | Input]) -> F64:
        """Return float64[n, columns] of the own rows; NaN in those of readers."""
        own = input_matrix(self.own.batch, columns)
        if isinstance(self.own_at, slice):
            return own
        merged = np.full((self.times_ms.size, len(columns)), np.nan)
        merged[self.own_at] = own
        return merged

    def meets(self, condition: Condition | None) -> NDArray[np.bool_]:
        """Return which rows meet a condition, bool[n]; readers never do; bool[0] without a condition."""
        if condition is None:
            return np.empty(0, np.bool_)
        met = np.zeros(self.times_ms.size, np.bool_)
        met[self.own_at] = condition.mask(self.own.batch).to_numpy(zero_copy_only=False)
        return met

    def read(self, names: tuple[str, ...], out: F64) -> dict[str, pa.Array]:
        """Return columns of `out`, float64[n, names], for the rows that read, NaN as null."""
        at: I64 | slice = EVERY
        if self.readers is not None:
            at = np.flatnonzero(self.flags & READS)
        columns = np.ascontiguousarray(out[at].T)
        return {name: pa.array(column, from_pandas=True) for name, column in zip(names, columns, strict=True)}

    def read_lists(self, features: Names[Feature], out: list[list[Any]]) -> dict[str, pa.Array]:
        """Return features from a list per feature over all rows, of their own types."""
        at = range(self.times_ms.size) if self.readers is None else np.flatnonzero(self.flags & READS).tolist()
        columns = zip(features, out, strict=True)
        return {one.name: pa.array([column[i] for i in at], ARROW[one.gives]) for one, column in columns}

    def _merge(self, own: I64, readers: I64 | None) -> I64:
        if readers is None:
            return own
        merged: I64 = np.concatenate([own, readers])[self.order]
        return merged
