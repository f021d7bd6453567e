"""The arrays that the kernels share, as named tuples.

A kernel that counts references unpacks them once, before its loop: an attribute costs a count each time.
"""

from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
A = TypeVar("A", bound=NDArray[Any])

#: flags of a row in a store's sequence: it enters the cells, its features are read
UPDATES, READS = 1, 2


class Pool(NamedTuple):
    """The cells of one track: per key a list of tiles, newest first, kept in one pool of rows."""

    #: int64[slots], newest cell of a key, -1 for none
    head: I64
    #: int64[cells], next older cell of the same key, -1 at the end
    older: I64
    #: int64[cells], slot of its key, -1 while unused
    owner: I64
    #: int64[cells], tile number
    tile: I64
    #: float64[cells, width], partial aggregates side by side
    irs: F64
    #: int64[cells], a stack of unused rows
    free: I64
    #: int64[1], height of the stack
    free_count: I64


class Events(NamedTuple):
    """A sequence of rows as admission left them."""

    #: int64[n], slot of the key
    slots: I64
    #: int64[n], event times
    times_ms: I64
    #: float64[n, columns], what is aggregated; NaN for null
    values: F64
    #: int8[n], UPDATES, READS or both
    flags: NDArray[np.int8]
    #: int8[n], see `kernels.admit`
    status: NDArray[np.int8]
    #: bool[n], the key's earlier cells must be dropped before this row
    reborn: NDArray[np.bool_]


class Plan(NamedTuple):
    """The windows, IRs and features of one track; see `tracks.Track`."""

    #: int64[4, w], per window: includes_event, skip, oldest, size_ms
    windows: I64
    #: int64[k], the kind of each IR
    opcodes: I64
    #: int64[2, k], columns that update it: position in a row of values, -1 for none
    inputs: I64
    #: int64[k + 1], where each IR lies in a cell
    offsets: I64
    #: float64[p] and int64[k + 1], parameters of the IRs, and where those of each lie
    params: F64
    param_offsets: I64
    #: int64[5, f], per feature, ordered by window: window, IR, opcode of its aggregation, output, part
    writes: I64


def read_only(array: A) -> A:
    """Return the array as one that nobody writes to: a kernel that meets both kinds is compiled twice."""
    view = array.view()
    view.flags.writeable = False
    return view
