"""Derived columns of the flights pipeline: Arrow columns in, Arrow columns out, row by row."""

import pyarrow as pa
import pyarrow.compute as pc

DAY_MS = 86_400_000
NEW_YORK_STANDARD_MS = -5 * 3_600_000  # weekday by standard time: good enough for a feature, needs no time zone data
UNIX_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0


def departure_columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Hour and weekday of the schedule, a flag for 15 minutes of delay, and the age of the aircraft in 2013.

    Parameters
    ----------
    batch : one row per departure, with the contract's fields and the lookups' columns.

    Returns
    -------
    dep_hour int64 (0-23), dep_weekday int64 (0 Monday), is_delayed_15 float64 (0 or 1), plane_age_years float64 (null
    when the aircraft or its year is unknown).
    """
    local_day = pc.floor(pc.divide(pc.cast(pc.add(batch["scheduled_at_ms"], NEW_YORK_STANDARD_MS), "float64"), DAY_MS))
    weekday = pc.add(pc.cast(local_day, "int64"), UNIX_EPOCH_WEEKDAY)
    weeks = pc.multiply(pc.cast(pc.floor(pc.divide(pc.cast(weekday, "float64"), 7.0)), "int64"), 7)
    return {
        "dep_hour": pc.divide(batch["sched_dep_hhmm"], 100),
        "dep_weekday": pc.subtract(weekday, weeks),
        "is_delayed_15": pc.cast(pc.greater(batch["dep_delay_min"], 15.0), "float64"),
        "plane_age_years": pc.subtract(2013.0, pc.cast(batch["plane_year"], "float64")),
    }
