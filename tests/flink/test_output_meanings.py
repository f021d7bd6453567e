"""Models whose output is more than one number, in a running job: class scores and vectors are written whole.

The model of one of them came from the cache of last-known-good versions, which its job says in a metric.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from scripts.flights.replay import replay
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.flights import departures, flights_folder
from tests.flink.models import GUARD_LIMIT, write_model
from tests.flink.scoring import Scoring, assert_each_once, header, scoring
from udfs.core.model.contract import ModelContract, Output
from udfs.core.model.scorer import Scorer
from udfs.core.plan.features import feature_columns

EVENTS, GAUGE_WAIT_S = 800, 30.0
OUTPUTS = [
    Output("both", "class_scores", None, 2, ["on time", "late"]),
    Output("both", "vector", None, 2),
]


@pytest.fixture(params=OUTPUTS, ids=[output.meaning for output in OUTPUTS])
def setting(
    request: pytest.FixtureRequest, cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> Scoring:
    setting = scoring(cluster, services, flights_folder(tmp_path / "flights"), prefix, tmp_path)
    model = write_model(setting.pipeline, setting.folder, tmp_path / "wide", request.param)
    contract = ModelContract.read(model)
    structs.replace(contract, from_cache=request.param.meaning == "vector").write(model)
    return replace(setting, model=model)


def test_every_number_is_written_and_a_row_without_one_is_rejected(setting: Scoring, prefix: str) -> None:
    job = setting.start()
    sent = departures(prefix)[0]
    sent = sent.take(np.arange(len(sent)) < EVENTS)
    replay(sent, setting.kafka, as_fast_as_possible=True)
    outputs = setting.await_outputs(EVENTS)
    contract = ModelContract.read(setting.model)
    assert await_gauge(setting.cluster, job, "model_from_cache") == int(contract.from_cache)
    setting.cluster.stop(job)
    assert_each_once({setting.pipeline.source.topic: setting.inputs()[setting.pipeline.source.topic]}, outputs)

    scorer, columns = Scorer.load(setting.model), feature_columns(setting.pipeline)
    features = [[value["features"][name] for name in columns] for value in outputs.predicted.values()]
    again = scorer.score(np.array(features, np.float64).astype(np.float32))
    assert len(again) > EVENTS / 4
    for value, wanted in zip(outputs.predicted.values(), again, strict=True):
        assert value["features"]["distance_mi"] <= GUARD_LIMIT
        if contract.output.meaning == "vector":
            assert value["vector"] == wanted.tolist()
            assert not {"score", "scores", "label"} & value.keys()
        else:
            best = int(wanted.argmax())
            assert value["scores"] == dict(zip(["on time", "late"], wanted.tolist(), strict=True))
            assert (value["label"], value["score"]) == (["on time", "late"][best], float(wanted[best]))
    failed = [letter for letter in outputs.rejects if header(letter, "reason") == "score_failed"]
    assert failed
    assert all(header(letter, "detail").startswith("score [nan nan]") for letter in failed)


def await_gauge(cluster: Cluster, job: str, name: str) -> int:
    """Return the value of a gauge of the job's Python operators; it is reported with the first bundle."""
    deadline_s = time.monotonic() + GAUGE_WAIT_S
    while True:
        for vertex in cluster._get(f"/jobs/{job}")["vertices"]:
            path = f"/jobs/{job}/vertices/{vertex['id']}/metrics"
            for one in cluster._get(path):
                if one["id"].endswith(f".{name}"):
                    return int(cluster._get(f"{path}?get={one['id']}")[0]["value"])
        assert time.monotonic() < deadline_s, f"no gauge {name} in {GAUGE_WAIT_S} s"
        time.sleep(0.2)
