"""Tracks: the features of one entity that share cells, laid out as arrays for the kernels."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from udfs.core.aggregations import IRS
from udfs.core.declare.conditions import Condition
from udfs.core.declare.durations import format_duration
from udfs.core.declare.feature import Feature, Input, Ir
from udfs.core.kernels.arrays import Plan

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Family = Literal["tiles", "sessions", "ring"]
#: float64 values of a cell before its IRs: a session's start and end
PREFIX = {"tiles": 0, "sessions": 2, "ring": 0}


class Cut(NamedTuple):
    """How events fall into cells; features of one cut share a track."""

    stream: str | None
    family: Family
    #: width of a tile, gap of a session; 0: one cell per key
    tile_ms: int
    #: condition that starts a session
    start: Condition | None

    @staticmethod
    def of(feature: Feature) -> "Cut":
        """Return the cut of a feature."""
        window = feature.window
        if window.kind in ("session", "session_from"):
            return Cut(feature.stream, "sessions", window.size_ms, window.session_from)
        if window.kind == "last":
            return Cut(feature.stream, "ring", 0, None)
        return Cut(feature.stream, "tiles", feature.slide_ms or window.size_ms, None)


class Reach(NamedTuple):
    """Which cells of a key a window folds, seen from the event; windows of one track are ordered by it."""

    #: True: the event enters its cell before the window is read
    includes_event: bool
    #: newest tiles left out: those that are not `delay` old as a whole
    skip: int
    #: oldest tile, counted back from the event's own; or events of `last`
    oldest: int
    #: fixed length, 0 where it has none
    size_ms: int

    @staticmethod
    def of(feature: Feature) -> "Reach":
        """Return the reach of a feature."""
        window, includes = feature.window, feature.includes_event
        if window.kind == "last":
            return Reach(includes, 0, window.last or 0, 0)
        if window.kind != "sliding":
            return Reach(includes, 0, 0, window.tumbling_ms or 0)
        delay = (window.delay_ms or 0) // feature.slide_ms
        tiles = window.size_ms // feature.slide_ms
        return Reach(includes, delay + 1 if delay else 0, delay + tiles, window.size_ms)

    def holds(self, feature: Feature) -> bool:
        """Return whether it is the reach of a feature."""
        return self == Reach.of(feature)


@dataclass(frozen=True)
class Track:
    """The features of one cut of one entity: those kept in arrays, or those kept as sketches."""

    cut: Cut
    #: ordered by window
    features: tuple[Feature, ...]
    irs: tuple[Ir, ...]
    #: True: the cells hold arrays
    is_flat: bool

    @staticmethod
    def of(cut: Cut, features: list[Feature]) -> "Track":
        """Lay out the features, each IR once, the features ordered by window."""
        irs = tuple(dict.fromkeys(feature.ir for feature in features))
        return Track(cut, tuple(sorted(features, key=Reach.of)), irs, features[0].is_flat)

    @cached_property
    def reaches(self) -> tuple[Reach, ...]:
        """The windows, each once, in order."""
        return tuple(sorted({Reach.of(feature) for feature in self.features}))

    @cached_property
    def plan(self) -> Plan:
        """What the kernels need to know."""
        return Plan(self.windows, self.opcodes, self.inputs, self.offsets, self.params, self.param_offsets, self.writes)

    @cached_property
    def windows(self) -> I64:
        """int64[4, w], the windows: includes_event, skip, oldest, size_ms."""
        return np.ascontiguousarray(np.array(self.reaches, np.int64).T)

    @property
    def oldest(self) -> int:
        """The farthest reach."""
        return max(reach.oldest for reach in self.reaches)

    @cached_property
    def columns(self) -> tuple[str | Input, ...]:
        """What the kernel gets per row: the inputs, and second columns by name."""
        inputs: list[str | Input] = [ir.input for ir in self.irs if ir.input != Input(None)]
        return tuple(dict.fromkeys([*inputs, *(ir.other for ir in self.irs if ir.other)]))

    @cached_property
    def opcodes(self) -> I64:
        """int64[k], the kind of each IR."""
        return np.array([IRS[ir.kind].opcode for ir in self.irs], np.int64)

    @cached_property
    def inputs(self) -> I64:
        """int64[2, k], per IR the position of its columns in `columns`; -1: 1.0 for each event, or no second one."""
        value = [-1 if ir.input == Input(None) else self.columns.index(ir.input) for ir in self.irs]
        return np.array([value, [self.columns.index(ir.other) if ir.other else -1 for ir in self.irs]], np.int64)

    @cached_property
    def offsets(self) -> I64:
        """int64[k + 1], where each IR lies in a cell, in float64 values."""
        return np.cumsum([PREFIX[self.cut.family], *(ir.width for ir in self.irs)], dtype=np.int64)

    @cached_property
    def params(self) -> F64:
        """float64[], the parameters of all IRs."""
        return np.array([one for ir in self.irs for one in ir.params], np.float64)

    @cached_property
    def param_offsets(self) -> I64:
        """int64[k + 1], where the parameters of each IR lie in `params`."""
        return np.cumsum([0, *(len(ir.params) for ir in self.irs)], dtype=np.int64)

    @cached_property
    def writes(self) -> I64:
        """int64[5, f], per feature, ordered by window: window, IR, opcode of its aggregation, output, part."""
        rows = [
            (
                self.reaches.index(Reach.of(one)), self.irs.index(one.ir),
                one.take.aggregation.opcode, at, one.part,  # type: ignore[union-attr]  # flat
            )
            for at, one in enumerate(self.features)
        ]  # fmt: skip
        return np.ascontiguousarray(np.array(rows, np.int64).T)

    @property
    def width(self) -> int:
        """float64 values of a cell."""
        if not self.is_flat:
            return 0
        if self.cut.family == "ring":
            return self.oldest * (1 + len(self.columns))
        return int(self.offsets[-1])

    @property
    def reach_ms(self) -> int:
        """How far behind an event of its key a cell is read."""
        return (self.oldest + 1) * self.cut.tile_ms if self.cut.family == "tiles" else self.cut.tile_ms

    @property
    def layout(self) -> str:
        """Text that changes whenever stored cells of this track would mean something else."""
        cut, irs = self.cut, ", ".join(str(ir) for ir in self.irs)
        what = f"last {self.oldest}" if cut.family == "ring" else cut.family
        tile = f" of {format_duration(cut.tile_ms)}" if cut.tile_ms else ""
        start = f" from {cut.start}" if cut.start else ""
        source = f"{cut.stream}: " if cut.stream else ""
        if cut.family == "ring":
            irs = ", ".join(str(one) for one in self.columns)
        return f"{source}{what}{tile}{start}: {irs}"
