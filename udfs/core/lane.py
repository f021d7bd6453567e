"""One featurize stage in one lane: rows in their order -> the same rows with features, joins and order stamps.

The state is two kinds of store: store 0 holds the windows, store 1.. the rows of each enrichment. Everything that
decides a result is a function of the sequence of rows of the lane, never of where batches were cut.
"""

from collections.abc import MutableMapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.batches import Piece, add_columns, lane_column, seq_column
from udfs.core.cells import KeyedCells, Layout
from udfs.core.declarations import Enrichment, TimePolicy
from udfs.core.definition import Pipeline
from udfs.core.features import Stage
from udfs.core.ingest import number_column
from udfs.core.kernels.admit import LATE
from udfs.core.kernels.asof import keep_rows, latest_rows
from udfs.core.kernels.windows import fold_windows
from udfs.core.letters import Letter, to_batch
from udfs.core.log import Log
from udfs.core.segments import Segment
from udfs.core.validation import letter_of

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


def stage_name(stage: Stage) -> str:
    """Name of a featurize stage in letters, uids and metrics."""
    return f"featurize-{stage.entity}"


class Lane:
    """State and logic of one stage in one lane.

    Parameters
    ----------
    pipeline, stage : what to compute
    number : the lane
    mapping : the durable log, segment number -> bytes; what it holds is restored
    """

    def __init__(self, pipeline: Pipeline, stage: Stage, number: int, mapping: MutableMapping[int, bytes]) -> None:
        self._pipeline, self._stage, self._number, self._mapping = pipeline, stage, number, mapping
        self._time, self._key = pipeline.contract.time, pipeline.source.key
        lateness_ms = pipeline.time.allowed_lateness_ms
        self._layouts = [(track, track.opcodes, track.inputs, track.offsets) for track in stage.tracks]
        layouts = [Layout(track.layout, track.slide_ms, int(track.offsets[-1])) for track in stage.tracks]
        self._windows = KeyedCells(layouts, lateness_ms, pipeline.time.horizon_ms(stage.reach_ms, lateness_ms))
        self._joins = {
            enrichment.topic: (number, enrichment, _join_cells(enrichment, pipeline.time))
            for number, enrichment in enumerate(stage.enrichments, start=1)
        }
        self._logs = [Log(0, self._windows, stage.reach_ms)]
        self._logs += [Log(n, cells, enrichment.keep_ms) for n, enrichment, cells in self._joins.values()]
        self._no_columns = _no_columns(stage)
        self._next_seq = self._next_number = 0
        self._restore()

    def process(self, piece: Piece) -> Piece:
        """Return the piece with the stage's columns, late rows as letters; rows joined here stay in the state.

        Rows that a later stage joins go through as they are.
        """
        if piece.rows.num_rows == 0:
            is_source = piece.topic == self._pipeline.source.topic
            return piece.with_rows(add_columns(piece.rows, self._no_columns)) if is_source else piece
        if piece.topic in self._joins:
            return self._keep(piece)
        return self._featurize(piece) if piece.topic == self._pipeline.source.topic else piece

    def _featurize(self, piece: Piece) -> Piece:
        rows = piece.rows
        keys = rows[self._stage.entity]
        times_ms = rows[self._time].to_numpy(zero_copy_only=False)
        first_seq, count = self._next_seq, rows.num_rows
        slots = self._windows.find_or_add(keys)
        status, reborn, behind_ms = self._windows.admit(slots, times_ms, first_seq)
        columns: dict[str, pa.Array] = {}
        touched: list[I64] = []
        for (track, opcodes, inputs, offsets), cells in zip(self._layouts, self._windows.tracks, strict=True):
            values = _matrix(rows, track.columns)
            out, cells_touched = np.empty((len(track.features), count)), np.empty(count, np.int64)
            fold_windows(
                slots, times_ms, values, status, reborn,
                track.slide_ms, self._windows.lateness_ms, opcodes, inputs, offsets,
                track.sizes, track.feature_window, track.feature_ir,
                cells.head, cells.older, cells.owner, cells.tile, cells.irs, cells.free, cells.free_count,
                cells_touched, out,
            )  # fmt: skip
            touched.append(cells_touched)
            columns |= {f.name: _nullable(column) for f, column in zip(track.features, out, strict=True)}
        columns = {feature.name: columns[feature.name] for feature in self._stage.features}
        for _, enrichment, cells_of in self._joins.values():
            out = np.empty((len(enrichment.take), count))
            store = cells_of.tracks[0]
            latest_rows(
                cells_of.find(keys), times_ms, enrichment.max_age_ms, enrichment.keep_ms, cells_of.forgotten_before_ms,
                store.head, store.older, store.tile, store.irs, out,
            )  # fmt: skip
            columns |= {name: _nullable(column) for name, column in zip(enrichment.take, out, strict=True)}
        columns[lane_column(self._stage.entity)] = pa.array(np.full(count, self._number, np.int32))
        columns[seq_column(self._stage.entity)] = pa.array(np.arange(first_seq, first_seq + count))
        self._next_seq += count
        self._next_number = self._logs[0].write(self._mapping, self._next_number, self._next_seq, slots, touched)
        rows = add_columns(rows, columns)
        late = status == LATE
        if not late.any():
            return piece.with_rows(rows)
        judged = rows.filter(pa.array(late)).to_pylist()
        letters = [
            self._late(
                row, piece.topic, self._key, stamps(row), row[self._time], row[self._stage.entity], row_behind_ms
            )
            for row, row_behind_ms in zip(judged, behind_ms[late].tolist(), strict=True)
        ]
        return piece.with_rows(rows.filter(pa.array(~late)), to_batch(letters))

    def _keep(self, piece: Piece) -> Piece:
        """Store the rows of an enrichment; say in a letter of order where each came in the lane's sequence."""
        store, enrichment, cells = self._joins[piece.topic]
        rows = piece.rows
        times_ms = rows[enrichment.contract.time].to_numpy(zero_copy_only=False)
        slots = cells.find_or_add(rows[enrichment.key])
        status, reborn, behind_ms = cells.admit(slots, times_ms, self._next_seq)
        track = cells.tracks[0]
        touched = np.empty(rows.num_rows, np.int64)
        keep_rows(
            slots, times_ms, _matrix(rows, tuple(enrichment.take.values())), status, reborn, enrichment.keep_ms,
            track.head, track.older, track.owner, track.tile, track.irs, track.free, track.free_count, touched,
        )  # fmt: skip
        letters = []
        for i, row in enumerate(rows.to_pylist()):
            stamp = {self._stage.entity: (self._number, self._next_seq + i)}
            if status[i] == LATE:
                key, time_ms = row[enrichment.key], int(times_ms[i])
                letters.append(self._late(row, piece.topic, enrichment.key, stamp, time_ms, key, int(behind_ms[i])))
            letters.append(
                letter_of(row, "order", piece.topic, enrichment.key, stage_name(self._stage), "kept", "", stamp)
            )
        self._next_seq += rows.num_rows
        self._next_number = self._logs[store].write(self._mapping, self._next_number, self._next_seq, slots, [touched])
        return piece.with_rows(rows.slice(0, 0), to_batch(letters))

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
        found = [(number, Segment.decode(data), len(data)) for number, data in sorted(self._mapping.items())]
        for log in self._logs:
            log.restore([entry for entry in found if entry[1].store == log.store])
        self._next_seq = max((segment.next_seq for _, segment, _ in found), default=0)
        self._next_number = found[-1][0] + 1 if found else 0


def stamps(row: dict[str, object]) -> dict[str, tuple[int, int]]:
    """Return per featurize stage that the row has passed its [lane, sequence number]."""
    prefix = lane_column("")
    entities = [name.removeprefix(prefix) for name in row if name.startswith(prefix)]
    return {entity: (row[lane_column(entity)], row[seq_column(entity)]) for entity in entities}  # type: ignore[misc]


def _no_columns(stage: Stage) -> dict[str, pa.Array]:
    """Return the stage's columns for a piece without rows."""
    names = [feature.name for feature in stage.features] + [n for one in stage.enrichments for n in one.take]
    columns = {name: pa.array([], pa.float64()) for name in names}
    columns[lane_column(stage.entity)] = pa.array([], pa.int32())
    columns[seq_column(stage.entity)] = pa.array([], pa.int64())
    return columns


def _join_cells(enrichment: Enrichment, time: TimePolicy) -> KeyedCells:
    """Return the store of an enrichment's rows: a row is late when it is behind the history kept of its key."""
    layout = Layout(f"{enrichment.name}:" + ",".join(enrichment.take.values()), 1, len(enrichment.take))
    return KeyedCells([layout], enrichment.keep_ms, time.horizon_ms(enrichment.max_age_ms, enrichment.keep_ms))


def _matrix(rows: pa.RecordBatch, columns: tuple[str, ...]) -> F64:
    """Return number columns as float64[columns, n], NaN for null."""
    matrix = np.empty((len(columns), rows.num_rows))
    for i, name in enumerate(columns):
        matrix[i] = number_column(rows, name).to_numpy(zero_copy_only=False)
    return matrix


def _nullable(column: F64) -> pa.DoubleArray:
    """Return a feature column as Arrow float64, NaN as null."""
    return pa.array(column, from_pandas=True)
