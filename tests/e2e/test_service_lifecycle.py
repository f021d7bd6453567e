"""What a service that fails to start leaves behind: a sentence with its last log lines."""

from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from scripts.services import lifecycle
from scripts.services.errors import ServiceError
from scripts.services.home import Home
from scripts.services.processes import Command, running_pid


@dataclass(frozen=True, slots=True)
class Fake:
    """A shell script that counts as ready once the file `ready` exists."""

    folder: Path
    script: str
    name: str = "fake"
    ready_timeout_s: float = 0.5
    grace_s: float = 5.0
    ports: tuple[int, ...] = ()

    def check(self) -> None:
        """Everything is installed."""

    def prepare(self) -> None:
        """Count the starts."""
        with (self.folder / "starts").open("a") as starts:
            starts.write("x")

    def commands(self) -> tuple[Command, ...]:
        return (Command(self.name, ("sh", "-c", self.script)),)

    def waiting_for(self) -> str | None:
        return None if (self.folder / "ready").exists() else "the file"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    place = Home(tmp_path)
    place.create()
    return place


def test_a_service_that_ends_shows_its_last_words(home: Home) -> None:
    service = Fake(home.root, "echo cannot open the till; exit 3", ready_timeout_s=30)
    with pytest.raises(
        ServiceError, match=r"(?s)fake: fake ended while it started; .*fake\.log:\n    cannot open the till"
    ):
        lifecycle.start(home, service, lambda _name, _text: None, Event())


def test_a_service_that_stays_silent_times_out(home: Home) -> None:
    service = Fake(home.root, "echo thinking; exec sleep 60")
    with pytest.raises(ServiceError, match=r"(?s)not ready after 0.5 s, still waiting for the file; .*\n    thinking"):
        lifecycle.start(home, service, lambda _name, _text: None, Event())
    lifecycle.stop(home, service, lambda _name, _text: None)


def test_a_running_service_is_left_alone_and_a_dead_one_is_started_anew(home: Home) -> None:
    heard: list[tuple[str, str]] = []
    service = Fake(home.root, "touch ../ready; exec sleep 60", ready_timeout_s=10)

    def report(name: str, text: str) -> None:
        heard.append((name, text))

    lifecycle.start(home, service, report, Event())
    first = running_pid(home.pid_file("fake"))
    lifecycle.start(home, service, report, Event())
    assert running_pid(home.pid_file("fake")) == first
    lifecycle.stop(home, service, report)
    assert running_pid(home.pid_file("fake")) is None
    lifecycle.start(home, service, report, Event())
    lifecycle.stop(home, service, report)
    assert (home.root / "starts").read_text() == "xx"
    assert heard[0] == ("fake", "preparing")
    assert heard[-1] == ("fake", "down")
