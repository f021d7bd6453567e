"""Memory of the worker: what it takes, and an error once that is too much, so that Flink starts a fresh worker."""

import os
from pathlib import Path

from udfs.core.errors import HeadraceError

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")


class MemoryLimitError(HeadraceError):
    """The worker takes more memory than it may; the job fails and goes on from its checkpoint, with a fresh worker."""


class MemoryLimit:
    """Holds this process to a resident set size (RSS).

    Parameters
    ----------
    limit_mb : what it may take, in units of 2**20 bytes; None: as much as it likes
    """

    def __init__(self, limit_mb: int | None) -> None:
        self._limit_mb = limit_mb

    @property
    def rss_mb(self) -> int:
        """What this process takes now."""
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES // 2**20

    def check(self, when: str) -> None:
        """Raise if the process takes too much.

        Raises
        ------
        MemoryLimitError : it does; says how much, and when that was found.
        """
        if self._limit_mb is not None and self.rss_mb > self._limit_mb:
            msg = (
                f"this Python worker takes {self.rss_mb} MB {when}; model.serving.max_rss_mb allows {self._limit_mb};"
                " the job goes on with a fresh worker; if this comes at once again, allow more"
            )
            raise MemoryLimitError(msg)
