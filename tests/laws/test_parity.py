"""Parity: a job of several lanes, whatever order its batches took, is computed again from its stamps, bit for bit."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flink_jobs.logged import LoggedError, LogReader, read_archive
from scripts.kafka.consume import Record
from tests.samples import (
    EVENTS,
    FLIGHTS,
    RATE_JOIN,
    RATES,
    Sent,
    payment,
    random_payments,
    raw_batch,
    small_pipeline,
    with_rates,
)
from udfs.core.offline.archive import ArchiveKind, archive_schema
from udfs.core.offline.follow import Follower, sampled
from udfs.core.offline.parity import Logged, Observed, Origin, as_columns, check_parity
from udfs.core.plan.features import feature_columns, plan_stages
from udfs.core.rows.batches import RawBatch, lane_column, seq_column
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.rows.lanes import split_by_lane
from udfs.core.stage.lane import Lane

LANES = 3
PIPELINE = small_pipeline(enrichments=[RATE_JOIN], lanes=LANES)
FEATURES = feature_columns(PIPELINE)
KEYS = {EVENTS: "user", RATES: "shop"}


def batches(sent: list[Sent], chance: random.Random) -> Iterator[RawBatch]:
    """Cut the records of each topic into batches, and mix the topics."""
    left = {topic: [one for one in sent if one.topic == topic] for topic in (EVENTS, RATES)}
    offsets = dict.fromkeys(left, 0)
    while any(left.values()):
        topic = chance.choice([topic for topic in left if left[topic]])
        size = chance.randrange(1, 9)
        yield raw_batch(topic, left[topic][:size], offsets[topic])
        offsets[topic] += len(left[topic][:size])
        del left[topic][:size]


def job(inputs: list[RawBatch], chance: random.Random, overtaking: float = 0.3) -> dict[Origin, Observed]:
    """Run the stages as a job does: a piece goes to its lane when it comes, late or soon."""
    ingests = ingest_of_topics(PIPELINE, FLIGHTS)
    waiting = [ingests[raw.topic].process(raw) for raw in inputs]
    observed: dict[Origin, Observed] = {}
    for stage in plan_stages(PIPELINE):
        lanes = [Lane(PIPELINE, stage, number, {}) for number in range(LANES)]
        shares = [
            (lane, share)
            for piece in waiting
            for lane, share in split_by_lane(piece, stage.entity if piece.topic == EVENTS else KEYS[piece.topic], LANES)
        ]
        for i in range(len(shares) - 1):  # neighbours overtake each other
            if chance.random() < overtaking:
                shares[i], shares[i + 1] = shares[i + 1], shares[i]
        waiting = [lanes[lane].process(share) for lane, share in shares]
    for piece in waiting:
        for letter in piece.letters.to_pylist():
            order = {entity: (lane, seq) for entity, (lane, seq) in json.loads(letter["order"]).items()}
            observed[Origin(letter["topic"], letter["partition"], letter["offset"])] = Observed(order, None)
        for row in piece.rows.to_pylist() if piece.topic == EVENTS else []:
            order = {one: (row[lane_column(one)], row[seq_column(one)]) for one in ("user", "shop")}
            features = {name: row[name] for name in FEATURES}
            observed[Origin(EVENTS, row["_partition"], row["_offset"])] = Observed(order, features)
    return observed


def ran(seed: int, count: int = 40) -> tuple[list[RawBatch], dict[Origin, Observed]]:
    chance = random.Random(seed)
    inputs = list(batches(with_rates(random_payments(seed, count), seed), chance))
    return inputs, job(inputs, chance)


def test_features_are_there() -> None:
    assert len(FEATURES) > 8
    _, observed = ran(1)
    late = [seen for origin, seen in observed.items() if seen.features is None and origin.topic == EVENTS]
    assert len(late) > 1


@given(st.integers(0, 10**6))
def test_what_a_job_logged_is_computed_again_whatever_order_it_took(seed: int) -> None:
    inputs, observed = ran(seed)
    report = check_parity(PIPELINE, FLIGHTS, inputs, observed)
    predicted = sum(seen.features is not None for seen in observed.values())
    assert (report.rows, report.mismatches, report.missing, report.gaps) == (predicted, 0, 0, 0), report.examples
    assert all((one.equal, one.different, one.missing) == (predicted, 0, 0) for one in report.features.values())


def changed(observed: dict[Origin, Observed], origin: Origin, **features: float | None) -> dict[Origin, Observed]:
    seen = observed[origin]
    return observed | {origin: Observed(seen.order, {**(seen.features or {}), **features})}


def first(observed: dict[Origin, Observed]) -> Origin:
    return next(origin for origin, seen in observed.items() if seen.features is not None)


def test_one_bit_a_null_and_a_strange_row_are_found() -> None:
    inputs, observed = ran(2)
    origin = first(observed)
    right = (observed[origin].features or {})["user_count_4s"]
    assert right is not None
    found = [
        check_parity(PIPELINE, FLIGHTS, inputs, changed(observed, origin, user_count_4s=wrong))
        for wrong in (math.nextafter(right, math.inf), None)
    ]
    assert [(one.mismatches, one.by_feature) for one in found] == [(1, {"user_count_4s": 1})] * 2
    assert f"user_count_4s: live nan, offline {right!r}" in found[1].examples[0]
    stranger = observed | {Origin(EVENTS, 0, 999): observed[origin]}
    report = check_parity(PIPELINE, FLIGHTS, inputs, stranger)
    assert (report.missing, report.mismatches) == (1, 1)
    assert report.features["user_count_4s"].missing == 1


def test_a_row_that_was_not_logged_is_a_gap() -> None:
    inputs, observed = ran(3)
    lost = {origin: seen for origin, seen in observed.items() if origin != first(observed)}
    assert check_parity(PIPELINE, FLIGHTS, inputs, lost).gaps == 2  # one in each stage


def test_features_that_were_not_logged_are_missing() -> None:
    inputs, observed = ran(4)
    logged = as_columns(PIPELINE, observed)
    bare = Logged(logged.stamps, logged.predictions.drop_columns(["user_count_4s"]))
    report = check_parity(PIPELINE, FLIGHTS, inputs, bare)
    one = report.features["user_count_4s"]
    assert (one.equal, one.different, one.missing) == (0, 0, report.rows)


def prediction(offset: int, feature_set: str, features: dict[str, Any] | None) -> Record:
    origin = {"topic": "test.shop.payments", "partition": 1, "offset": offset, "timestamp_ms": 5}
    value = {
        "event_id": "p",
        "event_time_ms": 1,
        "score": 0.5,
        "model": {},
        "arm": "champion",
        "feature_set": feature_set,
    }
    value |= {"origin": origin, "order": {"user": [2, 7], "shop": [0, 9]}, "features": features}
    return Record("test.shop.predictions", 0, 3, 9, b"p", json.dumps(value).encode(), ())


def test_records_of_the_output_topics_become_columns() -> None:
    headers = (("headrace.topic", b"test.shop.rates"), ("headrace.partition", b"0"), ("headrace.offset", b"4"))
    kept = Record("test.shop.order", 0, 0, 9, None, b"", (*headers, ("headrace.order", b'{"shop":[1,3]}')))
    reader = LogReader(PIPELINE, "f", "test.")
    read = reader.read([prediction(6, "f", {"user_count_4s": 2.0, "rate": None}), prediction(7, "g", {}), kept])
    assert read.others == 1
    assert read.logged.stamps.to_pylist() == [
        {"topic": EVENTS, "partition": 1, "offset": 6, "lane_user": 2, "seq_user": 7, "lane_shop": 0, "seq_shop": 9},
        {"topic": EVENTS, "partition": 1, "offset": 7, "lane_user": 2, "seq_user": 7, "lane_shop": 0, "seq_shop": 9},
        {
            "topic": RATES,
            "partition": 0,
            "offset": 4,
            "lane_user": None,
            "seq_user": None,
            "lane_shop": 1,
            "seq_shop": 3,
        },
    ]
    assert read.logged.predictions.to_pylist() == [{"partition": 1, "offset": 6, "user_count_4s": 2.0}]
    assert read.logged.predictions.schema.field("user_count_4s").type == pa.float64()
    with pytest.raises(LoggedError, match=r"test\.shop\.order at offset 0: headers are no letter's"):
        reader.read([Record("test.shop.order", 0, 0, 9, None, b"", headers)])
    with pytest.raises(LoggedError, match=r"test\.shop\.predictions at offset 3: is no prediction"):
        reader.read([Record("test.shop.predictions", 0, 3, 9, b"p", b'{"event_id":1}', ())])


def rows_of(inputs: list[RawBatch]) -> dict[int, dict[str, Any]]:
    """Offset of each event -> its row."""
    return {
        offset: json.loads(value or b"")
        for raw in inputs
        if raw.topic == EVENTS
        for offset, value in zip(raw.offsets, raw.values, strict=True)
    }


def followed(
    inputs: list[RawBatch], observed: dict[Origin, Observed], chance: random.Random, share: float = 1.0
) -> Follower:
    """Follow a job whose outputs come in parts, in another order than its inputs, some before them."""
    follower = Follower(PIPELINE, FLIGHTS, share)
    origins = list(observed)
    chance.shuffle(origins)
    parts = [origins[start : start + 13] for start in range(0, len(origins), 13)]
    left: list[RawBatch | list[Origin]] = [*inputs]
    for part in parts:
        left.insert(chance.randrange(len(left) + 1), part)
    for one in left:
        if isinstance(one, RawBatch):
            follower.add_inputs(one)
        else:
            follower.add_logged(as_columns(PIPELINE, {origin: observed[origin] for origin in one}))
        follower.advance(is_settled=False)
    return follower


@given(st.integers(0, 10**6))
def test_a_running_job_is_followed_in_the_order_of_its_stamps(seed: int) -> None:
    inputs, observed = ran(seed)
    follower = followed(inputs, observed, random.Random(seed))
    assert follower.waiting == 0
    for entity in ("user", "shop"):
        have_key = {Origin(EVENTS, 0, offset) for offset, row in rows_of(inputs).items() if row[entity] is not None}
        predicted = sum(seen.features is not None and origin in have_key for origin, seen in observed.items())
        found = {name: one for name, one in follower.features.items() if name.startswith(entity)}
        assert {(one.equal, one.different, one.missing) for one in found.values()} == {(predicted, 0, 0)}
    assert not follower.examples


def test_a_sample_holds_whole_keys_and_finds_what_differs_in_them() -> None:
    inputs, observed = ran(6, 80)
    users = {Origin(EVENTS, 0, offset): row["user"] for offset, row in rows_of(inputs).items()}
    share = 0.5
    mine = {user for user in set(users.values()) - {None} if sampled(pa.array([user]), share)[0].as_py()}
    assert 0 < len(mine) < 4
    rows = [origin for origin, seen in observed.items() if seen.features is not None and users[origin] in mine]
    follower = followed(inputs, changed(observed, rows[3], user_count_4s=99.0), random.Random(1), share)
    one = follower.features["user_count_4s"]
    assert (one.equal, one.different, one.missing) == (len(rows) - 1, 1, 0)
    assert "user_count_4s: live 99.0, offline" in follower.examples[0]


def test_where_the_beginning_is_lost_rows_are_compared_once_their_windows_are_whole() -> None:
    """The longest window is 6 s; nothing says of the first rows where they stood."""
    sent = [payment(i, 1_000 * i, "u0", shop="s0", amount=1.0, units=1) for i in range(60)]
    chance = random.Random(1)
    inputs = list(batches(sent, chance))
    observed = {origin: seen for origin, seen in job(inputs, chance, overtaking=0).items() if origin.offset >= 20}
    follower = Follower(PIPELINE, FLIGHTS, 1.0)
    for raw in inputs:
        follower.add_inputs(raw)
    follower.add_logged(as_columns(PIPELINE, observed))
    follower.advance(is_settled=False)
    assert follower.waiting == 40
    for _ in range(5):
        follower.advance(is_settled=True)
    one = follower.features["user_units_max_6s"]
    assert follower.waiting == 0
    assert one.different == one.missing == 0
    assert one.equal == 30  # from 20 s + 6 s + a tile of 2 s + 1.5 s of lateness on


def archived(root: Path, kind: ArchiveKind, rows: list[dict[str, Any]]) -> None:
    """Write rows of an archive as the archive job does."""
    folder = root / PIPELINE.name / kind / "day=2026-01-31"
    folder.mkdir(parents=True)
    record = {"record_partition": 0, "record_offset": 0, "record_timestamp_ms": 0}
    pq.write_table(
        pa.Table.from_pylist([record | row for row in rows], archive_schema(PIPELINE, kind)), folder / "part-0"
    )


def test_an_archive_says_the_same_as_the_topics(tmp_path: Path) -> None:
    inputs, observed = ran(5)
    predictions, letters = [], []
    for origin, seen in observed.items():
        place = {"origin_topic": f"test.{origin.topic}", "origin_partition": 0, "origin_offset": origin.offset}
        if seen.features is None:
            letters.append(place | {"stamps": json.dumps(seen.order)})
        else:
            stamps = {
                f"{what}_{one}": seen.order[one][i] for one in seen.order for i, what in enumerate(("lane", "seq"))
            }
            predictions.append(place | stamps | {"feature_set": "f"} | seen.features)
    archived(tmp_path, "predictions", [*predictions, predictions[0] | {"feature_set": "older"}])
    archived(tmp_path, "late", letters)
    read = read_archive(PIPELINE, str(tmp_path), "test.", "f")
    assert read.others == 1
    report = check_parity(PIPELINE, FLIGHTS, inputs, read.logged)
    assert (report.rows, report.mismatches, report.gaps) == (len(predictions), 0, 0)
