"""The same path without Flink, all at once: raw records in, featurized rows out. For trying a pipeline, and for tests.

Rows go through in the order given. What exceeds memory goes through `backfill`, which this is a short form of.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from udfs.core.declare.definition import Pipeline
from udfs.core.offline.backfill import Backfill, Chunk, Part
from udfs.core.rows.batches import RawBatch

CHUNK_RECORDS = 65_536


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
    done = list(Backfill(pipeline, folder).run(chunks(batches)))
    # Without rows, a column that comes of no value at all may have another type.
    filled = [one.rows for one in done if one.rows.num_rows] or [done[0].rows]
    return Featurized(pa.Table.from_batches(filled), pa.Table.from_batches([one.letters for one in done]))


def chunks(batches: Iterable[RawBatch], records: int = CHUNK_RECORDS) -> Iterator[Chunk]:
    """Put batches together to chunks of about that many records; at least one, which may be empty."""
    gathered: list[RawBatch] = []
    count = 0
    for batch in batches:
        gathered.append(batch)
        count += len(batch.values)
        if count >= records:
            yield _chunk(gathered)
            gathered, count = [], 0
    yield _chunk(gathered)


def _chunk(batches: list[RawBatch]) -> Chunk:
    ends = np.cumsum([len(batch.values) for batch in batches]).tolist()
    places = [np.arange(end - len(batch.values), end) for batch, end in zip(batches, ends, strict=True)]
    parts = []
    for topic in dict.fromkeys(batch.topic for batch in batches):
        mine = [(batch, place) for batch, place in zip(batches, places, strict=True) if batch.topic == topic]
        raw = RawBatch(
            topic,
            [one for batch, _ in mine for one in batch.values],
            [one for batch, _ in mine for one in batch.keys],
            [one for batch, _ in mine for one in batch.partitions],
            [one for batch, _ in mine for one in batch.offsets],
            [one for batch, _ in mine for one in batch.timestamps_ms],
        )
        parts.append(Part(raw, np.concatenate([place for _, place in mine])))
    return parts
