"""Feature groups: the windowed features that a pipeline declares."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from udfs.core.aggregations import AGGREGATIONS
from udfs.core.contract import Declared
from udfs.core.durations import DurationMs, format_duration

AggregationName = Literal["count", "sum", "mean", "min", "max", "std"]
MAX_TILES = 20_000


def feature_name(entity: str, of: str | None, aggregation: str, size_ms: int) -> str:
    """Name of a windowed feature's column.

    Examples
    --------
    >>> feature_name("origin", "dep_delay_min", "mean", 3_600_000)
    'origin_dep_delay_min_mean_1h'
    """
    return "_".join([entity, *([of] if of else []), aggregation, format_duration(size_ms)])


class FeatureGroup(Declared):
    """Windowed features: every aggregation of `take` over every window of `over`, per `entity`."""

    entity: str = Field(description="field that says what the feature is about; null has no features")
    of: str | None = Field(None, description="number that is aggregated; may be left out for `count`")
    take: Annotated[tuple[AggregationName, ...], Field(min_length=1, description="aggregations, see their table")]
    over: Annotated[tuple[DurationMs, ...], Field(min_length=1, description="window sizes")]
    slide_ms: DurationMs = Field(60_000, alias="slide", description="width of a tile; sizes are whole multiples")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its columns, in their order."""
        return tuple(feature_name(self.entity, self.of, one, size_ms) for size_ms in self.over for one in self.take)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.slide_ms == 0:
            msg = "slide: got 0; a tile is at least 1ms wide"
            raise ValueError(msg)
        for size_ms in self.over:
            if size_ms // self.slide_ms > MAX_TILES:
                msg = (
                    f"over: got {format_duration(size_ms)} with a slide of {format_duration(self.slide_ms)}; a window "
                )
                msg += f"has at most {MAX_TILES} tiles: choose a wider slide"
                raise ValueError(msg)
            if size_ms == 0 or size_ms % self.slide_ms:
                slide = format_duration(self.slide_ms)
                msg = f"over: got {format_duration(size_ms)}; a window is a whole multiple of its slide ({slide})"
                raise ValueError(msg)
        if self.of is None and any(AGGREGATIONS[name].needs_value for name in self.take):
            msg = f"of: missing; only count can do without a value, got take: [{', '.join(self.take)}]"
            raise ValueError(msg)
        return self
