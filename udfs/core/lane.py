"""One featurize stage in one lane: rows in their order -> the same rows with features, joins and order stamps.

The state is one store for the scored events and one per enrichment. Everything that decides a result is a function of
the sequence of rows of the lane, never of where batches were cut.
"""

from collections.abc import Mapping, MutableMapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.batches import Piece, add_columns, lane_column, seq_column
from udfs.core.declarations import Enrichment
from udfs.core.definition import Pipeline
from udfs.core.entities import add_entity
from udfs.core.features import Stage
from udfs.core.kernels.admit import LATE
from udfs.core.letters import Letter, to_batch
from udfs.core.segments import Segment
from udfs.core.sequence import Rows, Sequence
from udfs.core.store import Answer, Store
from udfs.core.validation import letter_of

I64 = NDArray[np.int64]


def stage_name(stage: Stage) -> str:
    """Name of a featurize stage in letters, uids and metrics."""
    return f"featurize-{stage.entity}"


class Lane:
    """State and logic of one stage in one lane.

    Parameters
    ----------
    pipeline, stage : what to compute
    number : the lane
    mapping : the durable log, segment number -> bytes; what it holds is restored. None: nothing is kept durable, and no
        letter says where rows of enrichments came, as offline runs want it
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
        self._restore()
        if pages is not None:
            for one_store in self._stores.values():
                one_store.limit(pages, limit_bytes)

    @property
    def paged_keys(self) -> int:
        """Number of keys that are out of memory."""
        return sum(len(store.pages) for store in self._stores.values() if store.pages is not None)

    def process(self, piece: Piece) -> Piece:
        """Return the piece with the stage's columns, late rows as letters; rows joined here stay in the state.

        Rows that a later stage joins go through as they are.
        """
        return self.process_interleaved({piece.topic: piece}, np.zeros(piece.rows.num_rows, np.int8))[piece.topic]

    def process_interleaved(self, pieces: Mapping[str, Piece], order: NDArray[np.int8]) -> dict[str, Piece]:
        """Process pieces of several topics as one sequence.

        Parameters
        ----------
        pieces : topic -> piece, the rows of each in their order
        order : int8[rows], per row of the sequence the position of its topic in `pieces`

        Returns
        -------
        What `process` would return piece by piece, joined per topic.
        """
        done = dict(pieces)
        mine = np.array([topic in self._stores for topic in pieces])[order]
        seqs = np.cumsum(mine) - 1 + self._next_seq
        self._next_seq += int(seqs.size and mine.sum())
        rows = {
            topic: Rows(piece.rows, seqs if len(pieces) == 1 else seqs[order == i], *self._columns_of[topic])
            for i, (topic, piece) in enumerate(pieces.items())
            if topic in self._stores
        }
        events = rows.get(self._source)
        if events is not None:
            batch = add_entity(events.batch, self._stage.entity, self._stage.fields)
            events = rows[self._source] = Rows(batch, events.seqs, events.key, events.time)
        columns: dict[str, pa.Array] = {}
        late = None
        for topic, store in self._stores.items():
            own = rows.get(topic)
            is_source = topic == self._source
            if own is None and (is_source or events is None):
                continue
            sequence = Sequence(own or self._no_rows[topic], None if is_source else events)
            answer, self._next_number = store.apply(sequence, self._mapping, self._next_number, self._next_seq)
            columns |= answer.columns
            if is_source:
                late = answer
            elif own is not None:
                done[topic] = pieces[topic].with_rows(own.batch.slice(0, 0), to_batch(self._kept(topic, own, answer)))
        if events is not None and late is not None:
            done[self._source] = self._featurized(pieces[self._source], events, columns, late)
        return done

    def _featurized(self, piece: Piece, events: Rows, columns: dict[str, pa.Array], answer: Answer) -> Piece:
        """Return the events with their columns and stamps, the late ones as letters."""
        names = [feature.name for feature in self._stage.features]
        names += [column for one in self._stage.enrichments for column in one.take]
        added = {name: columns[name] for name in names}
        added[lane_column(self._stage.entity)] = pa.array(np.full(events.seqs.size, self._number, np.int32))
        added[seq_column(self._stage.entity)] = pa.array(events.seqs)
        rows = add_columns(events.batch, added)
        late = answer.status == LATE
        if not late.any():
            return piece.with_rows(rows)
        judged = rows.filter(pa.array(late)).to_pylist()
        key = self._pipeline.source.key
        letters = [
            self._late(row, piece.topic, key, stamps(row), row[self._time], row[self._stage.entity], behind_ms)
            for row, behind_ms in zip(judged, answer.behind_ms[late].tolist(), strict=True)
        ]
        return piece.with_rows(rows.filter(pa.array(~late)), to_batch(letters))

    def _kept(self, topic: str, own: Rows, answer: Answer) -> list[Letter]:
        """Return the letters of an enrichment's rows: late ones, and where each came in the lane's sequence."""
        letters = []
        is_late = answer.status == LATE
        if self._mapping is None and not is_late.any():
            return []
        for i, row in enumerate(own.batch.to_pylist()):
            stamp = {self._stage.entity: (self._number, int(own.seqs[i]))}
            if is_late[i]:
                letters.append(
                    self._late(row, topic, own.key, stamp, row[own.time], row[own.key], int(answer.behind_ms[i]))
                )
            if self._mapping is not None:
                letters.append(letter_of(row, "order", topic, own.key, stage_name(self._stage), "kept", "", stamp))
        return letters

    def _late(
        self,
        row: dict[str, object],
        topic: str,
        key_field: str,
        order: dict[str, tuple[int, int]],
        time_ms: int,
        key: str,
        behind_ms: int,
    ) -> Letter:
        detail = f"event time {time_ms} is {behind_ms} ms behind the newest of {self._stage.entity}={key!r}"
        return letter_of(row, "late", topic, key_field, stage_name(self._stage), "late", detail, order)

    def _restore(self) -> None:
        """Rebuild the stores from the durable log; an empty log leaves them empty."""
        found = [(number, Segment.decode(data), len(data)) for number, data in sorted((self._mapping or {}).items())]
        for store in self._stores.values():
            store.log.restore([entry for entry in found if entry[1].store == store.log.store])
        self._next_seq = max((segment.next_seq for _, segment, _ in found), default=0)
        self._next_number = found[-1][0] + 1 if found else 0

    def _nothing(self, enrichment: Enrichment) -> Rows:
        """Return no rows of an enrichment."""
        batch = pa.RecordBatch.from_pylist([], schema=enrichment.contract.arrow_schema())
        return Rows(batch, np.empty(0, np.int64), *self._columns_of[enrichment.topic])


def stamps(row: dict[str, object]) -> dict[str, tuple[int, int]]:
    """Return per featurize stage that the row has passed its [lane, sequence number]."""
    prefix = lane_column("")
    entities = [name.removeprefix(prefix) for name in row if name.startswith(prefix)]
    return {entity: (row[lane_column(entity)], row[seq_column(entity)]) for entity in entities}  # type: ignore[misc]
