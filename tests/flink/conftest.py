"""One MiniCluster, one Kafka broker and one Redis server for the ring; each test has topics of its own."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.services import services as local
from scripts.services.endpoints import Endpoints
from scripts.services.home import REPOSITORY
from tests.flink.cluster import Cluster
from tests.flink.names import fresh_prefix

HOME = REPOSITORY / "build" / "test-flink"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning")  # PyFlink and what it imports raise dozens


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """End the jobs of a test that failed: the next ones need their slots."""
    report = yield
    if report.failed and "cluster" in item.funcargs:
        cluster: Any = item.funcargs["cluster"]
        cluster.cancel_all()
    return report


@pytest.fixture(scope="session")
def services() -> Iterator[Endpoints]:
    """Kafka and Redis only, empty at the start of the run and gone after it."""
    borrowed = os.environ.get("HEADRACE_TEST_HOME")
    if borrowed:
        yield local.up(Path(borrowed), ("kafka", "redis"))
        return
    local.down(HOME)
    shutil.rmtree(HOME, ignore_errors=True)
    try:
        yield local.up(HOME, ("kafka", "redis"))
    finally:
        local.down(HOME)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return the MiniCluster that all jobs run on."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    yield running
    running.close()


@pytest.fixture
def prefix() -> str:
    """Return what one test puts before its topic names and store keys."""
    return fresh_prefix("test")
