"""What a caller may catch: one exception, whose text says what failed, what was found and what to do."""


class ServiceError(Exception):
    """A local service cannot be started, stopped or reached."""
