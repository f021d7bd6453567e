"""Hypothesis profiles: few examples, since the whole ring is to take seconds; in CI always the same ones."""

import os

from hypothesis import HealthCheck, settings

# No deadline: the first call of a kernel may compile for seconds.
settings.register_profile("local", max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
