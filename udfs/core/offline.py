"""The same path without Flink: raw records in, featurized rows out. For training sets, parity and tests.

One lane per stage; rows go through in the order given.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from udfs.core.batches import RawBatch
from udfs.core.definition import Pipeline
from udfs.core.features import plan_stages
from udfs.core.ingest import ingest_of_topics
from udfs.core.lane import Lane


@dataclass(frozen=True, slots=True)
class Featurized:
    """What came out: rows with every column that the scoring stage would see, and the letters of the others."""

    rows: pa.Table
    letters: pa.Table


def featurize_offline(pipeline: Pipeline, folder: Path, batches: Iterable[RawBatch]) -> Featurized:
    """Run ingest and all featurize stages over batches of the source topic and of enrichment topics, in their order.

    Parameters
    ----------
    pipeline, folder : the definition and the folder its files are relative to
    batches : records; where a batch ends never shows in the result
    """
    ingests = ingest_of_topics(pipeline, folder)
    lanes = [Lane(pipeline, stage, 0, {}) for stage in plan_stages(pipeline)]
    rows, letters = [], []
    nothing = RawBatch(pipeline.source.topic, [], [], [], [], [])
    for raw in itertools.chain([nothing], batches):
        piece = ingests[raw.topic].process(raw)
        for lane in lanes:
            piece = lane.process(piece)
        if raw.topic == pipeline.source.topic:
            rows.append(piece.rows)
        letters.append(piece.letters)
    filled = [batch for batch in rows if batch.num_rows] or rows[:1]
    return Featurized(pa.Table.from_batches(filled), pa.Table.from_batches(letters))
