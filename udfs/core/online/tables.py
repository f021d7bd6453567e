"""Online rows: featurized rows -> the newest one of each entity key as text, and the schema that says how to read them.

Pure: they are written by `udfs.online.writer` (a job) and `udfs.online.backfill`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from udfs.core.declare.declarations import TimePolicy
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.feature import Feature
from udfs.core.kernels.tiles import MONDAY_MS
from udfs.core.online.schema import Column, Expiry, OnlineSchema, OnlineStoreError, Value, row_key
from udfs.core.plan.features import Stage, plan_stages, reach_ms
from udfs.core.rows.batches import seq_column


@dataclass(frozen=True, slots=True)
class OnlineRow:
    """Latest values of one entity key."""

    key: str
    event_time_ms: int
    #: sequence number in the lane of the writing job
    seq: int
    #: JSON array of the columns of its table
    values: bytes
    #: life of the key after this write
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class OnlineTable:
    """How the rows of one entity stand in the store."""

    prefix: str
    entity: str
    time_column: str
    columns: tuple[str, ...]
    #: per column
    expiries: tuple[Expiry, ...]
    #: per column: its value where no event is within reach
    empties: tuple[Value, ...]
    #: life of a key after its last write: until nothing of its event is within reach, and the allowed lateness on top
    ttl_ms: int

    def newest(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the row with the newest (event time, sequence number) of each key, whatever the order of the rows.

        Parameters
        ----------
        rows : with the entity, its sequence number, the event time and the table's columns; a null key has no row

        Raises
        ------
        OnlineStoreError : a column is missing.
        """
        wanted = [self.entity, self.time_column, seq_column(self.entity), *self.columns]
        missing = [name for name in wanted if name not in rows.schema.names]
        if missing:
            msg = f"online rows of {self.entity!r}: the rows lack {', '.join(missing)}; they must come from the "
            msg += "featurize stages of the same pipeline"
            raise OnlineStoreError(msg)
        codes = pc.dictionary_encode(rows[self.entity])
        order = np.lexsort((rows[seq_column(self.entity)].to_numpy(), rows[self.time_column].to_numpy()))
        last = np.full(len(codes.dictionary) + 1, -1)  # one place more, for rows without a key
        # Of repeated indices NumPy keeps the last assignment, which is the newest row.
        last[codes.indices.fill_null(-1).to_numpy()[order]] = order
        return rows.select(wanted).take(pa.array(last[:-1]))

    def rows(self, newest: pa.RecordBatch) -> list[OnlineRow]:
        """Return what `newest` found as rows of the store."""
        marks = [newest[name].to_pylist() for name in (self.entity, self.time_column, seq_column(self.entity))]
        return [
            OnlineRow(row_key(self.prefix, self.entity, key), event_time_ms, seq, values, self.ttl_ms)
            for key, event_time_ms, seq, values in zip(*marks, row_texts(newest, self.columns), strict=True)
        ]


def online_tables(pipeline: Pipeline, prefix: str) -> tuple[OnlineTable, ...]:
    """Return the table of each entity that has features.

    Parameters
    ----------
    prefix : name space of the store keys
    """
    return tuple(_table(stage, pipeline, prefix) for stage in plan_stages(pipeline) if stage.features)


def online_schema(tables: tuple[OnlineTable, ...], feature_set: str, types: pa.Schema) -> OnlineSchema:
    """Return the schema of the tables.

    Parameters
    ----------
    feature_set : hash of the feature set
    types : of the featurized rows

    Raises
    ------
    OnlineStoreError : a column has a type that the store does not hold.
    """
    entities = {
        table.entity: tuple(
            Column(name, type_name(types.field(name).type, name), expiry, empty)
            for name, expiry, empty in zip(table.columns, table.expiries, table.empties, strict=True)
        )
        for table in tables
    }
    return OnlineSchema(feature_set, entities)


def type_name(kind: pa.DataType, column: str) -> str:
    """Return what a schema calls a type.

    Examples
    --------
    >>> type_name(pa.list_(pa.float64()), "c"), type_name(pa.map_(pa.string(), pa.float64()), "c")
    ('list<float64>', 'map<string, float64>')
    """
    named = {pa.float64(): "float64", pa.int64(): "int64", pa.bool_(): "bool", pa.string(): "string"}
    scalars = named | {pa.large_string(): "string"}
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if kind in scalars:
        return scalars[kind]
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and kind.value_type in scalars:
        return f"list<{scalars[kind.value_type]}>"
    if pa.types.is_map(kind) and kind.key_type in (pa.string(), pa.int64()) and kind.item_type in scalars:
        return f"map<{named[kind.key_type]}, {scalars[kind.item_type]}>"
    held = ", ".join(named.values())
    msg = f"online rows: column {column!r} is {kind}; the store holds {held}, and lists and maps of them"
    raise OnlineStoreError(msg)


def row_texts(rows: pa.RecordBatch, columns: Sequence[str]) -> list[bytes]:
    """Return of each row the columns as a JSON array; a float64 comes back bit for bit, one that is not finite is null.

    Examples
    --------
    >>> row_texts(pa.RecordBatch.from_pydict({"a": [0.1 + 0.2, None], "b": [["x"], []]}), ["a", "b"])
    [b'[0.30000000000000004,["x"]]', b'[null,[]]']
    """
    if not columns:
        return [b"[]"] * rows.num_rows
    encode = msgspec.json.Encoder().encode
    return [encode(row) for row in zip(*(_plain(rows[name]) for name in columns), strict=True)]


def _plain(column: pa.Array) -> list[Any]:
    values: list[Any]
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False).tolist()  # null is NaN, which is null in JSON; ten times as fast
        return values
    values = column.to_pylist()
    if pa.types.is_map(column.type):
        return [None if pairs is None else dict(pairs) for pairs in values]
    return values


def _table(stage: Stage, pipeline: Pipeline, prefix: str) -> OnlineTable:
    windowed = {one.name: (_expiry(one, stage, pipeline.time), _empty(one)) for one in stage.features}
    joined = {name: (Expiry(one.max_age_ms), None) for one in stage.enrichments for name in one.take}
    columns = windowed | joined
    expiries = tuple(expiry for expiry, _ in columns.values())
    return OnlineTable(
        prefix,
        stage.entity,
        pipeline.contract.time,
        tuple(columns),
        expiries,
        tuple(empty for _, empty in columns.values()),
        max(expiry.reach_ms + expiry.tile_ms for expiry in expiries) + pipeline.time.allowed_lateness_ms,
    )


def _expiry(feature: Feature, stage: Stage, time: TimePolicy) -> Expiry:
    window = feature.window
    if window.kind == "sliding":
        return Expiry(window.size_ms + (window.delay_ms or 0), feature.slide_ms, MONDAY_MS)
    if window.kind == "tumbling":
        return Expiry(0, window.size_ms, MONDAY_MS)
    if window.kind == "session":
        return Expiry(window.size_ms)
    # The others end with no time: they are empty once the job has forgotten the key, see `store.Store`.
    reach = reach_ms(tuple(track for track in stage.tracks if track.cut.stream == feature.stream))
    for one in stage.enrichments:
        if one.name == feature.stream:
            return Expiry(time.horizon_ms(max(reach, one.max_age_ms), one.keep_ms))
    return Expiry(time.horizon_ms(reach, time.allowed_lateness_ms))


def _empty(feature: Feature) -> Value:
    if feature.gives.startswith("list"):
        return []
    return {} if feature.gives.startswith("map") else feature.take.aggregation.empty
