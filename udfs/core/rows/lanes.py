"""Lanes: which lane a key belongs to, and which Flink key stands for a lane so that lanes spread evenly.

`lane_of` repeats what the SQL of the source does (`ABS(MOD(HASH_CODE(key), lanes))`), so that a stream cut in the JVM
and one cut here meet in the same lane.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa

from udfs.core.errors import DefinitionError
from udfs.core.rows.batches import Piece, objects
from udfs.core.rows.letters import no_letters

MASK = 0xFFFFFFFF


@lru_cache(maxsize=1 << 17)
def java_string_hash(text: str) -> int:
    """`String.hashCode` of Java, as a signed 32-bit number: over UTF-16 code units, h = 31 h + unit.

    Examples
    --------
    >>> java_string_hash("abc")
    96354
    """
    value = 0
    for unit in np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2").tolist():
        value = (31 * value + unit) & MASK
    return value - (1 << 32) if value >> 31 else value


def lane_of(key: str | None, lanes: int) -> int:
    """Return the lane of a key; null has lane 0."""
    return 0 if key is None else abs(java_string_hash(key)) % lanes


def split_by_lane(piece: Piece, entity: str, lanes: int) -> list[tuple[int, Piece]]:
    """Cut a piece by the lane of an entity, order kept; the letters go with the first part.

    Returns
    -------
    (lane, piece) with rows, ascending by lane; one piece for lane 0 if there are only letters; nothing for nothing.
    """
    if piece.rows.num_rows == 0:
        return [(0, piece)] if piece.letters.num_rows else []
    if lanes == 1:
        return [(0, piece)]
    encoded = piece.rows[entity].dictionary_encode()
    of_word = np.array([lane_of(word, lanes) for word in objects(encoded.dictionary)] + [0], np.int64)
    lane_of_row = of_word[encoded.indices.fill_null(of_word.size - 1).to_numpy()]
    parts = []
    letters = piece.letters
    for lane in np.unique(lane_of_row).tolist():
        rows = piece.rows.take(pa.array(np.flatnonzero(lane_of_row == lane)))
        parts.append((lane, Piece(piece.topic, rows, letters)))
        letters = no_letters()
    return parts


def lane_keys(lanes: int, max_parallelism: int) -> list[int]:
    """Return per lane the integer that Flink is keyed by, so that lanes fall evenly on any number of subtasks.

    Lane i gets a number whose key group is the middle of the i-th of `lanes` equal shares of the key groups.

    References
    ----------
    Flink `KeyGroupRangeAssignment.assignToKeyGroup`: murmur hash of `Row.hashCode`, modulo max parallelism.
    """
    if lanes > max_parallelism:
        msg = f"lanes: got {lanes}; at most the maximum parallelism of the job, {max_parallelism}"
        raise DefinitionError(msg)
    wanted = {(2 * lane + 1) * max_parallelism // (2 * lanes): lane for lane in range(lanes)}
    found: dict[int, int] = {}
    number = 0
    while len(found) < lanes:
        lane = wanted.get(key_group(number, max_parallelism))
        if lane is not None:
            found.setdefault(lane, number)
        number += 1
    return [found[lane] for lane in range(lanes)]


def key_group(number: int, max_parallelism: int) -> int:
    """Return the key group of `Row(number)`, whose `hashCode` is 62 + number: 31 each for the row and its one field."""
    return _murmur((62 + number) & MASK) % max_parallelism


def _murmur(code: int) -> int:
    """`MathUtils.murmurHash` of Flink: one round of 32-bit MurmurHash3 and its finaliser, made non-negative."""
    code = (code * 0xCC9E2D51) & MASK
    code = ((code << 15) | (code >> 17)) & MASK
    code = (code * 0x1B873593) & MASK
    code = ((code << 13) | (code >> 19)) & MASK
    code = (code * 5 + 0xE6546B64) & MASK
    code ^= 4
    code ^= code >> 16
    code = (code * 0x85EBCA6B) & MASK
    code ^= code >> 13
    code = (code * 0xC2B2AE35) & MASK
    code ^= code >> 16
    signed = code - (1 << 32) if code >> 31 else code
    if signed >= 0:
        return signed
    return -signed if signed != -(1 << 31) else 0
