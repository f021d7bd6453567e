"""`python -m scripts.services`: the same commands as `make services-up` and `make services-down`."""

from scripts.services.cli import app

app()
