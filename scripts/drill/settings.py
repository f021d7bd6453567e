"""What a drill does, and what it is held to."""

from dataclasses import dataclass
from pathlib import Path

from udfs.core.errors import HeadraceError

FOLDER = Path(__file__).parents[2] / "build" / "drill"
GAP_SLACK_MS = 8_000
"""The longest gap may exceed the checkpoint interval by this."""
FIRST_MAX_MS = 30_000
"""From a promotion to the first prediction of its version."""


class DrillError(HeadraceError):
    """The drill cannot be held, or something did not come in time."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a drill does."""

    #: payments per second, in an open loop
    rate: float = 10_000.0
    promotions: int = 5
    #: that are undone by the controller, as their new job is ended from outside
    rollbacks: int = 1
    #: bad models are promoted, too
    bad_models: bool = True
    checkpoint_interval_ms: int = 5_000
    #: seconds of even running before the first promotion and after each redeploy
    calm_s: float = 5.0
    folder: Path = FOLDER
    #: the services are left up, to be looked at
    keep_services: bool = False
