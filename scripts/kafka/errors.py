"""What goes wrong when topics are made or read."""

from udfs.core.errors import HeadraceError


class TopicError(HeadraceError):
    """A topic is missing, or the broker refuses to change it."""


class ReadTimeoutError(HeadraceError, TimeoutError):
    """A topic did not bring in time what was waited for."""
