"""What the demo is asked to show: days, pace and size of the model.

Days are scheduled local days of New York; both ends are included.
"""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

from models.training import Parameters
from scripts.flights.dataset import FIRST_DAY, LAST_DAY
from scripts.services.home import REPOSITORY
from udfs.core.errors import HeadraceError

FOLDER = REPOSITORY / "build" / "demo"
PIPELINE = REPOSITORY / "conf" / "flights"
ENVIRONMENT = REPOSITORY / "conf" / "local.yaml"


class DemoError(HeadraceError):
    """The demo cannot go on."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One run of the demo."""

    #: the model learns from here until the day before `start`; what comes from `train_until` on is its test
    history_start: dt.date = FIRST_DAY
    train_until: dt.date = dt.date(2013, 9, 1)
    #: days that go through the job; before `paced_from` as a backlog, for throughput, then evenly, for latency
    start: dt.date = dt.date(2013, 11, 1)
    paced_from: dt.date = dt.date(2013, 12, 1)
    end: dt.date = LAST_DAY
    rate_eps: float = 600.0
    #: bad records of each kind, and late ones, put among the departures
    poison_each: int = 6
    poison_late: int = 60
    seed: int = 2013
    parameters: Parameters = field(default_factory=Parameters)
    retrain: bool = False
    #: longest wait without anything new
    stall_timeout_s: float = 90.0
    #: where history and report go
    folder: Path = FOLDER
    #: at the end, cancel the job and stop the services that were started here
    stop_services: bool = False

    def check(self) -> None:
        """Refuse days out of order.

        Raises
        ------
        DemoError : they are.
        """
        days = [self.history_start, self.train_until, self.start, self.paced_from]
        inside = days[0] >= FIRST_DAY and self.paced_from <= self.end <= LAST_DAY
        if not inside or days != sorted(set(days)):
            msg = (
                f"got history from {days[0]}, training until {days[1]}, events from {days[2]}, paced from {days[3]}, "
                f"to {self.end}; these days must follow one another within {FIRST_DAY} to {LAST_DAY}"
            )
            raise DemoError(msg)
