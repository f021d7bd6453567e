"""The flights pipeline as a test runs it: its derive function raises for one carrier, as code of a user may."""

import datetime as dt
import shutil
import time
from pathlib import Path

from flink_jobs.config import DEFAULT_ENVIRONMENT
from scripts.flights import events
from scripts.flights.poison import Ledger, poisoned
from scripts.flights.stream import Events
from udfs.core.declare.declarations import TimePolicy

FLIGHTS = DEFAULT_ENVIRONMENT.parent / "flights"
RAISING = "F9"
DAYS = (dt.date(2013, 11, 5), dt.date(2013, 11, 6))
PATIENT = TimePolicy.model_validate({"allowed_lateness": "12h", "future_tolerance": "1d"})
"""For several partitions: hours pass in a second, so what one partition lags behind another is hours, too."""
_RAISES = f'''

def departure_columns_without_frontier(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    if "{RAISING}" in batch["carrier"].to_pylist():
        msg = "no idea of {RAISING}"
        raise LookupError(msg)
    return departure_columns(batch)
'''


def flights_folder(folder: Path) -> Path:
    """Copy the pipeline's folder to `folder`, with a derive function that raises for carrier `RAISING`."""
    shutil.copytree(FLIGHTS, folder)
    transforms, declared = folder / "transforms.py", folder / "pipeline.yaml"
    transforms.write_text(transforms.read_text() + _RAISES)
    text, function = declared.read_text(), "transforms.py:departure_columns"
    assert text.count(f"{function}\n") == 1
    declared.write_text(text.replace(f"{function}\n", f"{function}_without_frontier\n"))
    return folder


def departures(prefix: str, *, each: int = 2, late: int = 20, seed: int = 1) -> tuple[Events, Ledger]:
    """Return two days of departures with every kind of poison, and the ledger of the poison."""
    real = events.departures(*DAYS)
    spoiled, ledger = poisoned(real, seed, now_ms=int(time.time() * 1000), each=each, late=late)
    return spoiled.prefixed(prefix), ledger


def weather(prefix: str) -> Events:
    """Return the weather of the same days."""
    return events.weather(*DAYS).prefixed(prefix)
