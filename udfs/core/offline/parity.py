"""Parity: are the features that the job logged those that the same kernels give offline, bit for bit?

Each stage is run again over every lane's rows in the order stamped on them. What left the path late, or was rejected by
the score stage, was seen by the featurize stages too, and takes its place in the sequence; so do enrichment rows, whose
place the order topic records.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import Stage, feature_columns, order_places, plan_stages
from udfs.core.rows.batches import OFFSET, PARTITION, Piece, RawBatch, join_batches
from udfs.core.rows.ingest import ingest_of_topics, number_column
from udfs.core.rows.letters import no_letters
from udfs.core.stage.lane import Lane, Places

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
PARTITION_BITS = 44  #: how far a partition is shifted in a code: offsets are below 2**44
OFFSET_MASK = (1 << PARTITION_BITS) - 1
MOST_EXAMPLES = 10


class Origin(NamedTuple):
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What the job said of one input record."""

    #: (lane, number) of each featurize stage that saw the row, and of its waits; see `features.order_places`
    order: dict[str, tuple[int, int]]
    #: the feature values written into the prediction; None for a letter
    features: dict[str, float | int | None] | None


@dataclass(frozen=True, slots=True)
class Logged:
    """What the job said of its input records, as columns.

    `stamps` has `topic`, `partition`, `offset` and, per entity or other place of the order, `lane_<place>` and
    `seq_<place>`, null where the stage has not seen the record; a record may stand there twice. `predictions` has
    `partition` and `offset` in the source topic, and the features that were logged, null for null.
    """

    stamps: pa.Table
    predictions: pa.Table


@dataclass(slots=True)
class FeatureParity:
    """How often one feature was right."""

    equal: int = 0
    different: int = 0
    #: logged but not computed offline, or not logged
    missing: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.equal + self.different + self.missing


@dataclass(slots=True)
class ParityReport:
    """How many predictions were compared and what differed."""

    rows: int = 0
    #: rows with at least one value that is not bit-equal, or that the offline run lacks
    mismatches: int = 0
    #: predictions that the offline run did not produce
    missing: int = 0
    #: rows that a stage has seen of which nothing was logged: what they changed shows as different
    gaps: int = 0
    #: per feature column
    features: dict[str, FeatureParity] = field(default_factory=dict)
    #: a few differences, for people
    examples: list[str] = field(default_factory=list)

    @property
    def by_feature(self) -> dict[str, int]:
        """How many rows differ, of the features that do."""
        return {name: one.different for name, one in self.features.items() if one.different}


def check_parity(
    pipeline: Pipeline,
    folder: Path,
    inputs: Iterable[RawBatch],
    observed: Logged | Mapping[Origin, Observed],
) -> ParityReport:
    """Recompute the features of every prediction offline and compare. All rows are held in memory.

    Parameters
    ----------
    pipeline, folder : the effective definition of the job, and the folder its files are relative to
    inputs : all records of the source and enrichment topics that the job has read
    observed : what the job wrote
    """
    logged = observed if isinstance(observed, Logged) else as_columns(pipeline, observed)
    ingests, source = ingest_of_topics(pipeline, folder), pipeline.source.topic
    tables = {topic: [ingest.process(RawBatch(topic, [], [], [], [], [])).rows] for topic, ingest in ingests.items()}
    for raw in inputs:
        tables[raw.topic].append(ingests[raw.topic].process(raw).rows)
    streams = {topic: join_batches(batches) for topic, batches in tables.items()}
    for stage in plan_stages(pipeline):
        topics = [source, *(enrichment.topic for enrichment in stage.enrichments)]
        read = {topic: streams[topic] for topic in topics}
        streams[source] = _replayed(pipeline, stage, read, logged.stamps)
    report = compare(source, feature_columns(pipeline), streams[source], logged.predictions)
    report.gaps = sum(count_gaps(logged.stamps, stage.entity) for stage in plan_stages(pipeline))
    return report


def count_gaps(stamps: pa.Table, entity: str) -> int:
    """Return how many sequence numbers below the highest are missing, over all lanes of a stage."""
    places = (
        stamps.select([f"lane_{entity}", f"seq_{entity}"]).drop_null().group_by([f"lane_{entity}", f"seq_{entity}"])
    )
    by_lane = places.aggregate([]).group_by(f"lane_{entity}")
    found = by_lane.aggregate([(f"seq_{entity}", "max"), (f"seq_{entity}", "count")])
    last, count = (pc.sum(found[f"seq_{entity}_{what}"]).as_py() or 0 for what in ("max", "count"))
    return int(last + found.num_rows - count)


def as_columns(pipeline: Pipeline, observed: Mapping[Origin, Observed]) -> Logged:
    """Return what the job said of each record as columns."""
    stamps: dict[str, list[Any]] = {
        name: [getattr(origin, name) for origin in observed] for name in ("topic", "partition", "offset")
    }
    for place in order_places(pipeline):
        found = [seen.order.get(place, (None, None)) for seen in observed.values()]
        stamps[f"lane_{place}"], stamps[f"seq_{place}"] = ([one[i] for one in found] for i in (0, 1))
    predicted = [(origin, seen.features) for origin, seen in observed.items() if seen.features is not None]
    names = dict.fromkeys(name for _, features in predicted for name in features)
    columns = {"partition": [one.partition for one, _ in predicted], "offset": [one.offset for one, _ in predicted]}
    values = {name: pa.array([features.get(name) for _, features in predicted], pa.float64()) for name in names}
    schema = stamp_schema(pipeline)
    return Logged(
        pa.table([pa.array(stamps[one.name], one.type) for one in schema], schema=schema),
        pa.table({name: pa.array(column, pa.int64()) for name, column in columns.items()} | values),
    )


def stamp_schema(pipeline: Pipeline) -> pa.Schema:
    """Return the columns of `Logged.stamps`."""
    fields = [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64())]
    for place in order_places(pipeline):
        fields += [(f"lane_{place}", pa.int32()), (f"seq_{place}", pa.int64())]
    return pa.schema(fields)


def _replayed(pipeline: Pipeline, stage: Stage, streams: dict[str, pa.RecordBatch], stamps: pa.Table) -> pa.RecordBatch:
    """Run one stage over each lane's rows in stamped order; return the rows of the source topic that went on."""
    source = pipeline.source.topic
    lane_column, seq_column = f"lane_{stage.entity}", f"seq_{stage.entity}"
    seen = stamps.filter(stamps[lane_column].is_valid())
    #: topic -> per row its lane, -1 for none, its number there, and those that its waits are stamped with
    places = {}
    waits = [join.place for join in stage.enrichments if join.wait_ms]
    for topic, rows in streams.items():
        mine = seen.filter(pc.equal(seen["topic"], topic))
        at = find(codes(mine["partition"], mine["offset"]), codes(rows[PARTITION], rows[OFFSET]))
        lanes = np.where(at >= 0, np.append(mine[lane_column].to_numpy(), -1)[at], -1)
        told = {name: np.append(pc.fill_null(mine[f"seq_{name}"], -1).to_numpy(), -1)[at] for name in waits}
        places[topic] = lanes, np.append(mine[seq_column].to_numpy(), -1)[at], told
    done = [Lane(pipeline, stage, 0, None).process(_piece(source, streams[source].slice(0, 0))).rows]
    for number in np.unique(np.concatenate([lanes for lanes, _, _ in places.values()])).tolist():
        if number < 0:
            continue
        pieces, seqs, told = {}, [], {}
        for topic, (lanes, in_lane, waited) in places.items():
            mine = np.flatnonzero(lanes == number)
            mine = mine[np.argsort(in_lane[mine], kind="stable")]
            pieces[topic] = _piece(topic, streams[topic].take(pa.array(mine)))
            seqs.append(in_lane[mine])
            told |= {name: until[mine] for name, until in waited.items()} if topic == source else {}
        topics = np.repeat(np.arange(len(seqs), dtype=np.int8), [one.size for one in seqs])
        order = np.argsort(np.concatenate(seqs), kind="stable")
        numbers = np.concatenate(seqs)[order].astype(np.int64)
        # Behind the last row that is known there may have been others, which wait still.
        end = max([int(numbers[-1]) + 1, *(int(until.max(initial=0)) for until in told.values())])
        stood = Places(numbers, end, told) if waits else None
        lane = Lane(pipeline, stage, number, None)
        done.append(lane.process_interleaved(pieces, topics[order], places=stood)[source].rows)
    return join_batches(done)


def compare(topic: str, names: Iterable[str], rows: pa.RecordBatch, predictions: pa.Table) -> ParityReport:
    """Compare some of the logged features with rows computed offline; see `Logged` for the columns."""
    at = find(codes(rows[PARTITION], rows[OFFSET]), codes(predictions["partition"], predictions["offset"]))
    found = at >= 0
    report = ParityReport(int(found.sum()), missing=int((~found).sum()))
    offline, logged = rows.take(pa.array(at[found])), predictions.filter(pa.array(found))
    wrong = np.zeros(report.rows, np.bool_)
    for name in names:
        if name not in logged.column_names:
            report.features[name] = FeatureParity(missing=len(predictions))
            continue
        live, wanted = _numbers(logged[name]), _numbers(number_column(offline, name))
        differs = (live.view(np.int64) != wanted.view(np.int64)) & ~(np.isnan(live) & np.isnan(wanted))
        different = int(differs.sum())
        report.features[name] = FeatureParity(report.rows - different, different, report.missing)
        if different and len(report.examples) < MOST_EXAMPLES:
            first = int(np.flatnonzero(differs)[0])
            where = Origin(topic, *(logged[one][first].as_py() for one in ("partition", "offset")))
            report.examples.append(f"{where}: {name}: live {float(live[first])!r}, offline {float(wanted[first])!r}")
        wrong |= differs
    report.mismatches = int(wrong.sum()) + report.missing
    return report


def _numbers(column: pa.Array | pa.ChunkedArray) -> F64:
    found: F64 = np.ascontiguousarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    return found


def codes(partitions: pa.ChunkedArray | pa.Array, offsets: pa.ChunkedArray | pa.Array) -> I64:
    """Return one number per place in a topic, int64[n]."""
    found: I64 = (partitions.to_numpy().astype(np.int64) << PARTITION_BITS) | offsets.to_numpy()
    return found


def find(known: I64, wanted: I64) -> I64:
    """Return where each wanted code stands among the known ones, the last of equal ones; -1 for nowhere."""
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], wanted, "right") - 1
    hit = at >= 0
    hit[hit] = known[order[at[hit]]] == wanted[hit]
    return np.where(hit, order[np.maximum(at, 0)] if order.size else -1, -1)


def _piece(topic: str, rows: pa.RecordBatch) -> Piece:
    return Piece(topic, rows, no_letters())
