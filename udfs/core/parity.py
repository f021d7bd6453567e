"""Parity: are the features in the predictions those that the same kernels give offline, bit for bit?

Each stage is run again over every lane's rows in the order stamped on them. What left the path late, or was rejected by
the score stage, was seen by the featurize stages too, and takes its place in the sequence; so do enrichment rows, whose
place the order topic records.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from udfs.core.batches import OFFSET, PARTITION, Piece, RawBatch, join_batches
from udfs.core.definition import Pipeline
from udfs.core.features import feature_columns, plan_stages
from udfs.core.ingest import ingest_of_topics, number_column
from udfs.core.lane import Lane
from udfs.core.letters import no_letters

CHUNK_ROWS = 4096


class Origin(NamedTuple):
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What the job said of one input record."""

    #: per entity: (lane, sequence number) of each featurize stage that saw the row
    order: dict[str, tuple[int, int]]
    #: the feature values written into the prediction; None for a letter
    features: dict[str, float | int | None] | None


@dataclass(slots=True)
class ParityReport:
    """How many predictions were compared and what differed."""

    rows: int = 0
    #: rows with at least one value that is not bit-equal
    mismatches: int = 0
    #: per feature column, how many rows differ
    by_feature: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    #: predictions that the offline run did not produce
    missing: int = 0
    #: a few differences, for people
    examples: list[str] = field(default_factory=list)


def check_parity(
    pipeline: Pipeline, folder: Path, inputs: Iterable[RawBatch], observed: dict[Origin, Observed]
) -> ParityReport:
    """Recompute the features of every prediction offline and compare.

    Parameters
    ----------
    pipeline, folder : the effective definition of the job, and the folder its files are relative to
    inputs : all records of the source and enrichment topics that the job has read
    observed : what the job wrote, by origin of the input record
    """
    ingests = ingest_of_topics(pipeline, folder)
    tables: dict[str, list[pa.RecordBatch]] = defaultdict(list)
    for raw in inputs:
        tables[raw.topic].append(ingests[raw.topic].process(raw).rows)
    streams = {topic: join_batches(batches) for topic, batches in tables.items()}
    for stage in plan_stages(pipeline):
        topics = [pipeline.source.topic, *(enrichment.topic for enrichment in stage.enrichments)]
        streams[pipeline.source.topic] = _replay_stage(pipeline, stage.entity, topics, streams, observed)
    return _compare(pipeline, streams[pipeline.source.topic], observed)


def _replay_stage(
    pipeline: Pipeline,
    entity: str,
    topics: list[str],
    streams: dict[str, pa.RecordBatch],
    observed: dict[Origin, Observed],
) -> pa.RecordBatch:
    """Run one stage over each lane's rows in stamped order; return the rows of the source topic that went on."""
    stage = next(one for one in plan_stages(pipeline) if one.entity == entity)
    places: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for number, topic in enumerate(topics):
        rows = streams[topic]
        origins = zip(rows[PARTITION].to_pylist(), rows[OFFSET].to_pylist(), strict=True)
        for row, (partition, offset) in enumerate(origins):
            seen = observed.get(Origin(topic, partition, offset))
            if seen is not None and entity in seen.order:
                number_of_lane, seq = seen.order[entity]
                places[number_of_lane].append((seq, number, row))
    done = []
    for lane_number, sequence in sorted(places.items()):
        lane = Lane(pipeline, stage, lane_number, {})
        sequence.sort()
        for topic_number, rows_of_run in _runs(sequence):
            rows = streams[topics[topic_number]].take(pa.array(rows_of_run))
            piece = lane.process(Piece(topics[topic_number], rows, no_letters()))
            if topic_number == 0:
                done.append(piece.rows)
    return join_batches(done or [streams[topics[0]].slice(0, 0)])


def _runs(sequence: list[tuple[int, int, int]]) -> Iterable[tuple[int, list[int]]]:
    """Cut a lane's sequence of (seq, topic, row) into runs of one topic."""
    run: list[int] = []
    for position, (_, topic, row) in enumerate(sequence):
        run.append(row)
        last = position + 1 == len(sequence)
        if last or sequence[position + 1][1] != topic or len(run) == CHUNK_ROWS:
            yield topic, run
            run = []


def _compare(pipeline: Pipeline, rows: pa.RecordBatch, observed: dict[Origin, Observed]) -> ParityReport:
    report = ParityReport()
    topic = pipeline.source.topic
    origins = [
        Origin(topic, partition, offset)
        for partition, offset in zip(rows[PARTITION].to_pylist(), rows[OFFSET].to_pylist(), strict=True)
    ]
    position = {origin: i for i, origin in enumerate(origins)}
    predicted = {origin: seen.features for origin, seen in observed.items() if seen.features is not None}
    found = [origin for origin in predicted if origin in position]
    report.rows, report.missing = len(found), len(predicted) - len(found)
    offline = rows.take(pa.array([position[origin] for origin in found], pa.int64()))
    wrong = np.zeros(len(found), np.bool_)
    for name in feature_columns(pipeline):
        live = np.array(
            [np.nan if (value := predicted[origin][name]) is None else value for origin in found], np.float64
        )
        wanted = number_column(offline, name).to_numpy(zero_copy_only=False)
        differs = (live.view(np.int64) != wanted.view(np.int64)) & ~(np.isnan(live) & np.isnan(wanted))
        if differs.any():
            report.by_feature[name] = int(differs.sum())
            first = int(np.flatnonzero(differs)[0])
            report.examples.append(f"{found[first]}: {name}: live {live[first]!r}, offline {wanted[first]!r}")
        wrong |= differs
    report.mismatches = int(wrong.sum()) + report.missing
    return report
