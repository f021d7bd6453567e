"""The engine of backfills: chunks, threads and lanes never show in what comes out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import (
    EVENTS,
    FLIGHTS,
    RATE_JOIN,
    Sent,
    cut,
    payment,
    random_payments,
    raw_batch,
    small_pipeline,
    with_rates,
)
from udfs.core.declare.definition import Pipeline
from udfs.core.offline.backfill import Backfill, Chunk, Featurized, Part
from udfs.core.plan.features import plan_stages
from udfs.core.rows.batches import Piece, RawBatch
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.rows.lanes import lane_of
from udfs.core.rows.letters import no_letters
from udfs.core.stage.lane import Lane

PIPELINE = small_pipeline(enrichments=[RATE_JOIN])


def in_chunks(sent: list[Sent], size: int) -> Iterator[Chunk]:
    for start in range(0, len(sent), size):
        records = sent[start : start + size]
        chunk = []
        for topic in dict.fromkeys(one.topic for one in records):
            places = [i for i, one in enumerate(records) if one.topic == topic]
            raw = raw_batch(topic, [records[i] for i in places])
            offsets = [start + i for i in places]
            chunk.append(
                Part(
                    RawBatch(topic, raw.values, raw.keys, raw.partitions, offsets, raw.timestamps_ms), np.array(places)
                )
            )
        yield chunk


def together(done: list[Featurized]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows = pa.Table.from_batches([one.rows for one in done]).to_pylist()
    letters = pa.Table.from_batches([one.letters for one in done]).to_pylist()
    return rows, sorted(letters, key=lambda letter: (letter["topic"], letter["offset"]))


def one_by_one(pipeline: Pipeline, sent: list[Sent]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The oracle: the records go one run after the other through ingest and the stages, as in a job with one lane."""
    ingests = ingest_of_topics(pipeline, FLIGHTS)
    lanes = [Lane(pipeline, stage, 0, {}) for stage in plan_stages(pipeline)]
    rows: list[dict[str, Any]] = []
    letters: list[dict[str, Any]] = []
    for batch in cut(sent):
        piece = ingests[batch.topic].process(batch)
        for lane in lanes:
            piece = lane.process(piece)
        rows += piece.rows.to_pylist() if batch.topic == EVENTS else []
        letters += [letter for letter in piece.letters.to_pylist() if letter["kind"] != "order"]
    return rows, sorted(letters, key=lambda letter: (letter["topic"], letter["offset"]))


@given(st.integers(0, 10**6), st.integers(3, 50), st.integers(1, 4))
def test_chunks_and_threads_never_show(seed: int, size: int, threads: int) -> None:
    sent = with_rates(random_payments(seed, 40), seed)
    found = together(list(Backfill(PIPELINE, FLIGHTS, threads).run(in_chunks(sent, size))))
    assert found == one_by_one(PIPELINE, sent)


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_more_lanes_never_show_where_no_key_comes_back_from_beyond_the_horizon(seed: int, lanes: int) -> None:
    patient = small_pipeline(
        enrichments=[RATE_JOIN],
        time={"allowed_lateness": "1500ms", "future_tolerance": "1d", "forget_idle_after": "30d"},
    )
    sent = with_rates(random_payments(seed, 40), seed)

    def unstamped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if not k.startswith(("_lane", "_seq"))} for row in rows]

    rows, letters = together(list(Backfill(patient, FLIGHTS, 2, lanes).run(in_chunks(sent, 31))))
    wanted, wanted_letters = one_by_one(patient, sent)
    assert unstamped(rows) == unstamped(wanted)
    places = [(letter["topic"], letter["offset"], letter["reason"]) for letter in letters]
    assert places == [(letter["topic"], letter["offset"], letter["reason"]) for letter in wanted_letters]


def test_lanes_of_the_pipeline_are_those_of_the_job() -> None:
    sent = [payment(i, 1_000 * i, f"u{i % 5}", shop="s", amount=1.0) for i in range(20)]
    rows, _ = together(list(Backfill(small_pipeline(lanes=3), FLIGHTS).run(in_chunks(sent, 7))))
    assert all(row["_lane_user"] == lane_of(row["user"], 3) for row in rows)
    assert {row["_lane_user"] for row in rows} == {0, 1, 2}
    assert [row["id"] for row in rows] == [one.row["id"] for one in sent]


def test_rows_that_are_decoded_already_give_the_same_as_their_bytes() -> None:
    sent = with_rates(random_payments(3, 100), 3)
    ingests = ingest_of_topics(PIPELINE, FLIGHTS)
    decoded = [
        [
            Part(ingests[part.batch.topic].decode(part.batch), part.positions)
            for part in chunk
            if isinstance(part.batch, RawBatch)
        ]
        for chunk in in_chunks(sent, 40)
    ]
    assert together(list(Backfill(PIPELINE, FLIGHTS).run(decoded))) == one_by_one(PIPELINE, sent)


def test_records_are_counted_and_keep_their_offsets_where_some_are_refused() -> None:
    raw = raw_batch(EVENTS, [payment(i, 1_000 * i, "u") for i in range(3)], first_offset=70)
    bad = RawBatch(
        EVENTS, [raw.values[0], b"{", raw.values[2]], raw.keys, raw.partitions, raw.offsets, raw.timestamps_ms
    )
    (done,) = Backfill(PIPELINE, FLIGHTS).run([[Part(bad, np.arange(3))]])
    assert done.records == {EVENTS: 3}
    assert done.rows["_offset"].to_pylist() == [70, 72]
    assert done.letters["offset"].to_pylist() == [71]


def test_repeated_ids_are_refused_if_the_pipeline_looks_at_them() -> None:
    careful = small_pipeline(time={"duplicates_within": "1d"})
    sent = [payment(1, 1_000, "u"), payment(2, 2_000, "u"), payment(1, 1_000, "u")]
    rows, letters = together(list(Backfill(careful, FLIGHTS).run(in_chunks(sent, 2))))
    assert [row["id"] for row in rows] == ["p1", "p2"]
    assert [(letter["offset"], letter["reason"]) for letter in letters] == [(2, "duplicate")]


def test_what_is_raised_on_a_thread_ends_the_run(tmp_path: Path) -> None:
    def chunks() -> Iterator[Chunk]:
        nothing = pa.RecordBatch.from_pydict({"id": ["no other column"]})
        yield [Part(Piece(EVENTS, nothing, no_letters()), np.arange(1))]

    with pytest.raises(KeyError):
        list(Backfill(PIPELINE, tmp_path, 2).run(chunks()))
