"""Shapes: what the cells of a stage are made of, part by part, so that one definition reads what another one wrote.

Two tracks hold the same cells if their shapes have the same name: the same stream, cut in the same way. What they keep
in a cell may differ: each part (an IR, a column of a ring, a field of a join) goes by its own name.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from udfs.core.cells.keyed import Layout
from udfs.core.declare.declarations import Enrichment
from udfs.core.declare.durations import format_duration
from udfs.core.declare.feature import Feature
from udfs.core.kernels.fold import init_irs
from udfs.core.plan.features import Stage
from udfs.core.plan.tracks import Reach, Track
from udfs.core.stage.store import join_layout, track_layout

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """One track of a store."""

    #: how its cells are cut, the same in every definition that cuts them so
    name: str
    layout: Layout
    #: part -> where it lies in a cell: in its float64 values, or in its sketches
    parts: dict[str, slice]
    #: float64[width], a cell that nothing was added to; its sketches are made by the layout
    empty: F64
    #: tiles behind the newest that a window may read, or events of a ring; 0 where the cut says it all
    oldest: int
    #: width of a tile, 0 where there is none
    tile_ms: int


def shapes_of(stage: Stage, enrichment: Enrichment | None) -> tuple[Shape, ...]:
    """Return the shapes of a store's tracks, in their order; see `store.Store`."""
    joined = [_join(enrichment)] if enrichment is not None and enrichment.take else []
    stream = enrichment.name if enrichment is not None else None
    return (*joined, *(shape_of(track) for track in stage.tracks if track.cut.stream == stream))


def shape_of(track: Track) -> Shape:
    """Return the shape of a track."""
    layout, empty = track_layout(track), np.zeros(track.width)
    tile_ms = track.cut.tile_ms if track.cut.family == "tiles" else 0
    irs = [str(ir) for ir in track.irs]
    if not track.is_flat:
        parts = {ir: slice(i, i + 1) for i, ir in enumerate(irs)}
        return Shape(shape_name(track), layout, parts, empty, track.oldest, tile_ms)
    if track.cut.family == "ring":
        empty[:] = np.nan
        names = [f"{i}: {one}" for i in range(track.oldest) for one in ("time", *map(str, track.columns))]
        parts = {name: slice(i, i + 1) for i, name in enumerate(names)}
        return Shape(shape_name(track), layout, parts, empty, track.oldest, 0)
    init_irs(empty, track.plan)
    parts = {f"prefix {i}": slice(i, i + 1) for i in range(int(track.offsets[0]))}
    parts |= {ir: slice(a, b) for ir, a, b in zip(irs, track.offsets[:-1], track.offsets[1:], strict=True)}
    return Shape(shape_name(track), layout, parts, empty, track.oldest, tile_ms)


def shape_name(track: Track) -> str:
    """Return how a track's cells are cut, in words."""
    cut = track.cut
    words = [f"{cut.stream}:" if cut.stream else "", "" if track.is_flat else "sketches in", cut.family]
    words += [f"of {format_duration(cut.tile_ms)}" if cut.tile_ms else "", f"from {cut.start}" if cut.start else ""]
    return " ".join(filter(None, words))


def missing_of(feature: Feature, track: Track, held: Shape | None) -> str | None:
    """Say what a feature lacks in the cells that are held; None: it has all that it reads."""
    if held is None:
        return f"no {shape_name(track)} are held"
    oldest = Reach.of(feature).oldest
    lacking = [name for name in reads_of(feature, track, min(oldest, held.oldest)) if name not in held.parts]
    if lacking:
        return f"{lacking[0].removeprefix('0: ')} is not held"
    if oldest <= held.oldest:
        return None
    if not held.tile_ms:
        return f"only the last {held.oldest} of {oldest} are held"
    spans = [format_duration(one * held.tile_ms) for one in (held.oldest, oldest)]
    return f"only {spans[0]} of {spans[1]} are held"


def reads_of(feature: Feature, track: Track, oldest: int) -> list[str]:
    """Return the parts of a cell that a feature reads; of a ring those of its `oldest` newest events."""
    ir = feature.ir
    if track.is_flat and track.cut.family == "ring":
        columns = ["time", *(str(column) for column in track.columns if column in (ir.input, ir.other))]
        return [f"{i}: {column}" for i in range(oldest) for column in columns]
    prefix = int(track.offsets[0]) if track.is_flat else 0
    return [*(f"prefix {i}" for i in range(prefix)), str(ir)]


def join_missing(enrichment: Enrichment, field: str, held: Shape | None) -> str | None:
    """Say what a joined column lacks; None: nothing."""
    if held is None:
        return f"no rows of {enrichment.name} are held"
    return None if field in held.parts else f"{field} is not held"


def join_name(enrichment: Enrichment) -> str:
    """Return the name of the shape of an enrichment's rows."""
    return f"rows of {enrichment.name}"


def _join(enrichment: Enrichment) -> Shape:
    fields = tuple(enrichment.take.values())
    parts = {field: slice(i, i + 1) for i, field in enumerate(fields)}
    return Shape(join_name(enrichment), join_layout(enrichment), parts, np.full(len(fields), np.nan), 0, 0)
