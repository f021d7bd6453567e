"""Waiting: the events of a stage that are held back for rows of enrichments, and what each of their joins has come to.

What settles a join is a fitting row, the clock of the enrichment, the limit of events that wait, or processing time. An
event goes on when all its joins are settled, in the order in which the lane had seen what settled the last of them.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError
from udfs.core.plan.features import Stage
from udfs.core.rows.batches import join_batches
from udfs.core.stage.held import Held, HeldLog
from udfs.core.stage.patience import Joined, Patience
from udfs.core.stage.sequence import Rows
from udfs.core.stage.stamps import stage_name

I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]
END_OF_INPUT = int(np.iinfo(np.int64).max)
"""Processing time at which no event waits any longer."""
NO_TIMES = pa.array([], pa.int64())


class Asked(NamedTuple):
    """Who asks for a join."""

    #: position of the join
    position: int
    readers: Rows
    patience: Patience
    #: int64[readers], where they stand among the events held before and those that came
    at: I64


@dataclass(slots=True)
class _Turn:
    """One batch on its way through the joins."""

    events: Rows | None
    #: how many were held before
    before: int
    #: those held before, followed by those that came, which have no columns yet
    held: Held
    #: bool[n, joins], those that wait no longer, whatever comes
    is_given_up: Mask
    #: rows that the lane had seen before the batch and after it
    seen: tuple[int, int]
    is_told: bool
    #: bool[n], those that go no further
    is_dropped: Mask
    #: bool[before], a join was settled
    is_changed: Mask


class Waiting:
    """The events that wait in one lane of a stage with awaited enrichments.

    For each batch `begin`, then `ask` and `settle` for each enrichment, then `release` and `write`.

    Parameters
    ----------
    pipeline, stage : what to compute
    entries : of the lane's log, (number, bytes) in their order

    Raises
    ------
    StateFormatError : the entries are of another version, or wait for other enrichments.
    """

    def __init__(self, pipeline: Pipeline, stage: Stage, entries: Sequence[tuple[int, bytes]]) -> None:
        self.joins = tuple(join for join in stage.enrichments if join.is_awaited)
        self._log = HeldLog(self.joins, stage.entity)
        self.held = self._log.restore(entries)
        self._stage, self._keys = stage_name(stage), (stage.entity, pipeline.contract.time)
        self._waits_ms = np.array([join.wait_ms for join in self.joins])
        self._turn: _Turn
        self._written: tuple[Held, I64]

    def __len__(self) -> int:
        return int(self.held.seqs.size)

    @property
    def due_ms(self) -> int | None:
        """Processing time at which the first event has waited long enough for a join; None: none waits by it."""
        first = int(self._due_ms().min(initial=END_OF_INPUT))
        return first if first < END_OF_INPUT else None

    def arm(self, now_ms: int) -> None:
        """Let the events that came without processing time, from a backfill, wait from now on."""
        self.held.since_ms[self.held.since_ms < 0] = now_ms

    def _due_ms(self) -> I64:
        """Return when each event no longer waits for each join, int64[n, joins]."""
        since_ms = self.held.since_ms[:, None]
        return np.where((self.held.until < 0) & (since_ms >= 0), since_ms + self._waits_ms, END_OF_INPUT)

    def begin(
        self,
        events: Rows | None,
        is_late: Mask | None,
        seen: tuple[int, int],
        now_ms: int | None,
        told: Mapping[str, I64] | None,
    ) -> None:
        """Begin with a batch of the lane.

        Parameters
        ----------
        events, is_late : those that come, and which of them are late and go no further
        seen : how many rows the lane has seen before the batch, and after it
        now_ms : processing time; None where there is none
        told : of a run that is repeated, per place of a join the numbers stamped on the events; see `Held.told`
        """
        before, came = self.held.seqs.size, 0 if events is None else events.seqs.size
        is_given_up = np.zeros((before + came, len(self.joins)), np.bool_)
        if now_ms is not None:
            if now_ms < END_OF_INPUT:
                self.arm(now_ms)
            is_given_up[:before] = self._due_ms() <= now_ms
        is_dropped, held = np.zeros(before + came, np.bool_), self.held
        if events is not None:
            stamped = np.full((came, len(self.joins)), -1)
            for i, join in enumerate(self.joins):
                if told is not None and join.place in told:
                    stamped[:, i] = told[join.place]
            is_dropped[before:] = is_late
            is_given_up[before:] = is_dropped[before:, None]
            since_ms = -1 if now_ms is None else now_ms
            held = Held.joined([held, Held.waiting(events.seqs, since_ms, stamped, held.values.shape[1])])
        is_changed = np.zeros(before, np.bool_)
        self._turn = _Turn(events, before, held, is_given_up, seen, told is not None, is_dropped, is_changed)

    def ask(self, topic: str, *, has_rows: bool) -> Asked | None:
        """Return who asks for the join of a topic; None: it is not awaited, or has neither readers nor rows."""
        position = next((i for i, join in enumerate(self.joins) if join.topic == topic), None)
        if position is None:
            return None
        turn = self._turn
        at = np.flatnonzero(turn.held.until[:, position] < 0)
        # Without rows, without a reason to give one up and within the limit nothing changes for those held before.
        is_hurried = turn.is_given_up[: turn.before, position].any() or at.size > self.joins[position].waiting_max
        if not (has_rows or is_hurried or turn.is_told):
            at = at[at >= turn.before]
        if not (at.size or has_rows):
            return None
        held = int(np.searchsorted(at, turn.before))
        told = turn.held.told[at, position] if turn.is_told else None
        patience = Patience(held, turn.seen[0], turn.is_given_up[at, position], told, turn.seen[1])
        return Asked(position, self._readers(at, held), patience, at)

    def _readers(self, at: I64, held: int) -> Rows:
        """Return key and time of events, of which some were held before."""
        turn, names = self._turn, [*self._keys]
        batches = [*(self.held.parts if held else ()), *([turn.events.batch] if turn.events is not None else ())]
        arrays = [[batch[name] for name in names] for batch in batches] or [[pa.array([], pa.string()), NO_TIMES]]
        keys = join_batches([pa.RecordBatch.from_arrays(columns, names=names) for columns in arrays])
        if keys.num_rows != at.size:
            keys = keys.take(pa.array(at if held else at - turn.before))
        return Rows(keys, turn.held.seqs[at], *self._keys)

    def settle(self, asked: Asked, joined: Joined) -> None:
        """Take what the readers were joined with; those that are not wait on."""
        at, turn = asked.at, self._turn
        turn.is_changed[at[(joined.until >= 0) & (at < turn.before)]] = True
        turn.held.until[at, asked.position] = joined.until
        turn.held.is_missing[at, asked.position] = joined.is_missing
        turn.held.values[at, self.span(asked.position)] = joined.values

    def span(self, position: int) -> slice:
        """Return where the columns of a join lie in `Held.values`."""
        start = sum(len(join.take) for join in self.joins[:position])
        return slice(start, start + len(self.joins[position].take))

    def release(self, rows: pa.RecordBatch | None) -> Held:
        """Return the events that go on, in their order; the others are held.

        Parameters
        ----------
        rows : those that came, with all columns but those of the awaited joins
        """
        turn, before = self._turn, self._turn.before
        self._give_columns(rows)
        everyone = turn.held._replace(parts=self.held.parts + (() if rows is None else (rows,)))
        is_settled = (turn.held.until >= 0).all(axis=1)
        leaving = np.flatnonzero(is_settled & ~turn.is_dropped)
        staying = np.flatnonzero(~is_settled & ~turn.is_dropped)
        gone = turn.held.seqs[leaving[leaving < before]]
        if gone.size or turn.is_changed.any():
            released, held = everyone.take(leaving), everyone.take(staying)
            is_new = np.concatenate([turn.is_changed, np.ones(turn.held.seqs.size - before, np.bool_)])
            changed = held.take(np.flatnonzero(is_new[staying]))
        else:
            # Most batches: nothing has changed for those that were held, and their columns stay as they lie.
            came = Held.of(() if rows is None else (rows,), (array[before:] for array in turn.held[1:]))
            released, changed = came.take(leaving - before), came.take(staying[before:] - before)
            held = Held.joined([self.held, changed])
        order = np.lexsort((released.seqs, released.until.max(axis=1, initial=-1)))
        self.held, self._written = held, (changed, gone)
        return released.take(order)

    def write(self, mapping: MutableMapping[int, bytes], next_number: int) -> int:
        """Append to the log what the batch has changed; return the next free number."""
        return self._log.write(mapping, next_number, self.held, *self._written)

    def _give_columns(self, rows: pa.RecordBatch | None) -> None:
        """Give the events that are held the columns of those that came; a changed definition may have moved them."""
        if rows is None or not self.held.parts or self.held.parts[-1].schema.equals(rows.schema):
            return
        stored = join_batches(self.held.parts)
        types = dict(zip(stored.schema.names, stored.schema.types, strict=True))
        if any(types.get(field.name) != field.type for field in rows.schema):
            listed = [", ".join(f"{one.name}: {one.type}" for one in schema) for schema in (stored.schema, rows.schema)]
            msg = (
                f"stored events that wait in {self._stage} have the columns {listed[0]}; the pipeline gives "
                f"{listed[1]}; start from fresh state or restore the old definition"
            )
            raise StateFormatError(msg)
        self.held = self.held._replace(parts=(stored.select(rows.schema.names),))
