"""What every service declares; it runs nothing by itself, `lifecycle.py` does."""

from typing import Protocol

from scripts.services.processes import Command


class Service(Protocol):
    """One service of a home: what it needs, what is to be run, and when it is ready."""

    @property
    def name(self) -> str:
        """One of `ALL`."""

    @property
    def ready_timeout_s(self) -> float:
        """How long a start may take."""

    @property
    def grace_s(self) -> float:
        """How long an orderly stop may take."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Ports that must be free before the start."""

    def check(self) -> None:
        """Raise ServiceError when something is not installed."""

    def prepare(self) -> None:
        """Write settings and make folders."""

    def commands(self) -> tuple[Command, ...]:
        """Return the programs to run."""

    def waiting_for(self) -> str | None:
        """Return what is still missing, or None when it is ready."""
