"""One featurize stage in one lane: rows in their order -> the same rows with features, joins and order stamps.

The state is one store for the scored events, one per enrichment, and the events that wait for rows of enrichments.
Everything that decides a result is a function of the sequence of rows of the lane, never of where batches were cut;
only when processing time ends a wait is not, and is stamped on the row.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.cells.segments import Segment
from udfs.core.declare.declarations import Enrichment
from udfs.core.declare.definition import Pipeline
from udfs.core.kernels.admit import LATE
from udfs.core.plan.features import Stage
from udfs.core.rows.batches import Piece, add_columns
from udfs.core.rows.entities import add_entity
from udfs.core.rows.letters import Letter, no_letters, to_batch
from udfs.core.stage.held import is_entry
from udfs.core.stage.leaving import leave
from udfs.core.stage.patience import Patience
from udfs.core.stage.sequence import Rows, Sequence
from udfs.core.stage.stamps import kept_letters, late_letters, stamp_arrays
from udfs.core.stage.store import Answer, Store
from udfs.core.stage.waiting import END_OF_INPUT, Waiting

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    """Where rows of a lane stood in a run that is repeated."""

    #: int64[rows], ascending, their numbers in the lane
    seqs: I64
    #: how many rows the lane has seen with them
    end: int
    #: per place of a join that is waited for int64[events], the number stamped on them, -1 for none
    told: Mapping[str, I64]


class Lane:
    """State and logic of one stage in one lane.

    Parameters
    ----------
    pipeline, stage : what to compute
    number : the lane
    mapping : the durable log, number -> bytes; what it holds is restored. None: nothing is kept durable, and no letter
        says where rows of enrichments came, as offline runs want it
    pages, limit_bytes : where keys go that memory has no room for, and what the keys and cells of each store may take
        before they do; None: no limit
    """

    def __init__(
        self,
        pipeline: Pipeline,
        stage: Stage,
        number: int,
        mapping: MutableMapping[int, bytes] | None,
        pages: MutableMapping[str, bytes] | None = None,
        limit_bytes: int = 0,
    ) -> None:
        self._pipeline, self._stage, self._number, self._mapping = pipeline, stage, number, mapping
        self._source, self._time = pipeline.source.topic, pipeline.contract.time
        self._stores = {self._source: Store(0, stage, pipeline.time, None)}
        for store, one in enumerate(stage.enrichments, start=1):
            self._stores[one.topic] = Store(store, stage, pipeline.time, one)
        # Per topic the columns of key and event time.
        self._columns_of = {self._source: (stage.entity, self._time)}
        self._columns_of |= {one.topic: (one.key, one.contract.time) for one in stage.enrichments}
        self._no_rows = {one.topic: self._nothing(one) for one in stage.enrichments}
        self._next_seq = self._next_number = 0
        self._waiting: Waiting | None = None
        self._restore()
        if pages is not None:
            for one_store in self._stores.values():
                one_store.limit(pages, limit_bytes)

    @property
    def paged_keys(self) -> int:
        """Number of keys that are out of memory."""
        return sum(len(store.pages) for store in self._stores.values() if store.pages is not None)

    @property
    def next_seq(self) -> int:
        """How many rows the lane has seen."""
        return self._next_seq

    @property
    def waiting(self) -> Waiting | None:
        """The events that wait; None in a stage without awaited enrichments."""
        return self._waiting

    def process(self, piece: Piece, now_ms: int | None = None) -> Piece:
        """Return the piece with the stage's columns, late rows as letters; rows joined here stay in the state.

        Rows that a later stage joins go through as they are. Where rows that are joined here release events that have
        waited, the piece is one of those events, with the letters of both.

        Parameters
        ----------
        now_ms : processing time, epoch ms, by which events wait, too; None: by event time alone
        """
        if piece.topic not in self._stores:
            return piece
        done = self.process_interleaved({piece.topic: piece}, np.zeros(piece.rows.num_rows, np.int8), now_ms)
        mine = done.pop(piece.topic)
        for released in done.values():
            return released.with_rows(released.rows, mine.letters)
        return mine

    def expire(self, now_ms: int = END_OF_INPUT) -> Piece | None:
        """Return the events whose wait is over at a processing time, if any; by default all of them."""
        return self.process_interleaved({}, np.empty(0, np.int8), now_ms).get(self._source)

    def process_interleaved(
        self,
        pieces: Mapping[str, Piece],
        order: NDArray[np.int8],
        now_ms: int | None = None,
        places: Places | None = None,
    ) -> dict[str, Piece]:
        """Process pieces of several topics as one sequence.

        Parameters
        ----------
        pieces : topic -> piece, the rows of each in their order
        order : int8[rows], per row of the sequence the position of its topic in `pieces`
        now_ms : see `process`
        places : to repeat a run, where it had the rows, all of which this stage sees

        Returns
        -------
        Topic -> what comes of its piece; also of the source's where only rows of others came, and released events.
        """
        done, before = dict(pieces), self._next_seq
        if places is None:
            mine = np.array([topic in self._stores for topic in pieces], np.bool_)[order]
            seqs = np.cumsum(mine) - 1 + before
            self._next_seq += int(mine.sum())
        else:
            seqs, self._next_seq = places.seqs, places.end
        rows = {
            topic: Rows(piece.rows, seqs if len(pieces) == 1 else seqs[order == i], *self._columns_of[topic])
            for i, (topic, piece) in enumerate(pieces.items())
            if topic in self._stores
        }
        events, late = rows.get(self._source), None
        columns: dict[str, pa.Array] = {}
        if events is not None:
            batch = add_entity(events.batch, self._stage.entity, self._stage.fields)
            events = Rows(batch, events.seqs, events.key, events.time)
            late = self._apply(self._source, Sequence(events))
            columns |= late.columns
        waiting = self._waiting
        if waiting is not None:
            is_late = None if late is None else late.status == LATE
            waiting.begin(events, is_late, (before, self._next_seq), now_ms, None if places is None else places.told)
        for topic, no_rows in self._no_rows.items():
            own, readers, patience = rows.get(topic), events, None
            asked = waiting.ask(topic, has_rows=own is not None) if waiting is not None else None
            if asked is not None:
                readers, patience = asked.readers, asked.patience
            if own is None and readers is None:
                continue
            answer = self._apply(topic, Sequence(own or no_rows, readers), patience)
            columns |= answer.columns
            if waiting is not None and asked is not None and answer.joined is not None:
                waiting.settle(asked, answer.joined)
            if own is not None:
                is_late = answer.status == LATE
                notes = self._mapping is not None
                kept = kept_letters(self._stage, topic, self._number, own, is_late, answer.behind_ms, notes=notes)
                done[topic] = pieces[topic].with_rows(own.batch.slice(0, 0), to_batch([*kept]))
        gone_on, letters = self._gone_on(events, columns, late)
        if gone_on is not None:
            piece = pieces.get(self._source) or Piece(self._source, gone_on, no_letters())
            done[self._source] = piece.with_rows(gone_on, to_batch(letters))
        return done

    def _apply(self, topic: str, sequence: Sequence, patience: Patience | None = None) -> Answer:
        """Take a sequence to a store."""
        store, numbers = self._stores[topic], (self._next_number, self._next_seq)
        answer, self._next_number = store.apply(sequence, self._mapping, *numbers, patience)
        return answer

    def _gone_on(
        self, events: Rows | None, columns: dict[str, pa.Array], late: Answer | None
    ) -> tuple[pa.RecordBatch | None, list[Letter]]:
        """Return the events that go on, None for none where none came, and the letters of those that do not."""
        rows, letters = None, []
        if events is not None and late is not None:
            names = [feature.name for feature in self._stage.features]
            names += [column for one in self._stage.enrichments if not one.is_awaited for column in one.take]
            added = {name: columns[name] for name in names}
            rows = add_columns(events.batch, added | stamp_arrays(self._stage.entity, self._number, events.seqs))
            is_late = late.status == LATE
            if is_late.any():
                key, judged = self._pipeline.source.key, rows.filter(pa.array(is_late))
                keys = self._columns_of[self._source]
                letters = late_letters(self._stage, self._source, key, keys, judged, late.behind_ms[is_late])
                rows = rows.filter(pa.array(~is_late)) if self._waiting is None else rows
        if self._waiting is None:
            return rows, letters
        released = self._waiting.release(rows)
        if self._mapping is not None:
            self._next_number = self._waiting.write(self._mapping, self._next_number)
        if rows is None and not released.parts:
            return None, letters
        none = (released.parts[0] if rows is None else rows).slice(0, 0)
        rows, refused = leave(released, none, self._pipeline, self._stage, self._number)
        return rows, letters + refused

    def _restore(self) -> None:
        """Rebuild the stores from the durable log; an empty log leaves them empty."""
        stored = sorted((self._mapping or {}).items())
        entries = [(number, data) for number, data in stored if is_entry(data)]
        found = [(number, Segment.decode(data), len(data)) for number, data in stored if not is_entry(data)]
        for store in self._stores.values():
            store.log.restore([entry for entry in found if entry[1].store == store.log.store])
        self._next_seq = max((segment.next_seq for _, segment, _ in found), default=0)
        self._next_number = stored[-1][0] + 1 if stored else 0
        if entries or any(one.is_awaited for one in self._stage.enrichments):
            self._waiting = Waiting(self._pipeline, self._stage, entries)

    def _nothing(self, enrichment: Enrichment) -> Rows:
        """Return no rows of an enrichment."""
        batch = pa.RecordBatch.from_pylist([], schema=enrichment.contract.arrow_schema())
        return Rows(batch, np.empty(0, np.int64), *self._columns_of[enrichment.topic])
