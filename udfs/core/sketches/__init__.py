"""Sketches: aggregations whose state is no array of fixed width; they take any type, and cost microseconds an event.

Each class of this folder has `update(value, time_ms)`, `merge(older)`, `value(now_ms, size_ms, index)`, `to_bytes()`,
`from_bytes(data, *arguments)`, and `memory_bytes`, what it takes in memory, as measured over thousands. Everything in
them is deterministic, so that a restart or another cut gives the same bits: that is why quantiles come from t-digest,
and not from KLL, whose compaction draws random bits.
"""

from dataclasses import dataclass, field

from udfs.core.aggregations import Argument, Params

OBJECT_BYTES = 250
"""Of an empty one in memory, with its place in its cell."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What the planner and the docs need to know of a sketch."""

    #: module and class that hold its state: `distinct.Distinct`
    kind: str
    #: type of the feature: float64, string, list<string> or list<float64>; `value` is the type of the input
    gives: str
    meaning: str
    error: str = "exact"
    #: typical bytes per tile, and at most
    size_bytes: str = ""
    empty: float | None = None
    needs_value: bool = True
    argument: Argument = "none"
    default: Params = field(default=())
    before_event: bool = False


#: what text is taken by in place of the array: aggregation -> class
TEXT_KINDS = dict.fromkeys(("first", "first_n"), "ends.First") | dict.fromkeys(("last", "last_n", "lag"), "ends.Last")
SKETCHES: dict[str, Sketch] = {
    "distinct": Sketch(
        "distinct.Distinct", "float64", "number of different values; 0 when none",
        "exact up to 256 values per window, beyond it HLL: 1.6 % standard error", "9 B a value, at most 4.2 kB",
        empty=0.0,
    ),
    "unique": Sketch(
        "unique.Unique", "list", "the n smallest of the different values, ascending; empty when none",
        size_bytes="its values", argument="count",
    ),
    "quantile": Sketch(
        "quantile.Quantile", "float64", "quantile; null when none",
        "exact up to 64 values, beyond it t-digest: 2 % of rank in the middle, 0.1 % at the ends",
        "8 B a value, at most 5 kB",
        argument="share",
    ),
    "top_k": Sketch(
        "frequent.Frequent", "list<string>", "the n most frequent values, most frequent first; empty when none",
        "exact up to 192 values, beyond it counts are up to events / 97 too low", "its values, at most 192",
        argument="count",
    ),
}  # fmt: skip
