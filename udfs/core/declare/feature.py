"""A feature: what one column of the output is computed from, and the partial aggregate that it takes."""

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from udfs.core.aggregations import IRS, Aggregation, Params
from udfs.core.declare.conditions import Condition
from udfs.core.declare.feature_groups import Take
from udfs.core.declare.windows import Window
from udfs.core.sketches import TEXT_KINDS, Sketch

#: type of a feature -> Arrow type
ARROW = {
    "float64": pa.float64(),
    "string": pa.string(),
    "list<string>": pa.list_(pa.string()),
    "list<float64>": pa.list_(pa.float64()),
    "map<string, float64>": pa.map_(pa.string(), pa.float64()),
}


class Input(NamedTuple):
    """Numbers that an IR is updated with, per row; null rows are passed over."""

    #: column; None: 1.0 for every event
    of: str | None
    #: rows that count; None: all
    where: Condition | None = None
    #: if given, 1.0 for the rows that meet it and 0.0 for the others, in place of a column
    flag: Condition | None = None

    def __str__(self) -> str:
        what = f"[{self.flag}]" if self.flag else self.of or ""
        return f"{what} where {self.where}" if self.where else what


class Ir(NamedTuple):
    """One partial aggregate of a cell."""

    kind: str
    input: Input
    #: second column, of argmax and argmin
    other: str | None
    params: Params
    #: column whose values have an aggregate each, and the aggregate's name
    by: str | None = None
    of_each: str | None = None

    @property
    def width(self) -> int:
        """float64 values it takes."""
        return IRS[self.kind].width(self.params)

    def __str__(self) -> str:
        params = "".join(f":{one:g}" for one in self.params)
        other = f", {self.other}" if self.other else ""
        by = f" by {self.by}: {self.of_each}" if self.by else ""
        return f"{self.kind}{params}({self.input}{other}{by})"


@dataclass(frozen=True, slots=True)
class Feature:
    """One windowed feature: a column of the output."""

    name: str
    entity: str
    #: enrichment whose rows it looks at; None: the scored events
    stream: str | None
    take: Take
    input: Input
    window: Window
    #: width of its tiles; 0 where the window has none
    slide_ms: int
    #: False: without the event itself
    includes_event: bool
    #: which output of its aggregation, and of how many
    part: int
    parts: int
    #: column whose values have an aggregate each
    by: str | None = None
    #: True: the aggregated column is text
    is_text: bool = False

    @property
    def of(self) -> str | None:
        """The aggregated column; None counts events."""
        return self.input.of

    @property
    def aggregation(self) -> str:
        """Name of its aggregation."""
        return self.take.name

    @property
    def size_ms(self) -> int:
        """Length of its window, see `Window.size_ms`."""
        return self.window.size_ms

    @property
    def is_flat(self) -> bool:
        """True: kept in arrays, computed by the kernels."""
        is_array = isinstance(self.take.aggregation, Aggregation)
        return is_array and self.by is None and not (self.is_text and self.take.name in TEXT_KINDS)

    @property
    def gives(self) -> str:
        """Type of its values: float64, string, list<string>, list<float64> or map<string, float64>."""
        if self.by is not None:
            return "map<string, float64>"
        aggregation = self.take.aggregation
        if isinstance(aggregation, Aggregation):
            return "float64" if self.is_flat else "string"
        if aggregation.gives == "list":
            return "list<string>" if self.is_text else "list<float64>"
        return aggregation.gives

    @property
    def ir(self) -> Ir:
        """The partial aggregate it is written from."""
        aggregation, take = self.take.aggregation, self.take
        if isinstance(aggregation, Sketch):
            return Ir(aggregation.kind, self.input, None, take.params)
        if self.by is not None:
            return Ir("buckets.Buckets", self.input, None, take.params, self.by, take.name)
        kind = aggregation.ir if self.is_flat else TEXT_KINDS[take.name]
        return Ir(kind, self.input, take.other, take.params)

    @property
    def index(self) -> int:
        """Position of its value in what its partial aggregate gives."""
        return int(self.take.params[0]) - 1 if self.is_text and self.take.name == "lag" else self.part
