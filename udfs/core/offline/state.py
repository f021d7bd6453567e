"""Building a state: past records through the stages of a pipeline -> the snapshot that a job starts from."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError
from udfs.core.offline.backfill import Backfill, Chunk, Part
from udfs.core.rows.batches import RawBatch
from udfs.core.state.carry import carry
from udfs.core.state.header import StateHeader
from udfs.core.state.snapshot import Manifest, Snapshot, SnapshotReader


def build_state(
    pipeline: Pipeline,
    folder: Path,
    chunks: Iterable[Chunk],
    threads: int = 1,
    topic_prefix: str = "",
    until: SnapshotReader | None = None,
) -> Snapshot:
    """Take records through a pipeline and return the state that they leave.

    Parameters
    ----------
    pipeline, folder : as declared, without a topic prefix, and the folder its files are relative to
    chunks : records of its topics in their order, see `backfill`; those of Kafka say where the job goes on
    threads : how many work at the same time
    topic_prefix : of the topics that the job reads
    until : take the records that this state has seen, and no others, so that the two are of the same ones

    Raises
    ------
    StateFormatError : records are to be taken `until` a state, and have no offsets.
    """
    effective = pipeline.with_topic_prefix(topic_prefix)
    header = StateHeader.of(effective, folder)
    logs: dict[tuple[str, int], dict[int, bytes]] = {}
    seen = _Seen(chunks, topic_prefix, until)
    for _ in Backfill(pipeline, folder, threads, logs=logs).run(seen):
        pass  # the rows are of no interest, only what they leave
    built = Snapshot(
        header,
        "backfill",
        {place: [log[number] for number in sorted(log)] for place, log in logs.items() if log},
        until.manifest.offsets if until is not None else seen.offsets,
        until.pending() if until is not None else (),
    )
    return replace(carry(built, header), created_by="backfill")


class _Seen:
    """The records to take; notes where they end."""

    def __init__(self, chunks: Iterable[Chunk], topic_prefix: str, until: SnapshotReader | None) -> None:
        self._chunks, self._prefix, self._until = chunks, topic_prefix, until
        #: topic -> partition -> offset behind the last record
        self.offsets: dict[str, dict[int, int]] = {}

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self._chunks:
            yield [self._part(part) for part in chunk]

    def _part(self, part: Part) -> Part:
        if not isinstance(part.batch, RawBatch):
            if self._until is not None:
                msg = f"{part.batch.topic}: its records have no offsets; only a history ends where another state does"
                raise StateFormatError(msg)
            return part
        topic = self._prefix + part.batch.topic
        kept = part if self._until is None else _before(self._until.manifest, topic, part.batch, part.positions)
        ends = self.offsets.setdefault(topic, {})
        for partition, offset in zip(part.batch.partitions, part.batch.offsets, strict=True):
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        return kept


def _before(manifest: Manifest, topic: str, batch: RawBatch, positions: NDArray[np.int64]) -> Part:
    """Return the records of a part that a state has seen."""
    ends, waiting = manifest.offsets.get(topic, {}), manifest.pending.get(topic, {})
    pending = {(partition, offset) for partition, offsets in waiting.items() for offset in offsets}
    places = zip(batch.partitions, batch.offsets, strict=True)
    kept = [i for i, place in enumerate(places) if place[1] < ends.get(place[0], 0) and place not in pending]
    return Part(batch.select(kept), positions[kept])
