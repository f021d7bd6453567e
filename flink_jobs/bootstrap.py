"""Starting a job from a state snapshot: what is checked first, how the state travels, and where its sources begin."""

from collections.abc import Mapping
from dataclasses import dataclass

from udfs.core.errors import StateFormatError
from udfs.core.state.header import StateHeader
from udfs.core.state.migration import refuse_unfit
from udfs.core.state.snapshot import SnapshotReader

SHIPPED_BYTES_MAX = 256 * 1024 * 1024
"""A larger snapshot is read by the workers, not sent to them with the job."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The state snapshot that a job starts from."""

    place: str
    #: True: it travels with the job; False: workers read the place
    is_shipped: bool
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
    manifest, source = reader.manifest, header.pipeline["source"]["topic"]
    if manifest.header != header:
        refuse_unfit(manifest.header, header)
    if manifest.offsets and source not in manifest.offsets:
        topics = ", ".join(manifest.offsets)
        msg = (
            f"{place}: is of the topics {topics}; the job reads {source} and would not know where to begin; "
            "is it of another environment?"
        )
        raise StateFormatError(msg)
    if "://" in place:
        return Bootstrap(place, is_shipped=False, offsets=manifest.offsets)
    if manifest.size_bytes > SHIPPED_BYTES_MAX:
        msg = (
            f"{place}: {manifest.size_bytes:,} bytes of state are too many to travel with the job; copy the folder to "
            "where every worker can read it, and name it by a URI: s3://bucket/snapshot, file:///shared/snapshot"
        )
        raise StateFormatError(msg)
    reader.check()
    return Bootstrap(place, is_shipped=True, offsets=manifest.offsets)
