"""Routing: which arm answers each row of a batch; a function of the row and the declaration, and of nothing else.

Rules come first, then the canary, then the weights. Canary and weights are dealt out by two independent draws of the
row's key, so that the canary takes from all arms alike, and a key that it leaves keeps its arm whatever its share is.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.core.declare.arms import WHOLE, Canary
from udfs.core.declare.definition import Pipeline
from udfs.core.kernels.arrays import read_only
from udfs.core.kernels.digest import hash_texts

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Router:
    """Assigns rows to arms; an arm is its position in `ModelReference.answering`.

    Parameters
    ----------
    pipeline : with the routing declaration; a row needs its key, id and time columns and those that the rules name
    """

    def __init__(self, pipeline: Pipeline) -> None:
        model, contract = pipeline.model, pipeline.contract
        self._key = model.routing.key or pipeline.source.key
        self._id, self._time = contract.id or "", contract.time
        self.arms = tuple(one.name for one in model.answering)
        self.epoch = model.routing_epoch(pipeline.source.key)
        self._rules = [(rule.when, self.arms.index(rule.arm)) for rule in model.rules]
        self._canary: Canary | None = model.canary
        # A draw below the first sum is the first challenger's, and so on; beyond the last it is the champion's.
        self._sums = np.cumsum([one.weight or 0 for one in model.challengers], dtype=np.int64)
        self._by_draw = np.array([*range(1, len(model.challengers) + 1), 0], np.int64)
        self._salts = [_salt(f"{draw}:{model.routing.salt}") for draw in ("canary", "weights")]

    def assign(self, rows: pa.RecordBatch) -> I64:
        """Return the arm of each row, int64[n]."""
        if len(self.arms) == 1:
            return np.zeros(rows.num_rows, np.int64)
        words = self._words(rows)
        of_canary, of_weights = (_draws(words, salt) for salt in self._salts)
        arms = self._by_draw[np.searchsorted(self._sums, of_weights, "right")]
        if self._canary is not None:
            arms[of_canary < self._share(self._canary, rows)] = self.arms.index(self._canary.name)
        for when, arm in reversed(self._rules):  # the first that fits is written last
            arms[when.mask(rows).to_numpy(zero_copy_only=False)] = arm
        return arms

    def _share(self, canary: Canary, rows: pa.RecordBatch) -> I64 | int:
        if canary.ramp is None:
            return canary.share or 0
        return canary.ramp.shares(rows[self._time].to_numpy())

    def _words(self, rows: pa.RecordBatch) -> U64:
        key = rows[self._key]
        if key.null_count:  # all rows without a key would be in one arm
            key = pc.if_else(key.is_valid(), pc.cast(key, pa.string()), rows[self._id])
        return text_hashes(key)


def text_hashes(column: pa.Array) -> U64:
    """Return a 64-bit hash per value of a text or int64 column without nulls, the same on every machine."""
    texts = column if pa.types.is_string(column.type) else pc.cast(column, pa.string())
    words = np.empty(len(texts), np.uint64)
    _, ends, data = texts.buffers()
    if len(texts):
        places = read_only(np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1])
        with np.errstate(over="ignore"):  # the hash wraps around; compiled code does not mind
            hash_texts(places, read_only(np.frombuffer(data or b"", np.uint8)), words)
    return words


def _salt(text: str) -> np.uint64:
    return np.uint64(_mixed(text_hashes(pa.array([text], pa.string())))[0])


def _draws(words: U64, salt: np.uint64) -> I64:
    """Return a number from 0 to below `WHOLE` per word, evenly spread, int64[n]."""
    # The upper 32 bits times WHOLE, as if they were a fraction: no remainder, no float.
    upper = _mixed(words ^ salt) >> np.uint64(32)
    return (upper * np.uint64(WHOLE) >> np.uint64(32)).astype(np.int64)


def _mixed(words: U64) -> U64:
    """Mix the bits of each word.

    References
    ----------
    Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014: SplitMix64.
    """
    with np.errstate(over="ignore"):
        words = words + GAMMA
        words = (words ^ (words >> np.uint64(30))) * MIX[0]
        words = (words ^ (words >> np.uint64(27))) * MIX[1]
    return words ^ (words >> np.uint64(31))
