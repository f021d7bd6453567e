"""State snapshots: all that a job knows, as a folder that another job can start from.

manifest.json          definition of the job, digest of every file, where its sources go on
logs/<log>-<lane>      durable log of one lane, a MessagePack array of its segments in their order
pending                records that were read and not yet featurized, a MessagePack array of batches in their order
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import msgspec
import pyarrow as pa
from pyarrow import fs

from udfs.core.cells.segments import Segment
from udfs.core.errors import StateFormatError
from udfs.core.rows.batches import RawBatch
from udfs.core.rows.lanes import lane_of
from udfs.core.stage.held import is_entry
from udfs.core.state.header import VERSION, StateHeader, decode_versioned

MANIFEST_FILE, PENDING_FILE = "manifest.json", "pending"
CreatedBy = Literal["export", "backfill", "migrate"]
T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """A state in memory."""

    header: StateHeader
    created_by: CreatedBy
    #: (log, lane) -> segments in their order; lanes without state are left out
    logs: Mapping[tuple[str, int], Sequence[bytes]]
    #: topic -> partition -> offset that is read next
    offsets: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    pending: Sequence[RawBatch] = ()


class FileDigest(msgspec.Struct, frozen=True):
    """One file of a snapshot."""

    bytes: int
    sha256: str


class LogSummary(msgspec.Struct, frozen=True):
    """One log, for people and for checks."""

    #: layouts of its tracks; see `cells.Layout`
    layouts: list[str]
    #: per lane, 0 and None where it has no state
    next_seq: list[int]
    clock_ms: list[int | None]


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot is of."""

    created_by: CreatedBy
    header: StateHeader
    lanes: int
    logs: dict[str, LogSummary]
    offsets: dict[str, dict[int, int]]
    #: (topic, partition) of pending records -> their offsets
    pending: dict[str, dict[int, list[int]]]
    files: dict[str, FileDigest]
    version: int = VERSION

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.bytes for file in self.files.values())


class SnapshotReader:
    """Reads a snapshot, file by file, each held to its digest.

    Parameters
    ----------
    place : folder, as a path or as a URI that pyarrow reads, such as `s3://bucket/snapshot`

    Raises
    ------
    StateFormatError : there is none, or a file is missing, spoiled or of another version.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        try:
            self._files, self._root = fs.FileSystem.from_uri(place if "://" in place else str(Path(place).resolve()))
        except (pa.ArrowException, OSError) as error:
            msg = f"{place}: is no place that can be read: {error}"
            raise StateFormatError(msg) from error
        self.manifest = decode_versioned(self._read(MANIFEST_FILE), Manifest, f"{place}/{MANIFEST_FILE}")

    def segments(self, log: str, lane: int) -> list[bytes]:
        """Return the segments of a log in one lane, none where it has no state."""
        return self._array(_log_file(log, lane), bytes)

    def pending(self) -> list[RawBatch]:
        """Return the records that were not yet featurized."""
        return self._array(PENDING_FILE, RawBatch)

    def check(self) -> None:
        """Read every file, so that a spoiled one is found now."""
        for name in self.manifest.files:
            self._array(name, msgspec.Raw)

    def whole(self) -> Snapshot:
        """Return all of it."""
        manifest = self.manifest
        logs = {
            (log, lane): segments
            for log in manifest.header.logs
            for lane in range(manifest.lanes)
            if (segments := self.segments(log, lane))
        }
        return Snapshot(manifest.header, manifest.created_by, logs, manifest.offsets, self.pending())

    def _array(self, name: str, type_: type[T]) -> list[T]:
        digest = self.manifest.files.get(name)
        if digest is None:
            return []
        data = self._read(name)
        if (len(data), hashlib.sha256(data).hexdigest()) != (digest.bytes, digest.sha256):
            size = f"{len(data)} bytes, {digest.bytes} in the manifest"
            msg = f"{self.place}/{name}: not the file that was written ({size}); was it cut or changed?"
            raise StateFormatError(msg)
        return msgspec.msgpack.decode(data, type=list[type_])  # type: ignore[valid-type]

    def _read(self, name: str) -> bytes:
        try:
            with self._files.open_input_file(f"{self._root}/{name}") as file:
                data: bytes = file.readall()
                return data
        except OSError as error:
            msg = f"{self.place}: no state snapshot, or not all of it: {error}"
            raise StateFormatError(msg) from error


def write_snapshot(folder: Path, snapshot: Snapshot) -> Manifest:
    """Write a snapshot into a folder of its own, which comes into being whole.

    Raises
    ------
    StateFormatError : the folder exists, or a segment is none.
    """
    if folder.exists():
        msg = f"{folder}: exists already; name a folder that does not"
        raise StateFormatError(msg)
    files = {_log_file(*place): msgspec.msgpack.encode(list(found)) for place, found in snapshot.logs.items() if found}
    if snapshot.pending:
        files[PENDING_FILE] = msgspec.msgpack.encode(list(snapshot.pending))
    lanes = snapshot.header.definition().lanes
    manifest = Manifest(
        created_by=snapshot.created_by,
        header=snapshot.header,
        lanes=lanes,
        logs={log: _summary(snapshot, log, lanes) for log in snapshot.header.logs},
        offsets={topic: dict(sorted(found.items())) for topic, found in sorted(snapshot.offsets.items())},
        pending=pending_offsets(snapshot.pending),
        files={name: FileDigest(len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())},
    )
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    try:
        for name, data in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(data)
        draft.mkdir(parents=True, exist_ok=True)
        (draft / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _log_file(log: str, lane: int) -> str:
    return f"logs/{quote(log, safe='')}-{lane}"


def _summary(snapshot: Snapshot, log: str, lanes: int) -> LogSummary:
    logs = [snapshot.logs.get((log, lane), ()) for lane in range(lanes)]
    decoded = [[Segment.decode(data) for data in found if not is_entry(data)] for found in logs]
    return LogSummary(
        layouts=sorted({track.layout for found in decoded for segment in found for track in segment.tracks}),
        next_seq=[max((segment.next_seq for segment in found), default=0) for found in decoded],
        clock_ms=[max((segment.clock_ms for segment in found), default=None) for found in decoded],
    )


def position(snapshot: Snapshot) -> tuple[dict[str, dict[int, int]], dict[str, dict[int, list[int]]]]:
    """Return which records a state has seen: all before the next offsets of their partitions, but the pending ones."""
    return {topic: dict(found) for topic, found in snapshot.offsets.items()}, pending_offsets(snapshot.pending)


def pending_of_lane(pending: Iterable[RawBatch], lane: int, lanes: int) -> Iterator[RawBatch]:
    """Yield what one lane has of pending records: those whose key is its."""
    for batch in pending:
        keys = (None if key is None else key.decode(errors="replace") for key in batch.keys)
        mine = [i for i, key in enumerate(keys) if lane_of(key, lanes) == lane]
        if mine:
            yield batch.select(mine)


def pending_offsets(pending: Sequence[RawBatch]) -> dict[str, dict[int, list[int]]]:
    """Return topic -> partition -> offsets, ascending."""
    found: dict[str, dict[int, list[int]]] = {}
    for batch in pending:
        of_topic = found.setdefault(batch.topic, {})
        for partition, offset in zip(batch.partitions, batch.offsets, strict=True):
            of_topic.setdefault(partition, []).append(offset)
    return {
        topic: {one: sorted(of_topic[one]) for one in sorted(of_topic)} for topic, of_topic in sorted(found.items())
    }
