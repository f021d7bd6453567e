"""The archive of a pipeline: what it wrote to Kafka, as Parquet files by day: their folders, columns and a reader.

`<root>/<pipeline>/<kind>/day=2026-01-31/part-…`, days in UTC. Files appear whole, at a checkpoint of the archive job;
what it has not finished has a name that starts with a dot.
"""

from typing import Literal, get_args

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from udfs.core.declare.definition import Pipeline
from udfs.core.errors import HeadraceError, did_you_mean
from udfs.core.plan.features import feature_columns, order_places

ArchiveKind = Literal["predictions", "rejects", "late", "order", "labels"]
KINDS: tuple[ArchiveKind, ...] = get_args(ArchiveKind)
DAY = "day"
BYTES = pa.map_(pa.string(), pa.binary())
ORIGIN = (
    pa.field("origin_topic", pa.string()),
    pa.field("origin_partition", pa.int32()),
    pa.field("origin_offset", pa.int64()),
    pa.field("origin_timestamp_ms", pa.int64()),
)
RECORD = (
    pa.field("key", pa.binary()),
    pa.field("value", pa.binary()),
    pa.field("record_partition", pa.int32(), nullable=False),
    pa.field("record_offset", pa.int64(), nullable=False),
    pa.field("record_timestamp_ms", pa.int64(), nullable=False),
)
PREDICTION = (
    pa.field("event_id", pa.string()),
    pa.field("event_time_ms", pa.int64()),
    pa.field("score", pa.float64()),
    pa.field("predicted_label", pa.string()),
    pa.field("scores", pa.map_(pa.string(), pa.float64())),
    pa.field("vector", pa.list_(pa.float64())),
    pa.field("model_name", pa.string()),
    pa.field("model_version", pa.string()),
    pa.field("model_sha256", pa.string()),
    pa.field("arm", pa.string()),
    pa.field("feature_set", pa.string()),
    #: routing epoch; null where only the champion's version can answer
    pa.field("routing", pa.string()),
    #: what answered in place of the arm's own version; null where it answered itself
    pa.field("status", pa.string()),
    *ORIGIN,
)
LETTER = (
    *ORIGIN,
    pa.field("stage", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
    pa.field("stamps", pa.string()),
    pa.field("headers", BYTES),
    *RECORD,
)
LABEL = (
    pa.field("event_id", pa.string()),
    pa.field("event_time_ms", pa.int64()),
    pa.field("label", pa.float64()),
    *RECORD,
)


class ArchiveError(HeadraceError):
    """There is no such archive."""


def archived_topics(pipeline: Pipeline) -> dict[ArchiveKind, str]:
    """Return the topic of each kind that a pipeline has; labels only where it declares them."""
    sinks = pipeline.sinks
    topics: dict[ArchiveKind, str] = {
        "predictions": sinks.predictions.topic,
        "rejects": sinks.rejects.topic,
        "late": sinks.late.topic,
        "order": sinks.order.topic,
    }
    return topics | ({"labels": pipeline.label.topic} if pipeline.label else {})


def archive_schema(pipeline: Pipeline, kind: ArchiveKind) -> pa.Schema:
    """Return the columns of a kind, without the day.

    A prediction's `key` and `value` are null where its columns say all that the record did. The others keep both.
    """
    if kind == "labels":
        return pa.schema(LABEL)
    if kind != "predictions":
        return pa.schema(LETTER)
    stamps = [
        field
        for lane, seq in stamp_columns(pipeline).values()
        for field in (pa.field(lane, pa.int32()), pa.field(seq, pa.int64()))
    ]
    features = [pa.field(name, pa.float64()) for name in archived_features(pipeline).values()]
    return pa.schema([*PREDICTION, *stamps, *features, *RECORD])


def stamp_columns(pipeline: Pipeline) -> dict[str, tuple[str, str]]:
    """Return per place of the order the names of the columns of its stamps: lane and number."""
    return {place: (f"lane_{place}", f"seq_{place}") for place in order_places(pipeline)}


def archived_features(pipeline: Pipeline) -> dict[str, str]:
    """Return per feature the name of its column: its own, with `_` behind it where another column has that name."""
    if not pipeline.sinks.predictions.features:
        return {}
    taken = {field.name for field in (*PREDICTION, *RECORD)} | {DAY}
    taken |= {name for pair in stamp_columns(pipeline).values() for name in pair}
    features = feature_columns(pipeline)
    columns = {}
    for feature in features:
        column = feature
        while column in taken or (column != feature and column in features):
            column += "_"
        columns[feature] = column
    return columns


def archive_folder(root: str, pipeline: str, kind: ArchiveKind) -> str:
    """Return the folder of a kind, as a path or URI like `root`."""
    return f"{root.rstrip('/')}/{pipeline}/{kind}"


def open_archive(root: str, pipeline: Pipeline, kind: ArchiveKind) -> ds.Dataset:
    """Open what is committed of a kind, as far as the files are there now; nothing is read yet.

    Columns are those of `archive_schema`, and `day` (date32). What an older file lacks is null.

    Parameters
    ----------
    root : folder or URI, as in the environment file
    pipeline : the definition that the columns follow from

    Raises
    ------
    ArchiveError : nothing of this pipeline was ever archived there. A kind of which there is nothing yet is empty.
    """
    if kind not in KINDS:
        msg = f"got kind {kind!r}{did_you_mean(kind, KINDS)}"
        raise ArchiveError(msg)
    schema = archive_schema(pipeline, kind).append(pa.field(DAY, pa.date32()))
    filesystem, base = _place(root)
    folder = archive_folder(base, pipeline.name, kind)
    found = filesystem.get_file_info([base, folder.rpartition("/")[0], folder])
    if found[1].type != pafs.FileType.Directory:
        msg = f"{root}: holds no archive of pipeline {pipeline.name!r}{_others(filesystem, found[0], pipeline.name)}"
        raise ArchiveError(msg)
    if found[2].type != pafs.FileType.Directory:
        return ds.dataset(schema.empty_table())
    days = ds.partitioning(pa.schema([pa.field(DAY, pa.date32())]), flavor="hive")
    # Names that start with a dot are passed over: files that are not committed.
    return ds.dataset(folder, schema, format="parquet", filesystem=filesystem, partitioning=days)


def is_begun(root: str, pipeline: str) -> bool:
    """Say whether rows of a pipeline are archived there already.

    Raises
    ------
    OSError : the place cannot be looked at from here, as a store whose credentials only the cluster has.
    """
    filesystem, base = _place(root)
    selector = pafs.FileSelector(f"{base.rstrip('/')}/{pipeline}", allow_not_found=True, recursive=True)
    return any(found.is_file and not found.base_name.startswith(".") for found in filesystem.get_file_info(selector))


def _place(root: str) -> tuple[pafs.FileSystem, str]:
    return pafs.FileSystem.from_uri(root) if "://" in root else (pafs.LocalFileSystem(), root)


def _others(filesystem: pafs.FileSystem, root: pafs.FileInfo, name: str) -> str:
    if root.type != pafs.FileType.Directory:
        return "; there is no such folder; run `headrace run archive` first"
    names = [entry.base_name for entry in filesystem.get_file_info(pafs.FileSelector(root.path))]
    return did_you_mean(name, names) if names else "; it is empty"
