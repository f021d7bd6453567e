"""Derived columns of the payments pipeline: Arrow columns in, Arrow columns out, row by row."""

import pyarrow as pa
import pyarrow.compute as pc

DAY_MS, HOUR_MS = 86_400_000, 3_600_000


def payment_columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Logarithm of the amount, and hour of the day, UTC.

    Parameters
    ----------
    batch : one row per payment, with the contract's fields
    """
    day_start_ms = pc.multiply(pc.divide(batch["paid_at_ms"], DAY_MS), DAY_MS)
    return {
        "log_amount": pc.ln(batch["amount"]),
        "hour": pc.divide(pc.subtract(batch["paid_at_ms"], day_start_ms), HOUR_MS),
    }
