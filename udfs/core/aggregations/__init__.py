"""The aggregations, one per file, and the one table that names them.

An aggregation is four functions on an intermediate representation (IR), a float64 array of fixed width:
`init(ir)` makes it empty, `update(ir, value)` adds one value, `merge(ir, other)` adds another IR that is *older*,
`finalize(ir)` gives the feature, NaN for null. Null inputs are never passed to `update`.
To add one: a file like `mean.py`, a line in `AGGREGATIONS`, its name in `feature_groups.AggregationName`, a branch in each
function of `kernels/dispatch.py`, rows in `tests/pure/test_aggregations.py`; the contract tests find it by themselves.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What the planner and the docs need to know of an aggregation."""

    #: number the kernels dispatch on; never reused, since stored state is laid out by it
    opcode: int
    #: float64 values in the IR
    ir_width: int
    #: False: counts events, needs no input column
    needs_value: bool
    #: what it computes over the non-null values of the window, and its value when there are none
    meaning: str


AGGREGATIONS: dict[str, Aggregation] = {
    "count": Aggregation(
        0, 1, needs_value=False, meaning="number of values (events, without `of`); 0 when none; exact"
    ),
    "sum": Aggregation(1, 2, needs_value=True, meaning="sum; null when none; float64 rounding"),
    "mean": Aggregation(2, 2, needs_value=True, meaning="sum / count; null when none; float64 rounding"),
    "min": Aggregation(3, 1, needs_value=True, meaning="smallest; null when none; exact"),
    "max": Aggregation(4, 1, needs_value=True, meaning="largest; null when none; exact"),
    "std": Aggregation(5, 3, needs_value=True, meaning="sample standard deviation (n - 1); null below two values"),
}
