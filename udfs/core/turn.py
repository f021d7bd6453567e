"""A turn: one batch of a lane on its way through the awaited joins. Each is asked, then settled; then events go on.

They go on in the order in which the lane had seen what settled the last of their joins, which no cut into batches
changes.
"""

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.batches import add_columns, join_batches
from udfs.core.declarations import Enrichment
from udfs.core.durations import format_duration
from udfs.core.held import Held
from udfs.core.letters import Letter
from udfs.core.patience import Joined, Patience
from udfs.core.sequence import Rows
from udfs.core.stamps import stage_name, stamp_arrays, stamps
from udfs.core.validation import letter_of

if TYPE_CHECKING:
    from udfs.core.waiting import Waiting

I64 = NDArray[np.int64]


class Asked(NamedTuple):
    """Who asks for a join."""

    #: position of the join
    position: int
    readers: Rows
    patience: Patience
    #: int64[readers], where they stand among the events held before and those that came
    at: I64


class Turn:
    """See above; made by `Waiting.turn`, which describes the parameters."""

    def __init__(
        self,
        waiting: "Waiting",
        events: Rows | None,
        is_late: NDArray[np.bool_] | None,
        held: Held,
        is_given_up: NDArray[np.bool_],
        seen: tuple[int, int],
        *,
        is_told: bool,
    ) -> None:
        self._waiting, self._events, self._is_late = waiting, events, is_late
        self._held, self._is_given_up, self._seen, self._is_told = held, is_given_up, seen, is_told
        self._before = waiting.held.seqs.size
        self._left: Held | None = None
        self._changed = np.zeros(self._before, np.bool_)

    def ask(self, topic: str, *, has_rows: bool) -> Asked | None:
        """Return who asks for the join of a topic; None if it is not awaited, or nobody does and it has no rows."""
        position = next((i for i, join in enumerate(self._waiting.joins) if join.topic == topic), None)
        if position is None:
            return None
        join, before = self._waiting.joins[position], self._before
        at = np.flatnonzero(self._held.until[:, position] < 0)
        is_given_up = self._is_given_up[at, position]
        is_hurried = bool(is_given_up[at < before].any()) or at.size > join.waiting_max
        if not has_rows and not is_hurried and not self._is_told:
            at = at[at >= before]  # nothing has changed for the others
        if not at.size and not has_rows:
            return None
        held = int(np.searchsorted(at, before))
        told = self._held.told[at, position] if self._is_told else None
        patience = Patience(held, self._seen[0], self._is_given_up[at, position], told, self._seen[1])
        return Asked(position, self._readers(at, held), patience, at)

    def _readers(self, at: I64, held: int) -> Rows:
        """Return event key and time of some events."""
        waiting, events = self._waiting, self._events
        names = [waiting.stage.entity, waiting.pipeline.contract.time]
        parts = [part.select(names) for part in waiting.held.parts] if held else []
        if events is not None:
            parts.append(events.batch.select(names))
            at_parts = at if held else at - self._before
        else:
            at_parts = at
        none = pa.RecordBatch.from_arrays([pa.array([], pa.string()), pa.array([], pa.int64())], names=names)
        keys = join_batches([none, *parts])
        return Rows(keys if at.size == keys.num_rows else keys.take(pa.array(at_parts)), self._held.seqs[at], *names)

    def settle(self, asked: Asked, joined: Joined) -> None:
        """Take what the readers were joined with."""
        at, position = asked.at, asked.position
        settled = at[(joined.until >= 0) & (at < self._before)]
        self._changed[settled] = True
        self._held.until[at, position] = joined.until
        self._held.is_missing[at, position] = joined.is_missing
        self._held.values[at, self._span(position)] = joined.values
