"""Two days of flights with poison through the scoring job: each record ends once, as it should, exact to the bit."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from redis import Redis

from scripts.flights.poison import Ledger
from scripts.flights.replay import replay
from scripts.kafka.batches import raw_batch
from scripts.kafka.consume import Record
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.flights import RAISING, departures, flights_folder, weather
from tests.flink.models import GUARD_LIMIT
from tests.flink.names import fresh_prefix
from tests.flink.scoring import (
    Outputs,
    Scoring,
    assert_each_once,
    assert_gapless,
    header,
    origin_of,
    scoring,
)
from udfs.core.model.scorer import ModelContract, Scorer, feature_matrix
from udfs.core.offline.featurize import featurize_offline
from udfs.core.offline.parity import Origin
from udfs.core.plan.features import feature_columns, feature_set_hash, plan_stages
from udfs.core.rows.batches import OFFSET, PARTITION
from udfs.online.reader import OnlineStore


@dataclass(frozen=True, slots=True)
class Finished:
    """A run of the job from start to stop."""

    scoring: Scoring
    ledger: Ledger
    inputs: dict[str, list[Record]]
    outputs: Outputs
    restarts: int
    failures: list[str]
    #: rows that the offline path gives for the same records in the same order, by origin
    offline: dict[Origin, dict[str, Any]]


@pytest.fixture(scope="module")
def run(cluster: Cluster, services: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder, prefix = tmp_path_factory.mktemp("score"), fresh_prefix("score")
    setting = scoring(cluster, services, flights_folder(folder / "flights"), prefix, folder)
    job = setting.start()
    sky = weather(prefix)
    early = np.arange(len(sky)) < len(sky) // 2
    replay(sky.take(early), setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(int(early.sum()))
    sent, ledger = departures(prefix)
    replay(sent, setting.kafka, as_fast_as_possible=True)
    replay(sky.take(~early), setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(len(sky) + len(sent))
    restarts, failures = cluster.restarts(job), cluster.failures(job)
    cluster.stop(job)
    inputs, outputs = setting.inputs(), setting.outputs()
    return Finished(setting, ledger, inputs, outputs, restarts, failures, _offline(setting, inputs, outputs))


def _offline(setting: Scoring, inputs: dict[str, list[Record]], outputs: Outputs) -> dict[Origin, dict[str, Any]]:
    """Featurize and score offline, in the one order that the stamps of both streams allow."""
    source, sky = inputs.values()
    seq_of = {origin: seen.order["origin"][1] for origin, seen in outputs.observed.items() if "origin" in seen.order}
    # Records that never reached the stage that joins the weather stand where the next one stands that did.
    placed, place = [], float("inf")
    for record in reversed(source):
        place = seq_of.get(_origin(record), place)
        placed.append((place, 0, -record.offset, record))
    placed = [(place, 0, -number, record) for place, _, number, record in placed]
    placed += [(float(seq_of[_origin(record)]), 1, record.offset, record) for record in sky]
    placed.sort(key=lambda entry: entry[:3])
    batches = [
        raw_batch(topic, [entry[3] for entry in run])
        for topic, run in itertools.groupby(placed, key=lambda entry: entry[3].topic)
    ]
    rows = featurize_offline(setting.pipeline, setting.folder, batches).rows.combine_chunks().to_batches()[0]
    scorer = Scorer.load(setting.model)
    scores = scorer.score(feature_matrix(rows, scorer.contract.inputs))
    topic = setting.pipeline.source.topic
    return {
        Origin(topic, row[PARTITION], row[OFFSET]): row | {"score": score}
        for row, score in zip(rows.to_pylist(), scores, strict=True)
    }


def _origin(record: Record) -> Origin:
    return Origin(record.topic, record.partition, record.offset)


def _departures(run: Finished) -> Iterator[tuple[Origin, Record]]:
    return ((_origin(record), record) for record in run.inputs[run.scoring.pipeline.source.topic])


def test_bad_records_and_raising_user_code_never_restart_the_job(run: Finished) -> None:
    assert run.restarts == 0
    assert run.failures == []
    assert sum(header(letter, "reason") == "derive_failed" for letter in run.outputs.rejects) > 0


def test_every_record_ends_exactly_once_in_predictions_rejects_or_late(run: Finished) -> None:
    assert_each_once(run.inputs, run.outputs)
    assert_gapless(run.outputs)
    assert min(len(run.outputs.predictions), len(run.outputs.rejects), len(run.outputs.late)) > 0


def test_each_record_has_the_reason_that_the_ledger_expects(run: Finished) -> None:
    reasons = {origin_of(letter): header(letter, "reason") for letter in (*run.outputs.rejects, *run.outputs.late)}
    wrong = {}
    for origin, record in _departures(run):
        value = record.value or b""
        right = run.ledger.reasons_of(record.key, record.value)
        if f'"carrier":"{RAISING}"'.encode() in value and right in {(), ("late",)} and b"null" not in value:
            right = ("derive_failed",)
        elif not right and b'"departed_at_ms":null' in value:
            right = ("null_field",)
        elif not right and b'"dest":"HNL"' in value:
            right = ("score_failed",)
        if reasons.get(origin) not in (right or (None,)):
            wrong[origin] = (reasons.get(origin), right, value[:200])
    assert wrong == {}
    assert {header(letter, "reason") for letter in run.outputs.late} == {"late"}
    assert len(run.outputs.late) == 20
    assert set(reasons.values()) >= {"derive_failed", "null_field", "score_failed", "late", "tombstone", "future"}


def test_rejects_and_late_rows_carry_the_original_record_and_say_why(run: Finished) -> None:
    originals = dict(_departures(run))
    stages = {stage.entity for stage in plan_stages(run.scoring.pipeline)}
    names = ("stage", "reason", "detail", "topic", "partition", "offset", "timestamp_ms", "order")
    for letter in (*run.outputs.rejects, *run.outputs.late):
        original = originals[origin_of(letter)]
        assert (letter.key, letter.value) == (original.key, original.value)
        assert [name for name, _ in sorted(letter.headers)] == sorted(f"headrace.{name}" for name in names)
        assert int(header(letter, "timestamp_ms")) == original.timestamp_ms
        assert header(letter, "stage") in {"decode", "validate", "derive", "featurize-tailnum", "score"}
        stamped = set(run.outputs.observed[origin_of(letter)].order)
        passed = {"score": stages, "featurize-tailnum": {"tailnum"}}
        assert stamped == passed.get(header(letter, "stage"), set())


def test_a_prediction_names_its_event_its_model_its_origin_and_all_features(run: Finished) -> None:
    pipeline, originals = run.scoring.pipeline, dict(_departures(run))
    contract = ModelContract.read(run.scoring.model)
    entities = [stage.entity for stage in plan_stages(pipeline)]
    for origin, value in run.outputs.predicted.items():
        assert value["model"] == {"name": contract.name, "version": "1", "sha256": contract.sha256}
        assert value["arm"] == "champion"
        assert value["feature_set"] == feature_set_hash(pipeline, run.scoring.folder)
        assert value["origin"]["timestamp_ms"] == originals[origin].timestamp_ms
        assert tuple(value["features"]) == feature_columns(pipeline)
        assert list(value["order"]) == entities
        assert f'"flight_id":"{value["event_id"]}"'.encode() in (originals[origin].value or b"")
        assert f'"departed_at_ms":{value["event_time_ms"]},'.encode() in (originals[origin].value or b"")
    keys = [(record.key or b"").decode() for record in run.outputs.predictions]
    assert sorted(keys) == sorted(value["event_id"] for value in run.outputs.predicted.values())


def test_features_and_scores_equal_those_of_the_offline_path_bit_for_bit(run: Finished) -> None:
    columns = feature_columns(run.scoring.pipeline)
    wrong: list[tuple[Origin, object]] = []
    for origin, value in run.outputs.predicted.items():
        offline = run.offline[origin]
        wanted = {name: None if offline[name] is None else float(offline[name]).hex() for name in columns}
        got = {name: None if one is None else float(one).hex() for name, one in value["features"].items()}
        wrong += [] if got == wanted else [(origin, set(got.items()) ^ set(wanted.items()))]
        if np.float32(value["score"]) != value["score"] or offline["score"] != value["score"]:
            wrong.append((origin, (value["score"], offline["score"])))
    assert wrong == []
    for origin, row in run.offline.items():
        assert (origin in run.outputs.predicted) == (row["distance_mi"] <= GUARD_LIMIT)
    joined = [value["features"]["temp_f"] is not None for value in run.outputs.predicted.values()]
    assert any(joined)


def test_redis_holds_the_newest_features_of_every_key(run: Finished, services: Endpoints) -> None:
    store = run.scoring.pipeline.sinks.online_store
    assert store is not None
    feature_set = feature_set_hash(run.scoring.pipeline, run.scoring.folder)
    with OnlineStore.connect(services.redis, store.prefix) as online, Redis.from_url(services.redis) as client:
        keys = 0
        for stage in plan_stages(run.scoring.pipeline):
            columns = [feature.name for feature in stage.features]
            columns += [name for enrichment in stage.enrichments for name in enrichment.take]
            rows = sorted(run.offline.values(), key=lambda row: (row["departed_at_ms"], row[f"_seq_{stage.entity}"]))
            newest = {row[stage.entity]: row for row in rows if row[stage.entity] is not None}
            keys += len(newest)
            for key, row in newest.items():
                found = online.read(stage.entity, key, now_ms=row["departed_at_ms"])
                assert repr(found.values) == repr({name: row[name] for name in columns})
                assert (found.age_ms, found.feature_set) == (0, feature_set)
        held = list(client.scan_iter(f"{store.prefix}:*", count=1000))
        rows_held = [key for key in held if b":schema" not in key]
        assert (len(rows_held), len(held)) == (keys, keys + 2), "and the schema, and which is current"
        assert min(int(str(client.ttl(key))) for key in rows_held) > 0
