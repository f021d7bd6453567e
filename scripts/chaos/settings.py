"""What a fault run is asked for."""

from dataclasses import dataclass

from scripts.services.home import REPOSITORY
from udfs.core.errors import HeadraceError

FOLDER = REPOSITORY / "build" / "chaos"


class ChaosError(HeadraceError):
    """A fault test cannot be run, or the harness itself went wrong; what a test finds is no error but a result."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the tests are run; the same settings send the same bytes and draw the same moments."""

    seed: int
    #: events of a run
    events: int
    #: events per second, in an open loop
    rate: float
    #: kills of a run that kills; fewer in the quick set
    kills: int
