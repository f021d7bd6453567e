"""`python -m scripts.demo` is `headrace demo`."""

import sys

from flink_jobs.cli import app

app(["demo", *sys.argv[1:]])
