"""`python -m scripts.services` is `headrace services`, for `make services-up` and `make services-down`."""

import sys

from flink_jobs.cli import app

app(["services", *sys.argv[1:]])
