"""Duplicates: an event whose id came before within the horizon leaves as a letter, before any feature sees it.

Reason `duplicate` if all fields of its contract are equal (the bytes may differ: producers reformat), else `conflict`.
An id is remembered per lane until the lane's clock has left its first event behind by the horizon. The lane follows
from the Kafka key: the same id under a key of another lane is not seen.
"""

from collections.abc import MutableMapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.core.cells.keyed import KeyedCells, Layout
from udfs.core.cells.log import Log
from udfs.core.cells.segments import Segment
from udfs.core.declare.definition import Pipeline
from udfs.core.kernels.arrays import read_only
from udfs.core.kernels.digest import hash_texts
from udfs.core.kernels.repeats import CONFLICT, FACTS, FIRST, judge_repeats
from udfs.core.rows.batches import OFFSET, PARTITION, Piece
from udfs.core.rows.letters import Letter, to_batch
from udfs.core.rows.validation import letter_of

STAGE = "duplicates"
LAYOUT = Layout("duplicates:digest,partition,offset", 1, FACTS)
DIGEST_BITS = 53  #: what a float64 holds exactly, as cells are float64
MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
NULL, STEP = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x100000001B3)


class Duplicates:
    """The ids of one lane.

    Ids of up to 1.25 horizons are held, at about 330 bytes of memory and 90 bytes of log for one of 36 characters.

    Parameters
    ----------
    pipeline : its contract names the id; `time.duplicates_within` is the horizon, above 0
    mapping : the durable log, segment number -> bytes, this store's own; what it holds is restored

    Attributes
    ----------
    ids : what is held in memory
    """

    def __init__(self, pipeline: Pipeline, mapping: MutableMapping[int, bytes]) -> None:
        contract = pipeline.contract
        self._topic, self._key, self._time = pipeline.source.topic, pipeline.source.key, contract.time
        self._id, self._fields = contract.id or "", tuple(contract.fields)
        self._mapping = mapping
        self.ids = KeyedCells([LAYOUT], lateness_ms=0, horizon_ms=pipeline.time.duplicates_within_ms)
        self._log = Log(0, self.ids, longest_ms=0)
        found = [(number, Segment.decode(data), len(data)) for number, data in sorted(mapping.items())]
        self._log.restore(found)
        self._next_seq = max((segment.next_seq for _, segment, _ in found), default=0)
        self._next_number = found[-1][0] + 1 if found else 0

    def process(self, piece: Piece) -> Piece:
        """Return the piece without its repeats, which become letters; other topics go through as they are."""
        rows = piece.rows
        if piece.topic != self._topic or rows.num_rows == 0:
            return piece
        verdict, earlier = self._judge(rows)
        first = verdict == FIRST
        if first.all():
            return piece
        repeats = rows.filter(pa.array(~first)).to_pylist()
        judged = zip(repeats, verdict[~first].tolist(), earlier[~first].astype(np.int64).tolist(), strict=True)
        letters = [self._letter(row, code == CONFLICT, facts) for row, code, facts in judged]
        return piece.with_rows(rows.filter(pa.array(first)), to_batch(letters))

    def _judge(self, rows: pa.RecordBatch) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """Return the verdict on each row, and per repeat the facts of the first; keep and store the firsts."""
        ids, count = self.ids, rows.num_rows
        facts = np.empty((count, FACTS))
        facts[:, 0] = row_digests(rows, self._fields)
        facts[:, 1], facts[:, 2] = rows[PARTITION].to_numpy(), rows[OFFSET].to_numpy()
        slots = ids.find_or_add(rows[self._id])
        (cells,) = ids.tracks
        cells.reserve(count, len(ids.names))
        verdict, earlier, touched = np.empty(count, np.int8), np.empty((count, FACTS)), np.empty(count, np.int64)
        clock_ms = judge_repeats(
            slots, rows[self._time].to_numpy(), facts, self._next_seq,
            ids.newest_ms, ids.born_seq, ids.clock_ms, ids.horizon_ms,
            cells.head, cells.older, cells.owner, cells.tile, cells.irs, cells.free, cells.free_count,
            verdict, earlier, touched,
        )  # fmt: skip
        ids.clock_ms = int(clock_ms)
        first = verdict == FIRST
        if first.any():
            self._next_seq += int(first.sum())
            self._next_number = self._log.write(
                self._mapping, self._next_number, self._next_seq, slots[first], [touched[first]]
            )
        return verdict, earlier

    def _letter(self, row: dict[str, object], conflict: bool, earlier: list[int]) -> Letter:
        _, partition, offset = earlier
        reason, fields = ("conflict", "other fields than") if conflict else ("duplicate", "the same fields as")
        detail = f"{self._id}: got {row[self._id]!r} with {fields} partition {partition}, offset {offset}"
        return letter_of(row, "rejects", self._topic, self._key, STAGE, reason, detail)


def row_digests(rows: pa.RecordBatch, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Return a hash of the named columns per row, float64[n] of whole numbers below 2**53, the same for equal values.

    It is stored, so it may never change. Two different rows of one id share it once in 10**16.

    Examples
    --------
    >>> row_digests(pa.RecordBatch.from_pydict({"a": ["x", None], "b": [1, 2]}), ("a", "b")).tolist()
    [1490827129565366.0, 4847352620285990.0]
    """
    state = np.zeros(rows.num_rows, np.uint64)
    for name in names:
        state = _mixed(state * STEP + _mixed(_words(rows[name])))
    return (state >> np.uint64(64 - DIGEST_BITS)).astype(np.float64)


def _words(column: pa.Array) -> NDArray[np.uint64]:
    """Return a 64-bit word per value."""
    if pa.types.is_string(column.type):
        words = np.empty(len(column), np.uint64)
        _, ends, data = column.buffers()
        with np.errstate(over="ignore"):  # the hash wraps around; compiled code does not mind
            hash_texts(
                read_only(np.frombuffer(ends, np.int32)[column.offset : column.offset + len(column) + 1]),
                read_only(np.frombuffer(data or b"", np.uint8)),
                words,
            )
    elif pa.types.is_fixed_size_list(column.type):
        vectors = column.drop_null().flatten().to_numpy().reshape(-1, column.type.list_size)
        folded = np.zeros(len(vectors), np.uint64)
        for numbers in vectors.T:
            folded = _mixed(folded * STEP + _float_words(numbers))
        words = np.zeros(len(column), np.uint64)
        words[column.is_valid().to_numpy(zero_copy_only=False)] = folded
    elif pa.types.is_float64(column.type):
        words = _float_words(column.fill_null(0.0).to_numpy())
    else:
        words = pc.cast(column, pa.int64()).fill_null(0).to_numpy().view(np.uint64)
    return np.where(column.is_valid().to_numpy(zero_copy_only=False), words, NULL) if column.null_count else words


def _float_words(numbers: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return the bits of numbers, those of -0.0 as of 0.0, which it equals."""
    return (np.ascontiguousarray(numbers) + 0.0).view(np.uint64)


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the words with each bit depending on all others: the finaliser of MurmurHash3."""
    for factor in MIX:
        words = (words ^ (words >> np.uint64(33))) * factor
    return words ^ (words >> np.uint64(33))
