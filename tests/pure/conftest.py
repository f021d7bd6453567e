"""The whole ring is to take seconds: few hypothesis examples, in CI always the same; and little work around a test."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadline: the first call of a kernel may compile for seconds.
settings.register_profile("local", max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time out by an alarm: a thread for each test costs more than most of these tests, and only a JVM needs it."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(method="signal"))


def pytest_collection_finish() -> None:
    """Keep the collector off the many objects of the loaded libraries."""
    gc.freeze()
