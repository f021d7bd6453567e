"""Starting a job from a state snapshot: what is checked first, how the state travels, and where its sources begin."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyflink.common import Row
from pyflink.datastream import DataStream, StreamExecutionEnvironment

from flink_jobs.bundle import STATE_FOLDER
from flink_jobs.lanes import BATCH_TYPE
from udfs.core.errors import StateFormatError
from udfs.core.migration import refuse_unfit
from udfs.core.snapshot import SnapshotReader, StateHeader

SHIPPED_BYTES_MAX = 256 * 1024 * 1024
"""A larger snapshot is read by the workers, not sent to them with the job."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The state snapshot that a job starts from."""

    #: where workers read it
    place: str
    #: folder that travels with the job; None: workers read the place itself
    folder: Path | None
    #: topic -> partition -> first offset; other topics begin as the environment says
    offsets: Mapping[str, Mapping[int, int]]


def bootstrap_from(place: str, header: StateHeader) -> Bootstrap:
    """Check that a job can start from a snapshot.

    Parameters
    ----------
    place : a folder, which travels with the job, or a URI that every worker can read
    header : of the job

    Raises
    ------
    StateFormatError : it is spoiled, too large to travel, or of another definition; then with the migration plan.
    """
    reader = SnapshotReader(place)
    manifest = reader.manifest
    if manifest.header != header:
        refuse_unfit(manifest.header, header)
    if "://" in place:
        return Bootstrap(place, None, manifest.offsets)
    if manifest.size_bytes > SHIPPED_BYTES_MAX:
        msg = (
            f"{place}: {manifest.size_bytes:,} bytes of state are too many to travel with the job; copy the folder to "
            "where every worker can read it, and name it by a URI such as s3://bucket/snapshot or file:///shared/snapshot"
        )
        raise StateFormatError(msg)
    reader.whole()  # a spoiled file is said here, not by the worker
    return Bootstrap(STATE_FOLDER, Path(place), manifest.offsets)


def first_batches(flink: StreamExecutionEnvironment, topic: str, lane_keys: list[int]) -> DataStream:
    """Return one batch without records for each lane, so that each begins at once, whether or not records come."""
    rows = [Row(key, Row(topic, [], [], [], [], [])) for key in lane_keys]
    return flink.from_collection(rows, BATCH_TYPE).uid("bootstrap").name("bootstrap")
