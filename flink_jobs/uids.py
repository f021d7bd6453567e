"""Uids of the operators that SQL makes, so that a savepoint finds their state in the next job.

Flink numbers these operators through the whole client: one more enrichment, or another job planned before, moves every
number, and a restore is refused. Here they are numbered from the end of the piece of SQL that they belong to.
"""

from typing import Any


def name_operators(last: Any, prefix: str) -> None:
    """Give `prefix-0`, `prefix-1`, … to a Java transformation and all before it, up to those that have a uid."""
    waiting = [last]
    number = 0
    while waiting:
        transformation = waiting.pop(0)
        if transformation.getUid() is None:
            transformation.setUid(f"{prefix}-{number}")
            number += 1
            waiting.extend(transformation.getInputs())
