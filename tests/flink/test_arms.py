"""Arms and a shadow in one job, through a killed worker: each event is answered once, by the arm that is its own."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from scripts.flights.replay import replay
from scripts.kafka.batches import raw_batch
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.flights import PATIENT, departures, flights_folder
from tests.flink.models import write_model
from tests.flink.scoring import Outputs, Scoring, assert_each_once, assert_gapless, scoring
from udfs.core.declare.loading import load_pipeline
from udfs.core.declare.model_reference import ModelReference
from udfs.core.model.routing import Router
from udfs.core.model.scorer import Scorer
from udfs.core.model.writing import model_folders
from udfs.core.plan.features import feature_columns
from udfs.core.rows.ingest import ingest_of_topics

EVENTS, RATE_EPS = 900, 150.0
BY_RULE = "UA"
ARMS = {
    "challengers": [{"name": "b", "alias": "challenger", "weight": "30%"}],
    "canary": {"share": "20%"},
    "shadows": [{"name": "next"}],
    "rules": [{"when": f'carrier == "{BY_RULE}"', "arm": "b"}],
    "routing": {"key": "flight_id", "salt": "1"},
    "serving": {"fallback": ["reject"], "deadline": "30s"},
}
VERSIONS = {"champion": 1, "b": 2, "canary": 3, "next": 4}


def armed(cluster: Cluster, services: Endpoints, prefix: str, scratch: Path) -> Scoring:
    """Set up the flights with a model of its own for each arm."""
    folder = flights_folder(scratch / "flights")
    declared = load_pipeline(folder).model.model_dump(mode="json", by_alias=True)
    setting = scoring(
        cluster, services, folder, prefix, scratch,
        partitions=2, lanes=2, time=PATIENT, model=ModelReference.model_validate(declared | ARMS),
    )  # fmt: skip
    folders = model_folders(setting.pipeline, setting.model)
    assert set(folders) == set(VERSIONS)
    for name, version in VERSIONS.items():
        if name != "champion":
            write_model(setting.pipeline, setting.folder, folders[name], version=version)
    return setting


def arms_of(outputs: Outputs) -> dict[str, str]:
    return {value["event_id"]: value["arm"] for value in outputs.predicted.values()}


def test_each_event_is_answered_once_by_its_own_arm_also_after_a_crash_and_in_a_replay(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    setting = armed(cluster, services, prefix, tmp_path / "first")
    sent = departures(prefix, each=1)[0]
    sent = sent.take(np.arange(len(sent)) < EVENTS)
    first, second = (sent.take(part) for part in np.array_split(np.arange(len(sent)), 2))
    job = setting.start()
    replay(first, setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(len(first))
    cluster.await_gauge(job, "b.scored_rows", 1)
    sending = threading.Thread(target=replay, args=(second, setting.kafka), kwargs={"rate_eps": RATE_EPS})
    sending.start()
    time.sleep(1.0)
    os.kill(cluster.python_workers()[0], signal.SIGKILL)
    sending.join()
    cluster.await_restart(job, 1)
    outputs = setting.await_outputs(len(sent))
    cluster.stop(job)
    outputs, inputs = setting.outputs(), setting.inputs()
    assert_each_once(inputs, outputs)
    assert_gapless(outputs)
    assert_answered_by_their_arms(setting, outputs)

    other = f"{prefix.rstrip('.')}-again."
    again = armed(cluster, services, other, tmp_path / "again")
    job = again.start(parallelism=2)
    replay(departures(other, each=1)[0].take(np.arange(len(sent))), again.kafka, as_fast_as_possible=True)
    replayed = again.await_outputs(len(sent))
    cluster.stop(job)
    found, once = arms_of(replayed), arms_of(outputs)
    both = found.keys() & once.keys()  # between two partitions the order is open, and with it which rows are late
    assert len(both) > EVENTS // 2
    assert {event: found[event] for event in both} == {event: once[event] for event in both}
    assert_answered_by_their_arms(again, replayed)


def assert_answered_by_their_arms(setting: Scoring, outputs: Outputs) -> None:
    """Hold arm, version, score and shadow of each prediction to what the models give for the features beside it."""
    pipeline, columns = setting.pipeline, feature_columns(setting.pipeline)
    scorers = {name: Scorer.load(folder) for name, folder in model_folders(pipeline, setting.model).items()}
    values = list(outputs.predicted.values())
    features = [[value["features"][name] for name in columns] for value in values]
    matrix = np.array(features, np.float64).astype(np.float32)
    scores = {name: scorer.score(matrix) for name, scorer in scorers.items()}
    epoch = pipeline.model.routing_epoch(pipeline.source.key)
    for i, value in enumerate(values):
        arm, shadow = value["arm"], scorers["next"].contract
        contract = scorers[arm].contract
        assert value["model"] == {"name": contract.name, "version": str(VERSIONS[arm]), "sha256": contract.sha256}
        assert value["score"] == float(scores[arm][i])
        assert value["routing"] == epoch
        wanted = {"version": "4", "sha256": shadow.sha256, "score": float(scores["next"][i])}
        assert value["shadow"] == {"next": wanted}
        assert "status" not in value
    router = Router(pipeline)
    source = pipeline.source.topic
    batch = raw_batch(source, setting.inputs()[source])
    rows = ingest_of_topics(pipeline, setting.folder)[source].process(batch).rows
    own = dict(zip(rows["flight_id"].to_pylist(), (router.arms[i] for i in router.assign(rows)), strict=True))
    found = arms_of(outputs)
    assert found == {event: own[event] for event in found}
    assert set(found.values()) == {"champion", "b", "canary"}
    ruled = set(rows.filter(pc.equal(rows["carrier"], BY_RULE))["flight_id"].to_pylist())
    assert {found[event] for event in ruled & found.keys()} == {"b"}
