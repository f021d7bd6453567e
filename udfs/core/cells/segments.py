"""Segments: the durable form of cells, as versioned, self-describing bytes (MessagePack maps of little-endian arrays).

A segment holds the values that some keys and cells of one time bucket had after one batch. A later segment overrides an
earlier one; cells written before their key was born again do not count.
"""

from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from udfs.core.errors import StateFormatError

VERSION = 2


class TrackSegment(msgspec.Struct, frozen=True):
    """Cells of one track."""

    #: layout signature; see `cells.Layout`
    layout: str
    #: int64[n] little-endian, tile numbers
    tiles: bytes
    #: int32[n], position of the owner in the segment's keys
    owners: bytes
    #: float64[n, width]
    irs: bytes
    #: of a track of sketches: the bytes of each cell's
    sketches: list[list[bytes]] = []


class Segment(msgspec.Struct, frozen=True):
    """What one batch changed in one time bucket of one store."""

    #: which of the lane's stores: 0 the windows, 1.. the enrichments
    store: int
    #: time bucket, in units of `bucket_ms`
    bucket: int
    #: width of the buckets, which follows from the windows and the allowed lateness
    bucket_ms: int
    #: sequence number after the batch
    next_seq: int
    #: lane clock after the batch, epoch ms
    clock_ms: int
    keys: list[str]
    #: int64[keys], newest event time per key
    newest_ms: bytes
    #: int64[keys], sequence number at which the key's life began
    born_seq: bytes
    tracks: list[TrackSegment]
    version: int = VERSION

    def encode(self) -> bytes:
        """Return the bytes that are stored."""
        return _ENCODER.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read stored bytes.

        Raises
        ------
        StateFormatError : the bytes are of another version or are no segment at all.
        """
        try:
            version = _VERSION_DECODER.decode(data).version
            if version == VERSION:
                return msgspec.msgpack.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f"stored state of {len(data)} bytes is no segment: {error}; was it written by another program?"
            raise StateFormatError(msg) from error
        msg = f"stored state has version {version}; this code reads {VERSION}; restore with the code that wrote it"
        raise StateFormatError(msg)


class _Version(msgspec.Struct):
    version: int


_ENCODER = msgspec.msgpack.Encoder()
_VERSION_DECODER = msgspec.msgpack.Decoder(_Version)


def pack(array: NDArray[np.generic], dtype: str) -> bytes:
    """Return the little-endian bytes of an array, such as dtype `<i8`."""
    return np.ascontiguousarray(array, dtype).tobytes()


def unpack(data: bytes, dtype: str, width: int | None = None) -> NDArray[np.generic]:
    """Return the array of `pack`, two-dimensional if a width is given."""
    array = np.frombuffer(data, dtype)
    return array if width is None else array.reshape(-1, width)
