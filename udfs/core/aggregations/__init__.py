"""The aggregations: one file per intermediate representation (IR), and the tables that name them.

An IR is a float64 array of fixed width with `init(ir, params, at)`, `update(ir, value, other, time_ms, params, at)` and
`merge(ir, older, params, at)`, its parameters at `params[at]` and behind; the functions named in `AGGREGATIONS` give a
feature from it, NaN for null. Null inputs are never passed to `update`. Several aggregations of one column share an IR,
so that it is kept and folded once.
To add one: a file like `sums.py`, its line in `IRS`, a line in `AGGREGATIONS` for each feature it gives, a row in
`tests/laws/test_aggregations.py`; the kernels, the contract tests and the docs find it by themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Params = tuple[float, ...]
#: what follows the name in YAML
Argument = Literal["none", "count", "share", "duration", "bounds", "column", "condition"]
MAX_N = 100


@dataclass(frozen=True, slots=True)
class IrKind:
    """One intermediate representation."""

    #: number the kernels dispatch on
    opcode: int
    #: parameters -> float64 values
    width: Callable[[Params], int]


IRS: dict[str, IrKind] = {
    "count": IrKind(0, lambda _: 1),
    "sums": IrKind(1, lambda _: 2),
    "min": IrKind(2, lambda _: 1),
    "max": IrKind(3, lambda _: 1),
    "spread": IrKind(4, lambda _: 3),
    "shape": IrKind(5, lambda _: 5),
    "first": IrKind(6, lambda params: 2 * int(params[0])),
    "last": IrKind(7, lambda params: 2 * int(params[0])),
    "decayed": IrKind(8, lambda _: 3),
    "argmax": IrKind(9, lambda _: 3),
    "argmin": IrKind(10, lambda _: 3),
    "histogram": IrKind(11, lambda params: len(params) + 1),
    "rate": IrKind(12, lambda _: 2),
}


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What the planner and the docs need to know of an aggregation."""

    #: number the kernels dispatch on for it
    opcode: int
    ir: str
    #: function of the IR's module that gives it
    finalize: str
    #: what it computes over the non-null values of the window, and its value when there are none
    meaning: str
    error: str = "exact"
    #: value over an empty window; None is null
    empty: float | None = None
    #: False: counts events, can do without an input column
    needs_value: bool = True
    argument: Argument = "none"
    #: parameters of the IR when no argument is given
    default: Params = field(default=())
    #: True: looks at what came before the event, whatever the group says
    before_event: bool = False


ROUNDED = "float64 rounding"
AGGREGATIONS: dict[str, Aggregation] = {
    "count": Aggregation(
        0, "count", "count", "number of values (events, without `of`); 0 when none", empty=0.0, needs_value=False
    ),
    "sum": Aggregation(1, "sums", "total", "sum; null when none", ROUNDED),
    "mean": Aggregation(2, "sums", "mean", "sum / count; null when none", ROUNDED),
    "min": Aggregation(3, "min", "smallest", "smallest; null when none"),
    "max": Aggregation(4, "max", "largest", "largest; null when none"),
    "variance": Aggregation(5, "spread", "variance", "sample variance (n - 1); null below two values", ROUNDED),
    "std": Aggregation(6, "spread", "std", "sample standard deviation (n - 1); null below two values", ROUNDED),
    "skew": Aggregation(7, "shape", "skew", "adjusted skewness G1; null below three values or without spread", ROUNDED),
    "kurtosis": Aggregation(
        8, "shape", "kurtosis", "adjusted excess kurtosis G2; null below four values or without spread", ROUNDED
    ),
    "first": Aggregation(9, "first", "first_n", "oldest by event time; null when none", default=(1.0,)),
    "first_n": Aggregation(10, "first", "first_n", "the n oldest, a column each; null where fewer", argument="count"),
    "last": Aggregation(11, "last", "last_n", "newest by event time; null when none", default=(1.0,)),
    "last_n": Aggregation(12, "last", "last_n", "the n newest, a column each; null where fewer", argument="count"),
    "lag": Aggregation(
        13, "last", "lag", "n-th last value before the event; null where fewer", argument="count", before_event=True
    ),
    "delta": Aggregation(
        14, "last", "delta", "own value minus the n-th last one before; null where either is missing",
        argument="count", before_event=True,
    ),
    "time_since_first": Aggregation(
        15, "first", "time_since_first", "ms since the oldest value; null when none", needs_value=False, default=(1.0,)
    ),
    "time_since_last": Aggregation(
        16, "last", "time_since_last", "ms since the newest value before the event; null when none",
        needs_value=False, default=(1.0,), before_event=True,
    ),
    "decayed_count": Aggregation(
        17, "decayed", "decayed_count", "sum of 2^(-age / half-life); 0 when none", ROUNDED,
        empty=0.0, needs_value=False, argument="duration",
    ),
    "decayed_sum": Aggregation(
        18, "decayed", "decayed_sum", "sum of value x 2^(-age / half-life); null when none", ROUNDED,
        argument="duration",
    ),
    "decayed_mean": Aggregation(
        19, "decayed", "decayed_mean", "decayed sum / decayed count; null when none", ROUNDED, argument="duration"
    ),
    "argmax": Aggregation(
        20, "argmax", "value_there", "value where another column is largest, the latest of several; null when none",
        argument="column",
    ),
    "argmin": Aggregation(
        21, "argmin", "value_there", "value where another column is smallest, the latest of several; null when none",
        argument="column",
    ),
    "histogram": Aggregation(
        22, "histogram", "bins", "counts below, between and from the bounds, a column each; 0 when none",
        empty=0.0, argument="bounds",
    ),
    "ratio": Aggregation(
        24, "sums", "mean", "share of events that meet a condition; null when none", ROUNDED,
        needs_value=False, argument="condition",
    ),
    "rate": Aggregation(
        23, "rate", "rate", "values per given time; 0 when none, null without a size before time has passed",
        ROUNDED, empty=0.0, needs_value=False, argument="duration",
    ),
}  # fmt: skip
