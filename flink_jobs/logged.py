"""What a scoring job logged, for `udfs.core.offline.parity`: read from its output topics, or from their archive."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from flink_jobs.config import Kafka
from flink_jobs.kafka_records import KafkaRecords
from scripts.kafka.consume import Record
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import HeadraceError
from udfs.core.offline.archive import ArchiveKind, archived_features, open_archive, stamp_columns
from udfs.core.offline.parity import Logged, stamp_schema
from udfs.core.plan.features import feature_columns, order_places

LETTERS: tuple[ArchiveKind, ...] = ("rejects", "late", "order")
_HEADER = "headrace."
Stamps = dict[str, tuple[int, int]]


class LoggedError(HeadraceError):
    """A record of an output topic is not as the job writes them."""


@dataclass(frozen=True, slots=True)
class Read:
    """What was read."""

    logged: Logged
    #: predictions of other feature sets, which are not compared
    others: int


class _Origin(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class _Prediction(msgspec.Struct):
    feature_set: str
    origin: _Origin
    order: Stamps
    features: dict[str, float | None] | None = None


_prediction = msgspec.json.Decoder(_Prediction).decode
_stamps = msgspec.json.Decoder(Stamps).decode


class LogReader:
    """Turns output records into columns.

    Parameters
    ----------
    pipeline : without topic prefix
    feature_set : hash of the features that are compared
    prefix : of the topic names
    """

    def __init__(self, pipeline: Pipeline, feature_set: str, prefix: str = "") -> None:
        self._places = order_places(pipeline)
        self._schema, self._names = stamp_schema(pipeline), feature_columns(pipeline)
        self._predictions_topic = prefix + pipeline.sinks.predictions.topic
        self._feature_set, self._prefix = feature_set, prefix

    def read(self, records: Iterable[Record]) -> Read:
        """Read records of the output topics.

        Raises
        ------
        LoggedError : a record is none of the job's.
        """
        seen: list[tuple[_Origin, Stamps]] = []
        predicted: list[_Prediction] = []
        others = 0
        for record in records:
            if record.topic != self._predictions_topic:
                seen.append(_letter(record))
                continue
            try:
                found = _prediction(record.value or b"")
            except msgspec.DecodeError as error:
                msg = f"{record.topic} at offset {record.offset}: is no prediction ({error}): {record.value!r:.200}"
                raise LoggedError(msg) from error
            seen.append((found.origin, found.order))
            others += found.feature_set != self._feature_set
            if found.feature_set == self._feature_set:
                predicted.append(found)
        return Read(Logged(self._stamp_table(seen), self._prediction_table(predicted)), others)

    def _stamp_table(self, seen: list[tuple[_Origin, Stamps]]) -> pa.Table:
        columns: list[list[Any]] = [
            [origin.topic.removeprefix(self._prefix) for origin, _ in seen],
            [origin.partition for origin, _ in seen],
            [origin.offset for origin, _ in seen],
        ]
        for place in self._places:
            found = [order.get(place, (None, None)) for _, order in seen]
            columns += [[lane for lane, _ in found], [seq for _, seq in found]]
        arrays = [pa.array(column, one.type) for column, one in zip(columns, self._schema, strict=True)]
        return pa.table(arrays, schema=self._schema)

    def _prediction_table(self, predicted: list[_Prediction]) -> pa.Table:
        columns = {
            "partition": pa.array([one.origin.partition for one in predicted], pa.int32()),
            "offset": pa.array([one.origin.offset for one in predicted], pa.int64()),
        }
        logged = [one.features or {} for one in predicted]
        for name in self._names:
            if any(name in features for features in logged):
                columns[name] = pa.array([features.get(name) for features in logged], pa.float64())
        return pa.table(columns)


def read_topics(pipeline: Pipeline, kafka: Kafka, feature_set: str) -> Read:
    """Read what the output topics hold now; see `LogReader`."""
    sinks = pipeline.sinks
    topics = dict.fromkeys(sink.topic for sink in (sinks.predictions, sinks.rejects, sinks.late, sinks.order))
    return LogReader(pipeline, feature_set, kafka.topic_prefix).read(_records(KafkaRecords(kafka, list(topics))))


def _records(records: KafkaRecords) -> Iterator[Record]:
    for piece in records.pieces():
        yield from piece


def read_archive(pipeline: Pipeline, root: str, prefix: str, feature_set: str) -> Read:
    """Read what the archive of the job holds.

    Raises
    ------
    ArchiveError : there is none.
    """
    dataset, places = open_archive(root, pipeline, "predictions"), stamp_columns(pipeline)
    features = archived_features(pipeline)
    origin = ["origin_topic", "origin_partition", "origin_offset"]
    stamps = [name for pair in places.values() for name in pair]
    rows = dataset.to_table(columns=[*origin, *stamps, *features.values(), "feature_set"])
    rows = rows.filter(rows["origin_offset"].is_valid())
    schema = stamp_schema(pipeline)
    tables = [
        pa.table(
            [_without(rows["origin_topic"], prefix), *(rows[name] for name in [*origin[1:], *stamps])], schema=schema
        )
    ]
    tables += [_archived_letters(pipeline, root, kind, prefix, schema) for kind in LETTERS]
    mine = rows.filter(pc.equal(rows["feature_set"], feature_set))
    columns = {"partition": mine["origin_partition"], "offset": mine["origin_offset"]}
    columns |= {feature: mine[column] for feature, column in features.items()}
    return Read(Logged(pa.concat_tables(tables), pa.table(columns)), rows.num_rows - mine.num_rows)


def _archived_letters(pipeline: Pipeline, root: str, kind: ArchiveKind, prefix: str, schema: pa.Schema) -> pa.Table:
    names = ["origin_topic", "origin_partition", "origin_offset", "stamps"]
    rows = open_archive(root, pipeline, kind).to_table(columns=names)
    rows = rows.filter(rows["origin_offset"].is_valid())
    orders = [_stamps(text or "{}") for text in rows["stamps"].to_pylist()]
    columns = [_without(rows["origin_topic"], prefix), rows["origin_partition"], rows["origin_offset"]]
    for place in order_places(pipeline):
        pairs = [order.get(place, (None, None)) for order in orders]
        columns += [pa.array([lane for lane, _ in pairs], pa.int32()), pa.array([seq for _, seq in pairs], pa.int64())]
    return pa.table(columns, schema=schema)


def _without(topics: pa.ChunkedArray, prefix: str) -> pa.ChunkedArray:
    return pc.utf8_slice_codeunits(topics, len(prefix)) if prefix else topics


def _letter(record: Record) -> tuple[_Origin, Stamps]:
    headers = {name.removeprefix(_HEADER): value for name, value in record.headers}
    try:
        origin = _Origin(headers["topic"].decode(), int(headers["partition"]), int(headers["offset"]))
        return origin, _stamps(headers["order"])
    except (KeyError, ValueError, msgspec.DecodeError) as error:
        msg = f"{record.topic} at offset {record.offset}: headers are no letter's ({error!r}): {sorted(headers)}"
        raise LoggedError(msg) from error
