"""The stream of a load: records in batches of any size, and the chargebacks that follow."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.load import encode
from scripts.load.faults import POISON, as_sent, poisoned
from scripts.load.payments import block_of
from scripts.load.settings import BLOCK, Load


@dataclass(frozen=True, slots=True)
class Records:
    """Records in the order in which they are sent; columns of equal length."""

    keys: list[bytes]
    values: list[bytes | None]
    times_ms: NDArray[np.int64]
    kinds: NDArray[np.int8]
    #: 0, or the pattern of fraud
    patterns: NDArray[np.int8]
    #: place -> reason for which poison is refused
    reasons: dict[int, str]

    def __len__(self) -> int:
        return len(self.keys)


def blocks(load: Load, count: int, first: int = 0) -> Iterator[Records]:
    """Yield the records `first` .. `first + count` of a load, at most a block at a time."""
    load.check()
    for block in range(first // BLOCK, -(-(first + count) // BLOCK)):
        sent = as_sent(load, block, block_of(load, block))
        values, reasons = poisoned(encode.texts(sent.payments), sent.kind)
        whole = Records(
            encode.user_keys(sent.payments), values, sent.payments.time_ms, sent.kind, sent.payments.pattern, reasons
        )
        begin, end = max(first - block * BLOCK, 0), min(first + count - block * BLOCK, BLOCK)
        yield whole if end - begin == BLOCK else _part(whole, begin, end)


def batches(load: Load, count: int, size: int) -> Iterator[Records]:
    """Yield the first `count` records in batches of `size`; the bytes do not depend on it."""
    for records in blocks(load, count):
        for begin in range(0, len(records), size):
            yield _part(records, begin, min(begin + size, len(records)))


def chargebacks(load: Load, count: int) -> Iterator[tuple[list[bytes], list[bytes], NDArray[np.int64]]]:
    """Yield keys, texts and times of the chargebacks of the first `count` records, a block at a time.

    A payment that was poison is never charged back, one that came twice is once.
    """
    load.check()
    for block in range(-(-count // BLOCK)):
        sent = as_sent(load, block, block_of(load, block))
        end = min(count - block * BLOCK, BLOCK)
        fraud = np.flatnonzero((sent.payments.pattern[:end] > 0) & (sent.kind[:end] != POISON))
        numbers, places = np.unique(sent.payments.number[fraud], return_index=True)
        chance = np.random.default_rng([load.seed, block, 2])
        delays_ms = (load.chargeback_delay_ms * (0.5 + 0.5 * chance.random(BLOCK))).astype(np.int64)
        known_ms = sent.payments.time_ms[fraud[places]] + 1 + delays_ms[numbers - block * BLOCK]
        yield encode.payment_keys(numbers), encode.chargeback_texts(numbers, known_ms), known_ms


def sample(load: Load, count: int) -> Records:
    """Return the first records at once, for a look or a test."""
    parts = list(blocks(load, count))
    offsets = itertools.accumulate((len(part) for part in parts), initial=0)
    return Records(
        [key for part in parts for key in part.keys],
        [value for part in parts for value in part.values],
        np.concatenate([part.times_ms for part in parts]),
        np.concatenate([part.kinds for part in parts]),
        np.concatenate([part.patterns for part in parts]),
        {at + place: name for at, part in zip(offsets, parts, strict=False) for place, name in part.reasons.items()},
    )


def _part(records: Records, begin: int, end: int) -> Records:
    reasons = {place - begin: name for place, name in records.reasons.items() if begin <= place < end}
    cut = slice(begin, end)
    return Records(
        *(records.keys[cut], records.values[cut], records.times_ms[cut]),
        *(records.kinds[cut], records.patterns[cut], reasons),
    )
