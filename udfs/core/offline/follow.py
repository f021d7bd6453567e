"""Continuous parity: the features of a share of the keys are computed again beside a running job, and compared.

Records of the job's inputs and outputs come as they are read, in any order between topics. A row is computed again when
every row before it in its lane is known, and only if its key is sampled: state and work are that share of the job's.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.core.declare.definition import Pipeline
from udfs.core.offline.parity import (
    MOST_EXAMPLES,
    OFFSET_MASK,
    PARTITION_BITS,
    FeatureParity,
    Logged,
    codes,
    compare,
    find,
)
from udfs.core.plan.features import Stage, feature_columns, plan_stages
from udfs.core.plan.tracks import Cut
from udfs.core.rows.batches import OFFSET, PARTITION, VALUE, Piece, RawBatch, join_batches
from udfs.core.rows.entities import add_entity
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.rows.letters import no_letters
from udfs.core.stage.lane import Lane, Places

I64 = NDArray[np.int64]
_CRC_END = 1 << 32
#: a place that is missing so often, with all outputs read, will not come: its topic has lost it
_MOST_WAITS = 3
#: where events may wait for an enrichment, it must also be missing for twice as long as they may, and this
_MARGIN_S = 60.0


def sampled(keys: pa.StringArray, share: float) -> pa.BooleanArray:
    """Return which keys are in a sample, bool[n]: the same keys at all times; null never is.

    Examples
    --------
    >>> sampled(pa.array(["JFK", "LGA", "EWR", None]), 0.5).to_pylist()
    [False, True, False, False]
    """
    encoded = keys.dictionary_encode()
    chosen = [zlib.crc32(word.encode()) < share * _CRC_END for word in encoded.dictionary.to_pylist()]
    return pa.array([*chosen, False], pa.bool_()).take(encoded.indices.fill_null(len(chosen)))


@dataclass(slots=True)
class _Place:
    """How far one lane of a stage has come."""

    lane: Lane
    next_seq: int = 0
    #: how often the next row was missing, and since when
    waits: int = 0
    missing_since_s: float = 0.0
    #: whether rows were lost: windows without an end are not compared any more
    is_partial: bool = False
    #: event time from which windows hold no lost row again; None: known with the next row
    whole_from_ms: int | None = -(2**63)
    #: rows that the lane holds back: place in the source topic -> whether their windows are whole
    held: dict[int, bool] = field(default_factory=dict)

    def hold_back(self, passed: I64, at: I64, is_whole: NDArray[np.bool_]) -> tuple[I64, I64]:
        """Return the places that are passed, and those whose rows can be compared.

        They are without the rows that the lane holds back now, and with those that it has let go.

        Parameters
        ----------
        passed : the places that have come
        at, is_whole : those of sampled rows, and whether their windows are whole
        """
        if self.lane.waiting is None:
            return passed, at[is_whole]
        parts = self.lane.waiting.held.parts
        now = {code for part in parts for code in codes(part[PARTITION], part[OFFSET]).tolist()}
        came = dict(zip(at.tolist(), is_whole.tolist(), strict=True))
        gone = {code: whole for code, whole in self.held.items() if code not in now}
        self.held = {code: whole for code, whole in (self.held | came).items() if code in now}
        done = [code for code in passed.tolist() if code not in now]
        compared = [code for code, whole in (came | gone).items() if whole and code not in now]
        return np.array([*done, *gone], np.int64), np.array(compared, np.int64)


class Follower:
    """Compares while a job runs.

    Parameters
    ----------
    pipeline, folder : the definition, without topic prefix, and the folder its files are relative to
    share : of the keys of each entity, above 0 and up to 1
    """

    def __init__(self, pipeline: Pipeline, folder: Path, share: float) -> None:
        self._share, self._source = share, pipeline.source.topic
        self._ingests = ingest_of_topics(pipeline, folder)
        self._stages = [
            _StageFollower(pipeline, stage, is_first=i == 0) for i, stage in enumerate(plan_stages(pipeline))
        ]
        #: (topic, partition) -> offset up to which inputs were read
        self._read: dict[tuple[str, int], int] = {}
        #: place in the source topic -> logged features, and the stages that have not compared them
        self._predicted: dict[int, dict[str, float | None]] = {}
        self._open: dict[int, int] = {}
        #: per feature
        self.features = {name: FeatureParity() for name in feature_columns(pipeline)}
        #: rows that differ, each in every stage that it differs in
        self.mismatches = 0
        #: predictions of other feature sets, which are not compared
        self.others = 0
        #: a few differences, for people
        self.examples: list[str] = []
        for topic in self._ingests:
            self.add_inputs(RawBatch(topic, [], [], [], [], []))

    @property
    def waiting(self) -> int:
        """How many rows wait for others before them, most of any stage."""
        return max(stage.waiting for stage in self._stages)

    def add_inputs(self, raw: RawBatch) -> None:
        """Take records of an input topic, in the order of each partition."""
        rows = self._ingests[raw.topic].process(raw).rows
        for stage in self._stages:
            stage.add_rows(raw.topic, rows, self._share)
        for partition, offset in zip(raw.partitions, raw.offsets, strict=True):
            self._read[raw.topic, partition] = offset + 1

    def add_logged(self, logged: Logged) -> None:
        """Take what the job said of records, each once."""
        for stage in self._stages:
            stage.add_stamps(logged.stamps)
        names = [name for name in logged.predictions.column_names if name not in ("partition", "offset")]
        at = codes(logged.predictions["partition"], logged.predictions["offset"])
        for code, features in zip(at.tolist(), logged.predictions.select(names).to_pylist(), strict=True):
            self._predicted[code], self._open[code] = features, len(self._stages)

    def advance(self, *, is_settled: bool, now_s: float = 0.0) -> None:
        """Compute and compare as far as possible.

        Parameters
        ----------
        is_settled : all outputs that were written by now were added
        now_s : time of a clock that never goes back
        """
        for stage in self._stages:
            for step in stage.advance(self._read, is_settled=is_settled, now_s=now_s):
                self._compare(step)
                for code in step.passed.tolist():
                    self._open[code] = self._open.get(code, 0) - 1
                    if self._open[code] <= 0:
                        del self._open[code]
                        self._predicted.pop(code, None)

    def _compare(self, step: "_Step") -> None:
        at = [code for code in step.compared.tolist() if code in self._predicted]
        if not at:
            return
        columns = {
            "partition": pa.array([code >> PARTITION_BITS for code in at], pa.int64()),
            "offset": pa.array([code & OFFSET_MASK for code in at], pa.int64()),
        }
        logged = [self._predicted[code] for code in at]
        columns |= {
            name: pa.array([one[name] for one in logged], pa.float64())
            for name in step.names
            if all(name in one for one in logged)
        }
        report = compare(self._source, step.names, step.rows, pa.table(columns))
        for name, one in report.features.items():
            total = self.features[name]
            total.equal += one.equal
            total.different += one.different
            total.missing += one.missing
        self.mismatches += report.mismatches
        self.examples = (self.examples + report.examples)[:MOST_EXAMPLES]


@dataclass(frozen=True, slots=True)
class _Step:
    """What one lane of a stage has computed."""

    #: places in the source topic that the lane is beyond
    passed: I64
    #: those of sampled rows whose windows are whole
    compared: I64
    #: sampled rows with their columns
    rows: pa.RecordBatch
    #: features to compare
    names: tuple[str, ...]


class _StageFollower:
    """One stage: sampled rows that wait for their places, places that wait for those before them, and the lanes."""

    def __init__(self, pipeline: Pipeline, stage: Stage, *, is_first: bool) -> None:
        self._pipeline, self._stage = pipeline, stage
        source, joins = pipeline.source.topic, stage.enrichments
        #: topic -> field that the stage is keyed by, the source first
        self._keys = {source: stage.entity} | {one.topic: one.key for one in joins}
        self._rows: dict[str, list[pa.RecordBatch]] = {topic: [] for topic in self._keys}
        self._nothing: dict[str, pa.RecordBatch] = {}
        self._waits = [join.place for join in joins if join.wait_ms]
        longest_ms = max((join.wait_ms for join in joins), default=0)
        self._patience_s = 2 * longest_ms / 1000 + _MARGIN_S if longest_ms else 0.0
        #: int64[4 + waits, n]: lane, sequence number, topic and place of rows not yet computed again, and the numbers
        #: that their waits are stamped with
        self._stamps = np.zeros((4 + len(self._waits), 0), np.int64)
        self._places: dict[int, _Place] = {}
        wanted = set(feature_columns(pipeline))
        own = [feature.name for feature in stage.features] + [name for one in joins for name in one.take]
        if is_first:
            others = {feature.name for one in plan_stages(pipeline) for feature in one.features}
            others |= {name for one in pipeline.enrichments for name in one.take}
            own += [name for name in feature_columns(pipeline) if name not in others]
        self._names = tuple(name for name in own if name in wanted)
        endless = {one.name for one in stage.features if (cut := Cut.of(one)).family != "tiles" or not cut.tile_ms}
        self._bounded_names = tuple(name for name in self._names if name not in endless)
        tile_ms = max((track.cut.tile_ms for track in stage.tracks), default=0)
        #: how far behind a row others may lie that its features depend on
        self._reach_ms = max([stage.longest_ms + tile_ms, *(one.max_age_ms for one in joins)])
        self._reach_ms += pipeline.time.allowed_lateness_ms

    @property
    def waiting(self) -> int:
        """How many rows wait for others before them."""
        return int(self._stamps.shape[1])

    def add_rows(self, topic: str, rows: pa.RecordBatch, share: float) -> None:
        """Keep the sampled rows of a topic, if the stage reads it."""
        if topic not in self._keys:
            return
        if topic == self._pipeline.source.topic:
            rows = add_entity(rows, self._stage.entity, self._stage.fields)
        rows = rows.drop_columns([VALUE]).append_column(VALUE, pa.repeat(b"", rows.num_rows))
        mine = rows.filter(sampled(rows[self._keys[topic]], share))
        self._nothing.setdefault(topic, mine.slice(0, 0))
        if mine.num_rows:
            self._rows[topic].append(mine)

    def add_stamps(self, stamps: pa.Table) -> None:
        """Take places in the lanes; rows that the stage has not seen are forgotten."""
        for number, topic in enumerate(self._keys):
            mine = stamps.filter(pc.equal(stamps["topic"], topic))
            names = [f"lane_{self._stage.entity}", *(f"seq_{one}" for one in (self._stage.entity, *self._waits))]
            at, seen = codes(mine["partition"], mine["offset"]), mine[names[0]].is_valid().to_numpy()
            self._drop(topic, at[~seen])
            lane, seq, *waits = (pc.fill_null(mine[one], -1).to_numpy().astype(np.int64)[seen] for one in names)
            added = [lane, seq, np.full(int(seen.sum()), number), at[seen], *waits]
            self._stamps = np.concatenate([self._stamps, np.array(added)], axis=1)

    def advance(self, read: dict[tuple[str, int], int], *, is_settled: bool, now_s: float) -> list[_Step]:
        """Compute what can be; see `Follower.advance`."""
        order = np.lexsort((self._stamps[1], self._stamps[0]))
        stamps = self._stamps[:, order]
        keep = np.ones(stamps.shape[1], np.bool_)
        steps = []
        for number in np.unique(stamps[0]).tolist():
            if number not in self._places:
                self._places[number] = _Place(Lane(self._pipeline, self._stage, number, None))
            place = self._places[number]
            mine = np.flatnonzero(stamps[0] == number)
            mine = mine[: self._known(stamps[:, mine], read)]
            keep[mine[stamps[1, mine] < place.next_seq]] = False  # written twice
            mine = mine[stamps[1, mine] >= place.next_seq]
            mine = mine[np.append(np.ones(min(1, mine.size), np.bool_), np.diff(stamps[1, mine]) > 0)]
            ready = mine[stamps[1, mine] == place.next_seq + np.arange(mine.size)]
            if mine.size and not ready.size and is_settled:
                place.missing_since_s = place.missing_since_s if place.waits else now_s
                place.waits += 1
                if place.waits >= _MOST_WAITS and now_s - place.missing_since_s >= self._patience_s:
                    place.next_seq, place.is_partial, place.whole_from_ms = int(stamps[1, mine[0]]), True, None
            if ready.size:
                keep[ready] = False
                place.waits = 0
                place.next_seq += ready.size
                steps.append(self._step(place, stamps[:, ready]))
        self._stamps = stamps[:, keep]
        return steps

    def _known(self, stamps: NDArray[np.int64], read: dict[tuple[str, int], int]) -> int:
        """Return how many rows, from the first on, stand in inputs that were read."""
        names = list(self._keys)
        partitions, offsets = stamps[3] >> PARTITION_BITS, stamps[3] & OFFSET_MASK
        known = np.zeros(stamps.shape[1], np.bool_)
        for topic, partition in {*zip(stamps[2].tolist(), partitions.tolist(), strict=True)}:
            here = (stamps[2] == topic) & (partitions == partition)
            known |= here & (offsets < read.get((names[topic], partition), 0))
        return int(np.argmin(np.append(known, False)))

    def _step(self, place: _Place, stamps: NDArray[np.int64]) -> _Step:
        """Compute the sampled ones of rows that follow one another in a lane."""
        pieces, stood = {}, []
        for number, topic in enumerate(self._keys):
            mine = stamps[:, stamps[2] == number]
            rows = self._taken(topic, mine[3])
            pieces[topic] = Piece(topic, rows, no_letters())
            stood.append(mine[:, find(codes(rows[PARTITION], rows[OFFSET]), mine[3]) >= 0])
        source, contract = pieces[self._pipeline.source.topic], self._pipeline.contract
        times_ms = source.rows[contract.time].to_numpy()
        if place.whole_from_ms is None and times_ms.size:
            place.whole_from_ms = int(times_ms[0]) + self._reach_ms
        is_whole = times_ms >= (place.whole_from_ms if place.whole_from_ms is not None else np.iinfo(np.int64).max)
        topics = np.repeat(np.arange(len(stood), dtype=np.int8), [one.shape[1] for one in stood])
        numbers = np.concatenate([one[1] for one in stood])
        order = np.argsort(numbers, kind="stable")
        told = {name: stood[0][4 + i] for i, name in enumerate(self._waits)}
        places = Places(numbers[order], place.next_seq, told) if self._waits else None
        done = place.lane.process_interleaved(pieces, topics[order], places=places)[source.topic].rows
        at = codes(source.rows[PARTITION], source.rows[OFFSET])
        passed, compared = place.hold_back(stamps[3][stamps[2] == 0], at, is_whole)
        return _Step(passed, compared, done, self._bounded_names if place.is_partial else self._names)

    def _taken(self, topic: str, wanted: I64) -> pa.RecordBatch:
        """Return the sampled rows at some places, in their order, and forget them."""
        held = join_batches(self._rows[topic] or [self._nothing[topic]])
        at = find(codes(held[PARTITION], held[OFFSET]), wanted)
        taken = held.take(pa.array(at[at >= 0]))
        self._drop(topic, wanted)
        return taken

    def _drop(self, topic: str, unwanted: I64) -> None:
        if not self._rows[topic] or not unwanted.size:
            return
        held = join_batches(self._rows[topic])
        kept = held.filter(pa.array(find(unwanted, codes(held[PARTITION], held[OFFSET])) < 0))
        self._rows[topic] = [kept] if kept.num_rows else []
