"""Answers become predictions: in the order of the rows, each by its own arm and version, with what the shadows gave."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from models.arms import refuse_unlike, resolve_arms
from models.registry import ResolvedModel
from tests.samples import FLIGHTS, payment, raw_batch, small_pipeline
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import DefinitionError
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.predictions import KEY_SEPARATOR, RECORD_SEPARATOR
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.serving import Answer, Answers, Rejection, Status
from udfs.core.model.writing import AnswerWriter, model_folders
from udfs.core.rows.ingest import Ingest

CLASSES = ["no", "yes"]


def contract(version: str, output: Output | None = None) -> ModelContract:
    return ModelContract(
        name="shop-model",
        version=version,
        files={"model.onnx": version * 64},
        feature_set="0123456789abcdef",
        tensors=[Tensor("x", "float32", ["amount"])],
        output=output or Output("y", "probability"),
    )


def pipeline(**model: Any) -> Pipeline:
    return small_pipeline(model={"name": "shop-model"} | model)


def rows(count: int) -> pa.RecordBatch:
    sent = [payment(i, 1_000 + i, f"u{i}", amount=float(i)) for i in range(count)]
    batch = Ingest.of_source(small_pipeline(), FLIGHTS).process(raw_batch("shop.payments", sent, 40)).rows
    for entity in ("user", "shop"):
        batch = batch.append_column(f"_lane_{entity}", pa.array([0] * count, pa.int32()))
        batch = batch.append_column(f"_seq_{entity}", pa.array(range(count), pa.int64()))
    for name in (feature for feature in FEATURES if feature not in batch.schema.names):
        batch = batch.append_column(name, pa.array([1.0] * count))
    return batch


FEATURES = [
    *(f"user_amount_{one}_{over}" for over in ("1s", "4s") for one in ("sum", "mean", "min", "std")),
    "user_count_4s",
    *(f"user_units_{one}_{over}" for over in ("2s", "6s") for one in ("max", "count")),
    *(f"shop_amount_{one}_{over}" for over in ("1s", "3s") for one in ("count", "mean")),
]


def answer(arm: str, places: list[int], status: Status = "ok", source: str = "") -> Answer:
    return Answer(arm, source or arm, status, np.array(places), np.array(places, np.float32) / 8)


def written(declared: Pipeline, contracts: dict[str, ModelContract], count: int, answers: Answers) -> list[Any]:
    text = AnswerWriter(declared, contracts).write("shop.payments", rows(count), answers)
    return [json.loads(record.partition(KEY_SEPARATOR)[2]) for record in text.split(RECORD_SEPARATOR)]


def test_predictions_keep_the_order_of_their_rows_whoever_answered() -> None:
    declared = pipeline(
        challengers=[{"name": "b", "weight": "40%"}],
        serving={"fallback": ["previous_version", "default_score"], "default_score": 0},
    )
    given = (
        answer("champion", [0, 5]),
        answer("b", [1, 4]),
        answer("b", [3], "previous_version", "previous"),
        answer("champion", [6], "default_score"),
    )
    contracts = {"champion": contract("3"), "b": contract("4"), "previous": contract("2")}
    lost = (Rejection(2, "score_failed", "score nan"),)
    found = written(declared, contracts, 7, Answers(given, lost))
    assert [(one["event_id"], one["arm"], one["model"]["version"], one.get("status")) for one in found] == [
        ("p0", "champion", "3", None),
        ("p1", "b", "4", None),
        ("p3", "b", "2", "previous_version"),
        ("p4", "b", "4", None),
        ("p5", "champion", "3", None),
        ("p6", "champion", "3", "default_score"),
    ]
    assert [one["score"] * 8 for one in found] == [0, 1, 3, 4, 5, 6]
    assert {one["routing"] for one in found} == {declared.model.routing_epoch("user")}


def test_a_single_model_writes_what_it_always_wrote() -> None:
    (found,) = written(pipeline(), {"champion": contract("3")}, 1, Answers((answer("champion", [0]),)))
    assert not {"routing", "status", "shadow"} & found.keys()
    assert list(found)[:5] == ["event_id", "event_time_ms", "score", "model", "arm"]


def test_a_shadow_stands_beside_the_answer_in_the_form_of_its_own_output() -> None:
    declared = pipeline(shadows=[{"name": name} for name in ("one", "classes", "wide")])
    contracts = {
        "champion": contract("3"),
        "one": contract("4"),
        "classes": contract("5", Output("y", "class_scores", None, 2, CLASSES)),
        "wide": contract("6", Output("y", "vector", None, 2)),
    }
    pairs = np.array([[0.25, 0.75], [0.5, np.nan], [1.0, 0.0]], np.float32)
    shadows = {"one": np.array([0.5, np.nan, 1.0], np.float32), "classes": pairs, "wide": pairs}
    lost = (Rejection(0, "score_failed", "score nan"),)
    second, third = written(declared, contracts, 3, Answers((answer("champion", [1, 2]),), lost, shadows))
    assert {name: one["score"] for name, one in second["shadow"].items()} == {
        "one": None,
        "classes": None,
        "wide": None,
    }
    assert third["shadow"] == {
        "one": {"version": "4", "sha256": "4" * 64, "score": 1.0},
        "classes": {"version": "5", "sha256": "5" * 64, "score": 1.0, "label": "no", "scores": {"no": 1.0, "yes": 0.0}},
        "wide": {"version": "6", "sha256": "6" * 64, "vector": [1.0, 0.0]},
    }
    assert "routing" not in third, "only the champion can answer"


def test_the_champion_lies_where_a_single_model_does_and_others_beside_it() -> None:
    declared = pipeline(shadows=[{"name": "next"}], serving={"fallback": ["previous_version"]})
    assert model_folders(declared, Path("m")) == {
        "champion": Path("m"), "next": Path("m/arms/next"), "previous": Path("m/arms/previous"),
    }  # fmt: skip


def resolved(**outputs: Output) -> dict[str, ResolvedModel]:
    return {name: ResolvedModel(Path(), contract("1", output), {}) for name, output in outputs.items()}


def test_arms_whose_answers_mean_different_things_are_refused() -> None:
    number, classes = Output("y", "probability"), Output("y", "class_scores", None, 2, CLASSES)
    refuse_unlike(resolved(champion=number, b=msgspec.structs.replace(number, name="z")))
    with pytest.raises(
        ModelRefusedError,
        match=r"^arm b: model shop-model version 1 gives class_scores of no, yes; the champion gives probability; all ",
    ) as refused:
        refuse_unlike(resolved(champion=number, b=classes))
    assert refused.value.reason is Refusal.CONTRACT


def test_a_version_of_what_is_no_arm_is_refused_before_anything_is_fetched() -> None:
    reference = pipeline(canary={"share": "5%"}).model
    with pytest.raises(DefinitionError, match=r"got a version of arm 'canray', .*; did you mean 'canary'\?"):
        resolve_arms(reference, "http://127.0.0.1:1", "0123456789abcdef", (), versions={"canray": "3"})
