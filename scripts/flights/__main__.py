"""`python -m scripts.flights` is `headrace flights`."""

import sys

from flink_jobs.cli import app

app(["flights", *sys.argv[1:]])
