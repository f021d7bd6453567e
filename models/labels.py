"""Labels: the truth that arrives later, joined to events by id as far as it was known at a time.

All labels are held in memory, with their ids and about 30 bytes for each.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.core.declare.declarations import Label
from udfs.core.offline.backfill import Chunk
from udfs.core.rows.batches import RawBatch, join_batches
from udfs.core.rows.decoding import Decoder
from udfs.core.rows.ingest import number_column
from udfs.core.rows.letters import no_letters

I64 = NDArray[np.int64]
FOREVER_MS = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Rules:
    """Which labels count."""

    #: those of a later time are not known yet; None: all are
    as_of_ms: int | None = None
    #: those that come longer after their event do not count; None: any delay
    window_ms: int | None = None
    #: an event whose window is over without a label is negative; False: it is left out
    unlabelled_is_negative: bool = False


@dataclass(slots=True)
class LabelCounts:
    """What became of the events with features."""

    positive: int = 0
    negative: int = 0
    #: of the negative ones, those without a label
    assumed_negative: int = 0
    #: left out: no label that counts
    unlabelled: int = 0
    #: left out: the label that counts is null
    null: int = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """The labels of a batch of events; every array has one value per event."""

    #: bool, null where the event is to be left out
    positive: pa.BooleanArray
    #: float64 and int64: the label and when it was known; null where there is none
    value: pa.DoubleArray
    time_ms: pa.Int64Array


class Labels:
    """The labels of a pipeline. An event has the last one that came after it and that counts, by the rules.

    Parameters
    ----------
    label : its declaration
    chunks : the records of its topic
    rules : which count
    """

    def __init__(self, label: Label, chunks: Iterable[Chunk], rules: Rules) -> None:
        self._above, self._rules = label.above, rules
        self.counts = LabelCounts()
        decoder = Decoder(label.contract, None)  # joined by id: the Kafka key of a label means nothing
        rows, letters = [decoder.decode(RawBatch(label.topic, [], [], [], [], []))[0]], [no_letters()]
        for chunk in chunks:
            for part in chunk:
                raw = part.batch
                good, refused = decoder.decode(raw) if isinstance(raw, RawBatch) else (raw.rows, raw.letters)
                rows.append(good.select(rows[0].schema.names))
                letters.append(refused)
        found = join_batches(rows)
        times_ms = found[label.contract.time].to_numpy()
        order = np.argsort(times_ms, kind="stable")
        order = order[
            : np.searchsorted(times_ms[order], FOREVER_MS if rules.as_of_ms is None else rules.as_of_ms, "right")
        ]
        self._times_ms = times_ms[order]
        self._ids = found[label.contract.id].take(pa.array(order))
        self._values = number_column(found, label.of).take(pa.array(order))
        #: records that break the contract
        self.letters = join_batches(letters)
        #: until when a missing label means that there is none
        self.known_until_ms = rules.as_of_ms if rules.as_of_ms is not None else int(self._times_ms.max(initial=0))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def null_count(self) -> int:
        """How many say null."""
        return int(self._values.null_count)

    def join(self, ids: pa.StringArray, times_ms: I64) -> Joined:
        """Return the labels of events, given their ids and event times."""
        window_ms = self._rules.window_ms
        until_ms = np.full(times_ms.size, FOREVER_MS) if window_ms is None else times_ms + window_ms
        at = self._last(ids, times_ms, until_ms)
        value = self._values.take(at)
        known_ms = pa.array(self._times_ms).take(at)
        positive = pc.greater(value, self._above)
        missing = at.is_null().to_numpy(zero_copy_only=False)
        assumed = np.zeros(times_ms.size, np.bool_)
        if self._rules.unlabelled_is_negative:
            assumed = missing & (until_ms <= self.known_until_ms)
            positive = pc.if_else(pa.array(assumed), False, positive)
            known_ms = pc.if_else(pa.array(assumed), pa.array(until_ms), known_ms)
        is_positive = pc.sum(positive).as_py() or 0
        self.counts.positive += is_positive
        self.counts.negative += len(positive) - positive.null_count - is_positive
        self.counts.assumed_negative += int(assumed.sum())
        self.counts.unlabelled += int((missing & ~assumed).sum())
        self.counts.null += value.null_count - int(missing.sum())
        return Joined(positive, value, known_ms)

    def _last(self, ids: pa.StringArray, times_ms: I64, until_ms: I64) -> pa.Int64Array:
        """Return per event the position of its last label after `times_ms`, up to `until_ms`; null without one."""
        if times_ms.size == 0:
            return pa.array([], pa.int64())
        first = np.searchsorted(self._times_ms, times_ms.min(), "right")
        end = np.searchsorted(self._times_ms, until_ms.max(), "right")
        count = int(end - first)
        both = pa.concat_arrays([self._ids.slice(first, count), ids]).dictionary_encode().indices.to_numpy()
        time = np.concatenate([self._times_ms[first:end], until_ms])
        # Sorted by id and time, with labels before events: the label that stands before an event is its last one.
        order = np.lexsort((np.arange(both.size), time, both))
        newest = np.maximum.accumulate(np.where(order < count, np.arange(both.size), -1))
        label = np.where(newest >= 0, order[newest], 0)
        fits = (newest >= 0) & (both[label] == both[order])
        is_event = order >= count
        found = np.full(times_ms.size, -1, np.int64)
        found[order[is_event] - count] = np.where(fits[is_event], label[is_event] + first, -1)
        has = found >= 0
        has[has] = self._times_ms[found[has]] > times_ms[has]
        return pa.array(found, mask=~has)
