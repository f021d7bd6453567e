"""What every ring shares: markers from the folder name, and one set of real services per run.

`HEADRACE_TEST_HOME=build/local` uses services that are up already, and leaves them up.
"""

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from scripts.services.endpoints import Endpoints

TESTS = Path(__file__).parent
RINGS = ("pure", "laws", "flink", "e2e")

# A shell that starts this in the background has it ignore Ctrl-C, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Few examples, in CI always the same. No deadline: the first call of a kernel may compile for seconds.
settings.register_profile("local", max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(TESTS):
            ring = item.path.relative_to(TESTS).parts[0]
            if ring in RINGS:
                item.add_marker(ring)
            if ring in {"pure", "laws"}:
                # An alarm: a thread for each test costs more than most of these tests, and only a JVM needs it.
                item.add_marker(pytest.mark.timeout(method="signal"))


def pytest_collection_finish() -> None:
    """Keep the collector off the many objects of the loaded libraries."""
    gc.freeze()


@pytest.fixture(scope="session")
def services() -> Iterator["Endpoints"]:
    """Kafka, Redis, MLflow and Flink, empty at the start of the run and gone after it."""
    from rich.console import Console

    from scripts.services import services as local
    from scripts.services.home import REPOSITORY

    borrowed = os.environ.get("HEADRACE_TEST_HOME")
    if borrowed:
        yield local.up(Path(borrowed))
        return
    home = REPOSITORY / "build" / "test-services"
    local.down(home)
    shutil.rmtree(home, ignore_errors=True)
    try:
        yield local.up(home, console=Console(stderr=True))
    finally:
        local.down(home)
