"""The catalog: every aggregation that `take` may name, by name."""

from udfs.core.aggregations import AGGREGATIONS, Aggregation
from udfs.core.sketches import SKETCHES, Sketch

CATALOG: dict[str, Aggregation | Sketch] = {**AGGREGATIONS, **SKETCHES}

__all__ = ["CATALOG", "Aggregation", "Sketch"]
