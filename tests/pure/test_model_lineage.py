"""Lineage: which features of a model a change of the pipeline touches, and no others."""

from pathlib import Path

import pytest

from models.lineage import changed_features, feature_sources
from tests import hostile, synthetic
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.contract import ModelContract, Tensor
from udfs.core.plan.features import feature_columns


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return synthetic.write_pipeline(tmp_path / "shop")


def contract_of(shop: Path) -> ModelContract:
    pipeline = load_pipeline(shop)
    columns = list(feature_columns(pipeline))
    tensors = [Tensor("features", "float32", columns)]
    return hostile.contract_of(b"", tensors=tensors, lineage=feature_sources(pipeline, shop))


def changed(shop: Path, contract: ModelContract, old: str, new: str) -> set[str]:
    file = shop / "pipeline.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return {change.feature for change in changed_features(contract, load_pipeline(shop), shop)}


def test_every_feature_has_a_source(shop: Path) -> None:
    contract = contract_of(shop)
    assert list(contract.lineage) == contract.inputs
    assert set(contract.lineage["risk"].columns) == {"risk.score", "user"}
    assert contract.lineage["discount"].columns == ["discount"]
    assert set(contract.lineage["user_amount_max_1d"].columns) == {"amount", "user"}
    assert "max" in contract.lineage["user_amount_max_1d"].definition


def test_an_unchanged_pipeline_changes_nothing(shop: Path) -> None:
    contract = contract_of(shop)
    assert changed_features(contract, load_pipeline(shop), shop) == []


def test_only_what_a_change_touches_is_named(shop: Path) -> None:
    contract = contract_of(shop)
    assert changed(shop, contract, "max_age: 2d", "max_age: 1d") == {"risk"}


def test_a_feature_that_is_gone_is_named(shop: Path) -> None:
    contract = contract_of(shop)
    gone = {"user_amount_max_1h", "user_amount_max_1d"}
    assert changed(shop, contract, "take: [count, mean, max]", "take: [count, mean]") == gone
    [one, *_] = changed_features(contract, load_pipeline(shop), shop)
    assert one.before
    assert one.now == ""


def test_another_slide_touches_the_windows(shop: Path) -> None:
    contract = contract_of(shop)
    windowed = {name for name in contract.inputs if name.startswith("user_")}
    assert changed(shop, contract, "slide: 10m", "slide: 5m") == windowed


def test_another_function_touches_what_is_derived_and_its_windows(tmp_path: Path) -> None:
    shop = synthetic.write_pipeline(tmp_path / "shop")
    file = shop / "pipeline.yaml"
    derive = "derive: {function: 'own.py:double', outputs: {twice: float64}}\nfeatures:\n"
    window = "  - {entity: user, of: twice, take: [mean], over: [1h], slide: 10m}\n"
    file.write_text(file.read_text().replace("features:\n", derive + window).replace("risk]}", "risk, twice]}"))
    code = "def double(batch):\n    return {'twice': batch['amount']}\n"
    (shop / "own.py").write_text(code)
    contract = contract_of(shop)
    assert set(contract.lineage["twice"].columns) == {"amount", "own.py:double"}
    assert "own.py:double" in contract.lineage["user_twice_mean_1h"].columns
    (shop / "own.py").write_text("# a comment\n" + code)
    assert changed_features(contract, load_pipeline(shop), shop) == []
    (shop / "own.py").write_text(code.replace("'amount'", "'discount'"))
    found = changed_features(contract, load_pipeline(shop), shop)
    assert {one.feature for one in found} == {"twice", "user_twice_mean_1h"}
