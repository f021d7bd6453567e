"""Carrying state over: a snapshot of one definition -> the snapshot that a job of another definition starts from.

Other lanes: every key goes to its lane with its cells and clocks. Lane i of L old lanes feeds lane j of M new ones if
i and j are the same modulo gcd(L, M). A new lane goes on from the highest sequence number and the newest clock of the
lanes that feed it, so that no (lane, number) is given twice, the numbers of a key only grow, and what was forgotten
stays forgotten. Other features: each part of a cell is taken from where `migration` says, or is empty.
Events that wait for rows of enrichments go with their keys, but have the columns of the old features: with others, or
where their numbers would meet in one lane, the state is refused until they have gone on.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from udfs.core.cells.keyed import KeyedCells, Track
from udfs.core.cells.log import Log
from udfs.core.cells.segments import Segment
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError
from udfs.core.plan.features import Stage, plan_stages
from udfs.core.rows.lanes import lane_of
from udfs.core.stage.duplicates import LAYOUT
from udfs.core.stage.held import Held, HeldLog, is_entry
from udfs.core.stage.store import Store
from udfs.core.state.header import DUPLICATES, StateHeader, log_name
from udfs.core.state.migration import plan_migration
from udfs.core.state.shapes import Shape, join_name, reads_of, shape_name, shapes_of
from udfs.core.state.snapshot import Snapshot, position

I64 = NDArray[np.int64]
#: name of a shape -> parts of its cells
Parts = Mapping[str, set[str]]


@dataclass(frozen=True)
class InMemory:
    """One store of one lane."""

    cells: KeyedCells
    log: Log
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class OldLane:
    """The stores of a lane that is carried over, by the name of their stream; None is the scored events."""

    stores: Mapping[str | None, InMemory]
    next_seq: int
    #: what is taken of the cells; None: everything
    parts: Parts | None
    #: per store, per slot the lane that its key goes to
    targets: Mapping[str | None, I64]
    #: events that wait; None: there are none
    waiting: Held | None = None


def feeding(lane: int, old_lanes: int, new_lanes: int) -> range:
    """Return the old lanes whose keys may come to a new lane.

    Examples
    --------
    >>> list(feeding(3, old_lanes=2, new_lanes=4)), list(feeding(1, old_lanes=4, new_lanes=2))
    ([1], [1, 3])
    """
    step = math.gcd(old_lanes, new_lanes)
    return range(lane % step, old_lanes, step)


def carry(snapshot: Snapshot, header: StateHeader, bootstrap: Snapshot | None = None) -> Snapshot:
    """Return the state for a job of `header`, whose lanes and features may be others.

    Parameters
    ----------
    bootstrap : a state built from the same records, for features that the snapshot lacks

    Raises
    ------
    StateFormatError : a definition or a segment cannot be read, or the bootstrap is not of the same records.
    """
    if bootstrap is not None and position(bootstrap) != position(snapshot):
        msg = (
            "the bootstrap is not of the same records as the snapshot: some would count twice, or not at all; build it "
            "up to the snapshot: headrace state build … --until SNAPSHOT"
        )
        raise StateFormatError(msg)
    pipeline = header.definition()
    plan = plan_migration(snapshot.header, header, bootstrap.header if bootstrap else None)
    filled = {change.column for change in plan.changes if change.action == "bootstrap"}
    is_same = snapshot.header.feature_set == header.feature_set
    logs: dict[tuple[str, int], list[bytes]] = {}
    for stage in plan_stages(pipeline):
        log, parts = log_name(stage.entity), _parts(stage, filled)
        # What comes later lies over what came before: the bootstrap below, the state itself above.
        found = [list(_old_lanes(bootstrap, stage.entity, pipeline.lanes, parts))] if bootstrap and parts else []
        found.append(list(_old_lanes(snapshot, stage.entity, pipeline.lanes, None)))
        for lane in range(pipeline.lanes):
            fed = [old[i] for old in found for i in feeding(lane, len(old), pipeline.lanes)]
            logs[log, lane] = _new_lane(stores_of(pipeline, stage), lane, fed)
            if waiting := [one.waiting for one in fed if one.waiting is not None]:
                logs[log, lane] += _waiting_events(stage, waiting, lane, pipeline.lanes, is_same=is_same)
    if pipeline.time.duplicates_within_ms:
        ids = list(_old_ids(snapshot))
        for lane in range(pipeline.lanes):
            # An id does not tell its lane, so it goes to all that are fed.
            fed = [ids[i] for i in feeding(lane, len(ids), pipeline.lanes)]
            logs[DUPLICATES, lane] = _new_lane({None: _id_store(pipeline)}, 0, fed)
    topics = {pipeline.source.topic, *(one.topic for one in pipeline.enrichments)}
    return Snapshot(
        header,
        "migrate",
        {place: segments for place, segments in logs.items() if segments},
        {topic: found for topic, found in snapshot.offsets.items() if topic in topics},
        [batch for batch in snapshot.pending if batch.topic in topics],
    )


def stores_of(pipeline: Pipeline, stage: Stage) -> dict[str | None, InMemory]:
    """Return the empty stores of a stage, as `lane.Lane` has them."""
    held: dict[str | None, InMemory] = {}
    for number, enrichment in enumerate((None, *stage.enrichments)):
        store = Store(number, stage, pipeline.time, enrichment)
        held[enrichment.name if enrichment else None] = InMemory(store.cells, store.log, shapes_of(stage, enrichment))
    return held


def segments_of(stores: Sequence[tuple[KeyedCells, Log]], next_seq: int) -> list[bytes]:
    """Return the log that keeps what the stores of a lane hold; none for a lane that has seen no row."""
    mapping: dict[int, bytes] = {}
    number = 0
    for cells, log in stores if next_seq else ():
        rows = [np.flatnonzero(track.owner >= 0) for track in cells.tracks]
        slots = np.array(sorted(cells.index.values()), np.int64)
        number = log.write(mapping, number, next_seq, slots, rows)
    return [mapping[one] for one in sorted(mapping)]


def _old_lanes(snapshot: Snapshot, entity: str, lanes: int, parts: Parts | None) -> Iterator[OldLane]:
    pipeline = snapshot.header.definition()
    stage = next((stage for stage in plan_stages(pipeline) if stage.entity == entity), None)
    for lane in range(pipeline.lanes):
        stores = stores_of(pipeline, stage) if stage is not None else {}
        log = snapshot.logs.get((log_name(entity), lane), ())
        next_seq = _restore(stores, log)
        targets = {name: _targets(one.cells, lanes) for name, one in stores.items()}
        entries = [(number, data) for number, data in enumerate(log) if is_entry(data)]
        waiting = _held_log(stage).restore(entries) if stage is not None and entries else None
        yield OldLane(stores, next_seq, parts, targets, waiting if waiting is not None and waiting.seqs.size else None)


def _old_ids(snapshot: Snapshot) -> Iterator[OldLane]:
    pipeline = snapshot.header.definition()
    for lane in range(pipeline.lanes):
        stores: dict[str | None, InMemory] = {None: _id_store(pipeline)} if pipeline.time.duplicates_within_ms else {}
        next_seq = _restore(stores, snapshot.logs.get((DUPLICATES, lane), ()))
        yield OldLane(stores, next_seq, None, {name: _targets(one.cells, 1) for name, one in stores.items()})


def _restore(stores: Mapping[str | None, InMemory], segments: Sequence[bytes]) -> int:
    """Fill stores from a log; return the next sequence number."""
    found = [(n, Segment.decode(data), len(data)) for n, data in enumerate(segments) if not is_entry(data)]
    for one in stores.values():
        one.log.restore([entry for entry in found if entry[1].store == one.log.store])
    return max((segment.next_seq for _, segment, _ in found), default=0)


def _new_lane(stores: dict[str | None, InMemory], lane: int, fed: list[OldLane]) -> list[bytes]:
    """Return the log of one lane, from the lanes that feed it."""
    for name, new in stores.items():
        old = [(one, one.stores[name], _move_keys(one, name, new.cells, lane)) for one in fed if name in one.stores]
        for shape, track in zip(new.shapes, new.cells.tracks, strict=True):
            track.reserve(0, len(new.cells.names))
            _fill(shape, track, [(held, moved, one.parts) for one, held, moved in old])
    next_seq = max((one.next_seq for one in fed), default=0)
    return segments_of([(held.cells, held.log) for held in stores.values()], next_seq)


def _move_keys(old: OldLane, name: str | None, cells: KeyedCells, lane: int) -> I64:
    """Give the keys that go to a lane their slots and clocks; return per old slot the new one, -1 for none."""
    before, targets = old.stores[name].cells, old.targets[name]
    slots = np.flatnonzero(targets == lane)
    moved = np.full(targets.size, -1, np.int64)
    moved[slots] = [cells.add(before.names[slot] or "") for slot in slots.tolist()]
    cells.newest_ms[moved[slots]] = np.maximum(cells.newest_ms[moved[slots]], before.newest_ms[slots])
    cells.born_seq[moved[slots]] = before.born_seq[slots]
    cells.clock_ms = max(cells.clock_ms, before.clock_ms)
    return moved


def _targets(cells: KeyedCells, lanes: int) -> I64:
    """Return per slot the lane of its key, int64[slots]; -1 for a vacant one."""
    return np.array([-1 if name is None else lane_of(name, lanes) for name in cells.names], np.int64)


def _fill(shape: Shape, track: Track, found: list[tuple[InMemory, I64, Parts | None]]) -> None:
    """Put the cells of several stores together, part by part, those of a later one over those of an earlier one."""
    places: list[I64] = [np.empty((0, 2), np.int64)]
    sources: list[tuple[list[str], Shape, Track, I64]] = []
    for held, moved, parts in found:
        for old, pool in zip(held.shapes, held.cells.tracks, strict=True):
            taken = [one for one in shape.parts if one in old.parts and (parts is None or one in parts[shape.name])]
            if old.name != shape.name or not taken:
                continue
            cells = np.flatnonzero(pool.owner >= 0)
            cells = cells[moved[pool.owner[cells]] >= 0]
            places.append(np.stack([moved[pool.owner[cells]], pool.tile[cells]], axis=1))
            sources.append((taken, old, pool, cells))
    unique, where = np.unique(np.concatenate(places), axis=0, return_inverse=True)
    irs = np.tile(shape.empty, (len(unique), 1))
    makers = track.layout.sketches
    blobs = [[make().to_bytes() for make in makers] for _ in range(len(unique))] if makers else []
    start = 0
    for taken, old, pool, cells in sources:
        at = where[start : start + cells.size]
        start += cells.size
        for part in taken if not makers else ():
            irs[at, shape.parts[part]] = pool.irs[cells, old.parts[part]]
        for i, cell in zip(at.tolist(), cells.tolist(), strict=True) if makers else ():
            for part in taken:
                blobs[i][shape.parts[part]] = [one.to_bytes() for one in pool.sketches[cell][old.parts[part]]]
    track.restore(unique[:, 0].copy(), unique[:, 1].copy(), irs, blobs)


def _waiting_events(stage: Stage, waiting: list[Held], lane: int, lanes: int, *, is_same: bool) -> list[bytes]:
    """Return the entries of a lane's log that keep its waiting events."""
    count = sum(one.seqs.size for one in waiting)
    held = Held.joined(waiting)
    keys = [key for part in held.parts for key in part[stage.entity].to_pylist()]
    held = held.take(np.flatnonzero([lane_of(key, lanes) == lane for key in keys]))
    held = held.take(np.argsort(held.seqs, kind="stable"))
    if not is_same or np.unique(held.seqs).size < held.seqs.size:
        what = "have the same numbers in lanes that are joined" if is_same else "have the columns of the old features"
        names = ", ".join(join.name for join in stage.enrichments if join.is_awaited)
        msg = (
            f"{count} events of {stage.entity} wait for rows of {names}, and {what}; run the job on as it was until "
            "they have gone on, stop it, and export it again"
        )
        raise StateFormatError(msg)
    mapping: dict[int, bytes] = {}
    _held_log(stage).write(mapping, 0, held, held, np.empty(0, np.int64))
    return list(mapping.values())


def _held_log(stage: Stage) -> HeldLog:
    return HeldLog([join for join in stage.enrichments if join.is_awaited], stage.entity)


def _parts(stage: Stage, columns: set[str]) -> dict[str, set[str]]:
    """Return the parts that some columns read; by the names of all shapes if there are any, else nothing."""
    found: dict[str, set[str]] = {
        join_name(one): {field for column, field in one.take.items() if column in columns} for one in stage.enrichments
    }
    for track in stage.tracks:
        features = [one for one in track.features if one.name in columns]
        found[shape_name(track)] = {part for one in features for part in reads_of(one, track, track.oldest)}
    return found if any(found.values()) else {}


def _id_store(pipeline: Pipeline) -> InMemory:
    """Return the empty store of ids, as `duplicates.Duplicates` has it."""
    cells = KeyedCells([LAYOUT], lateness_ms=0, horizon_ms=pipeline.time.duplicates_within_ms)
    shape = Shape("ids", LAYOUT, {"facts": slice(0, LAYOUT.width)}, np.full(LAYOUT.width, np.nan), 0, 0)
    return InMemory(cells, Log(0, cells, longest_ms=0), (shape,))
