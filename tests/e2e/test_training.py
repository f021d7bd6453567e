import datetime as dt
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
from msgspec import structs

from models.check import check_model
from models.evaluation import auc, evaluate
from models.examples import Examples, read_examples
from models.export import export, prove
from models.golden import Golden
from models.history import write_history
from models.package import Package
from models.rounding import round_down, round_thresholds
from models.training import Fitted, TrainedModel, fit
from tests import synthetic
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.errors import DefinitionError, ModelError
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import Scorer

TRAIN_UNTIL, TEST_UNTIL = dt.date(2023, 11, 19), dt.date(2023, 11, 21)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_pipeline(tmp_path_factory.mktemp("training") / "shop")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    return load_pipeline(folder)


@pytest.fixture(scope="module")
def examples(folder: Path, pipeline: Pipeline) -> Examples:
    return read_examples(pipeline, folder, synthetic.write_orders(folder / "history.parquet"))


@pytest.fixture(scope="module")
def trained(folder: Path, pipeline: Pipeline, examples: Examples) -> TrainedModel:
    return fit(pipeline, folder, examples, TRAIN_UNTIL, TEST_UNTIL, synthetic.QUICK)


def test_every_event_with_a_label_is_an_example(examples: Examples) -> None:
    labelled = [i for i in range(synthetic.EVENTS) if i % 50 and i % 31]
    assert ((examples.event_time_ms - synthetic.START_MS) // 600_000).tolist() == labelled
    assert (examples.label_time_ms - examples.event_time_ms == 3_600_000).all()
    assert examples.columns[:4] == ("amount", "discount", "risk", "user_amount_count_1h")
    assert np.isnan(examples.matrix[:, 1]).tolist() == [i % 5 == 0 for i in labelled]
    assert 0.2 < examples.positive.mean() < 0.8


def test_the_last_label_of_an_id_counts(folder: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    order = b'{"order_id":"o","at_ms":1,"user":"u","amount":2.5,"discount":null}'
    labels = [b'{"order_id":"o","at_ms":%d,"refund":%s}' % (at, refund) for at, refund in ((2, b"99"), (3, b"10"))]
    broken = b'{"order_id":"o","at_ms":4,"refund":"much"}'
    values = [order, *labels, broken]
    topics = ["orders", *["refunds"] * 3]
    write_history(tmp_path / "h.parquet", topics, [b"u", b"o", b"o", b"o"], values, [1, 2, 3, 4])
    found = read_examples(pipeline, folder, tmp_path / "h.parquet")
    assert (found.positive.tolist(), found.label_time_ms.tolist()) == ([False], [3])


def test_the_key_of_a_label_does_not_matter(folder: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    orders = [b'{"order_id":"o%d","at_ms":1,"user":"u","amount":2.5,"discount":null}' % i for i in range(3)]
    labels = [b'{"order_id":"o%d","at_ms":2,"refund":99}' % i for i in range(3)]
    topics, keys = ["orders"] * 3 + ["refunds"] * 3, [b"u", b"u", b"u", None, b"o1", b"something else"]
    write_history(tmp_path / "h.parquet", topics, keys, orders + labels, [1, 1, 1, 2, 2, 2])
    assert read_examples(pipeline, folder, tmp_path / "h.parquet").positive.tolist() == [True] * 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "has a label in refunds: the history has no record of it"),
        (
            [b'{"order_id":"o","at_ms":2,"refund":"much"}'],
            r"1 of its records break label\.contract, the first at partition 0, offset 0: wrong_type, .*; there is no",
        ),
        ([b'{"order_id":"o","at_ms":2,"refund":null}'], "refund is null in all 1 labels"),
        ([b'{"order_id":"x","at_ms":2,"refund":1}'], "1 labels match none with a known refund; order_id of the events"),
    ],
)
def test_why_no_event_has_a_label_is_said(
    labels: list[bytes], message: str, folder: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    order = b'{"order_id":"o","at_ms":1,"user":"u","amount":2.5,"discount":null}'
    topics, nulls = ["orders", *["refunds"] * len(labels)], [None] * len(labels)
    write_history(tmp_path / "h.parquet", topics, [b"u", *nulls], [order, *labels], range(len(topics)))
    with pytest.raises(ModelError, match=message):
        read_examples(pipeline, folder, tmp_path / "h.parquet")


def test_the_split_is_by_time_and_a_label_must_be_known_in_time(trained: TrainedModel, examples: Examples) -> None:
    until_ms = int(dt.datetime(2023, 11, 19, tzinfo=dt.UTC).timestamp() * 1000)
    known = examples.label_time_ms < until_ms
    assert trained.train_rows == known.sum() == (examples.event_time_ms < until_ms).sum() - 6
    assert trained.test.event_time_ms.min() >= until_ms
    assert trained.test.event_time_ms.max() < until_ms + 2 * 86_400_000


def test_a_fit_repeats_bit_by_bit_up_to_the_onnx_file(
    trained: TrainedModel, folder: Path, pipeline: Pipeline, examples: Examples
) -> None:
    again = fit(pipeline, folder, examples, TRAIN_UNTIL, TEST_UNTIL, synthetic.QUICK)
    first, second = (export(one.model, "shop-refund", one.feature_set) for one in (trained, again))
    assert first == second


def test_both_models_learn_and_onnx_scores_like_lightgbm(trained: TrainedModel) -> None:
    for fitted in (trained.model, trained.baseline):
        exported = export(fitted, "shop-refund", trained.feature_set)
        proof = prove(fitted, exported, trained.test)
        assert proof.rows == len(trained.test)
        assert max(proof.max_difference, proof.max_difference_with_nulls) < 1e-6
        scores = Scorer(exported.onnx, exported.contract).score(trained.test.select(fitted.columns))
        assert evaluate(scores, trained.test.positive).auc > 0.85
    assert trained.baseline.columns == ("amount", "discount", "risk")


def test_another_model_is_no_proof(trained: TrainedModel) -> None:
    exported = export(trained.baseline, "shop-refund", trained.feature_set)
    shorter = replace(trained.baseline, booster=first_trees(trained.baseline))
    with pytest.raises(ModelError, match=r"differ by .* on held-out row \d+ \(.* were the thresholds rounded"):
        prove(shorter, exported, trained.test)


def test_values_on_a_threshold_take_the_same_branch() -> None:
    random = np.random.default_rng(3)
    values = np.concatenate([random.normal(0, 1, 4000), [0.0, np.nan] * 200]).astype(np.float32)
    target = (np.nan_to_num(values) + random.normal(0, 0.5, values.size) > 0).astype(np.float32)
    data = lgb.Dataset(values[:, None], target)
    booster = lgb.train({"objective": "binary", "verbosity": -1, "min_data_in_leaf": 5, "seed": 1}, data, 30)
    rounded = Fitted(("x",), round_thresholds(booster))
    assert np.array_equal(rounded.booster.predict(values[:, None]), booster.predict(values[:, None]))

    thresholds: list[float] = []
    _collect([tree["tree_structure"] for tree in booster.dump_model()["tree_info"]], thresholds)
    near = np.array(thresholds).astype(np.float32)
    below, above = np.nextafter(near, np.float32(-9)), np.nextafter(near, np.float32(9))
    edges = np.concatenate([below, near, above, [-0.0, np.inf]])
    rows = edges.astype(np.float32)[:, None]
    some = np.zeros(len(rows), np.int64)
    prove(rounded, export(rounded, "x", "f"), Examples(("x",), rows, some > 0, some, some))


def first_trees(fitted: Fitted) -> lgb.Booster:
    return lgb.Booster(model_str=fitted.booster.model_to_string(num_iteration=9))


def _collect(nodes: list[dict[str, object]], thresholds: list[float]) -> None:
    for node in nodes:
        if "threshold" in node:
            thresholds.append(float(str(node["threshold"])))
            _collect([node["left_child"], node["right_child"]], thresholds)  # type: ignore[list-item]  # JSON


def test_round_down_is_the_largest_float32_not_above() -> None:
    exact = np.array([0.1, -0.1, 0.5, 1e-35, 1e300, -1e300, np.inf])
    rounded = round_down(exact)
    assert (rounded <= exact).all()
    assert (np.nextafter(rounded[:4], np.float32(np.inf)) > exact[:4]).all()
    assert rounded[4:].tolist() == [np.finfo(np.float32).max, -np.inf, np.inf]
    assert round_down(np.array([-1.0000000180025095e-35]))[0] < -np.float32(1e-35)


def test_the_golden_batch_has_a_row_of_nulls_and_notices_another_model(trained: TrainedModel) -> None:
    shorter = replace(trained.baseline, booster=first_trees(trained.baseline))
    one, other = (export(fitted, "shop-refund", trained.feature_set) for fitted in (trained.baseline, shorter))
    package = Package.seal(one.onnx, one.contract, trained.test.select(trained.baseline.columns))
    golden = Golden.decode(package.golden.encode(), one.contract)
    assert np.isnan(golden.inputs[-1]).all()
    assert np.isfinite(golden.scores).all()
    golden.check(Scorer(one.onnx, one.contract))
    with pytest.raises(ModelRefusedError, match=r"golden batch scores .*; at registration it was"):
        golden.check(Scorer(other.onnx, other.contract))


def test_the_features_stand_in_the_onnx_file_itself(trained: TrainedModel) -> None:
    exported = export(trained.baseline, "shop-refund", trained.feature_set)
    [tensor] = exported.contract.tensors
    swapped = structs.replace(tensor, features=tensor.features[::-1])
    with pytest.raises(ModelRefusedError, match=r"model\.onnx names its features") as error:
        check_model(exported.onnx, structs.replace(exported.contract, tensors=[swapped]))
    assert error.value.reason is Refusal.ORDER


@pytest.mark.parametrize(
    ("train_until", "test_until", "text"),
    [
        (dt.date(2020, 1, 1), TEST_UNTIL, "before 2020-01-01: got 0 labelled events, 0 of them positive"),
        (
            TRAIN_UNTIL,
            TRAIN_UNTIL,
            "until 2023-11-19: got 0 .* from 2023-11-15T00:10:00.000 to 2023-11-21",
        ),
    ],
)
def test_an_empty_side_of_the_split_is_refused(
    folder: Path, pipeline: Pipeline, examples: Examples, train_until: dt.date, test_until: dt.date, text: str
) -> None:
    with pytest.raises(ModelError, match=text):
        fit(pipeline, folder, examples, train_until, test_until)


def test_a_pipeline_without_label_or_inputs_is_refused(folder: Path, pipeline: Pipeline, examples: Examples) -> None:
    with pytest.raises(DefinitionError, match="pipeline shop: label: missing"):
        read_examples(pipeline.model_copy(update={"label": None}), folder, folder / "history.parquet")
    bare = pipeline.model_copy(update={"model": pipeline.model.model_copy(update={"inputs": []})})
    with pytest.raises(ModelError, match=r"model\.inputs: empty"):
        fit(bare, folder, examples, TRAIN_UNTIL, TEST_UNTIL)


def test_a_history_without_events_or_labels_is_refused(folder: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    write_history(tmp_path / "h.parquet", ["other"], [None], [b"{}"], [1])
    with pytest.raises(ModelError, match="holds no record of orders, risk"):
        read_examples(pipeline, folder, tmp_path / "h.parquet")
    order = b'{"order_id":"o","at_ms":1,"user":"u","amount":2.5,"discount":null}'
    write_history(tmp_path / "h.parquet", ["orders"], [b"u"], [order], [1])
    with pytest.raises(ModelError, match=r"no event of orders has a label in refunds: the history has no record"):
        read_examples(pipeline, folder, tmp_path / "h.parquet")


def test_measures_agree_with_scikit_learn() -> None:
    from sklearn import metrics

    random = np.random.default_rng(5)
    scores = np.round(random.random(500), 2)
    positive = random.random(500) < scores
    found = evaluate(scores, positive)
    assert found.auc == pytest.approx(metrics.roc_auc_score(positive, scores))
    assert found.log_loss == pytest.approx(metrics.log_loss(positive, np.clip(scores, 1e-15, 1 - 1e-15)))
    assert found.brier == pytest.approx(metrics.brier_score_loss(positive, scores))
    assert sum(one.rows for one in found.calibration) == 500
    assert found.calibration_error < 0.1
    assert auc(np.array([0.5, 0.5]), np.array([True, False])) == 0.5


def test_measures_need_probabilities_and_both_classes() -> None:
    with pytest.raises(ModelError, match="2 of them positive; both classes are needed"):
        evaluate(np.array([0.5, 0.5]), np.array([True, True]))
    with pytest.raises(ModelError, match="a probability is in"):
        evaluate(np.array([0.5, np.nan]), np.array([True, False]))
