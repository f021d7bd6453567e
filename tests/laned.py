"""A job of several lanes without Flink, one record at a time, that stops with a snapshot and starts from one."""

from collections.abc import Iterable
from typing import Any

from tests.samples import FLIGHTS, Sent, raw_batch
from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import Stage, plan_stages
from udfs.core.rows.batches import Piece
from udfs.core.rows.entities import add_entity
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.rows.lanes import lane_of, split_by_lane
from udfs.core.rows.letters import no_letters
from udfs.core.stage.duplicates import Duplicates
from udfs.core.stage.lane import Lane
from udfs.core.state.header import DUPLICATES, StateHeader, log_name
from udfs.core.state.snapshot import Snapshot

Row = dict[str, Any]


class LanedJob:
    """The featurize stages of a pipeline, each with its lanes.

    Parameters
    ----------
    pipeline : its `lanes` says how many
    snapshot : what it starts from
    limit_bytes : what each store of a lane may take in memory; 0: no limit
    """

    def __init__(self, pipeline: Pipeline, snapshot: Snapshot | None = None, limit_bytes: int = 0) -> None:
        self.pipeline, self.header = pipeline, StateHeader.of(pipeline, FLIGHTS)
        assert snapshot is None or snapshot.header == self.header
        self._found = snapshot.logs if snapshot is not None else {}
        self._ingests = ingest_of_topics(pipeline, FLIGHTS)
        self._keys = {one.topic: one.key for one in pipeline.enrichments}
        self.logs: dict[tuple[str, int], dict[int, bytes]] = {}
        #: (entity, lane) -> keys that are out of memory
        self.pages: dict[tuple[str, int], dict[str, bytes]] = {}
        self._duplicates = [
            Duplicates(pipeline, self._log(DUPLICATES, lane))
            for lane in range(pipeline.lanes)
            if pipeline.time.duplicates_within_ms
        ]
        self._stages = [
            (stage, [self._lane(stage, number, limit_bytes) for number in range(pipeline.lanes)])
            for stage in plan_stages(pipeline)
        ]
        #: id of an event -> its row, without stamps
        self.rows: dict[str, Row] = {}
        #: (topic, offset, kind) -> reason and detail
        self.letters: dict[tuple[str, int, str], tuple[str, str]] = {}
        #: (entity, lane, sequence number), as given out
        self.stamps: list[tuple[str, int, int]] = []

    def feed(self, sent: Iterable[Sent], first_offset: int = 0) -> "LanedJob":
        for offset, one in enumerate(sent, first_offset):
            piece = self._ingests[one.topic].process(raw_batch(one.topic, [one], offset))
            self._note(piece)
            if self._duplicates:
                piece = self._duplicates[lane_of(one.key, self.pipeline.lanes)].process(piece)
                self._note(piece)
            self._through(piece, 0)
        return self

    def _through(self, piece: Piece, number: int) -> None:
        """Take a piece through a stage and all behind it, lane by lane."""
        if number == len(self._stages):
            for row in piece.rows.to_pylist():
                for place in [name.removeprefix("_lane_") for name in row if name.startswith("_lane_")]:
                    stamp = (place, row.pop(f"_lane_{place}"), row.pop(f"_seq_{place}"))
                    self.stamps += [stamp] if place in self.header.entities else []
                self.rows[row["id"]] = row
            return
        stage, lanes = self._stages[number]
        key, rows = self._keys.get(piece.topic), piece.rows
        if key is None:
            rows = add_entity(rows, stage.entity, stage.fields)
        for lane, part in split_by_lane(Piece(piece.topic, rows, no_letters()), key or stage.entity, len(lanes)):
            done = lanes[lane].process(part)
            self._note(done)
            self._through(done, number + 1)

    def snapshot(self) -> Snapshot:
        """Return its state as an export has it: behind each log the pages, which say all of a key."""
        logs = {place: [log[n] for n in sorted(log)] for place, log in self.logs.items() if log}
        for (entity, lane), pages in self.pages.items():
            logs.setdefault((log_name(entity), lane), []).extend(pages[name] for name in sorted(pages))
        return Snapshot(self.header, "export", {place: log for place, log in logs.items() if log})

    def _lane(self, stage: Stage, number: int, limit_bytes: int) -> Lane:
        log = self._log(log_name(stage.entity), number)
        pages = self.pages.setdefault((stage.entity, number), {}) if limit_bytes else None
        return Lane(self.pipeline, stage, number, log, pages, limit_bytes)

    def _log(self, name: str, lane: int) -> dict[int, bytes]:
        return self.logs.setdefault((name, lane), dict(enumerate(self._found.get((name, lane), ()))))

    def _note(self, piece: Piece) -> None:
        for one in piece.letters.to_pylist():
            self.letters[one["topic"], one["offset"], one["kind"]] = (one["reason"], one["detail"])
