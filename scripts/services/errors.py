"""What a caller may catch: one exception, whose text says what failed, what was found and what to do."""

from udfs.core.errors import HeadraceError


class ServiceError(HeadraceError):
    """A local service cannot be started, stopped or reached."""
