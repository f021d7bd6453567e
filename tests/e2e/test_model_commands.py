"""`headrace models` on a real registry: register a model from elsewhere, look, compare, promote, archive."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from flink_jobs.cli import app
from models.registry import resolve
from models.tracking import connect
from scripts.services.endpoints import Endpoints
from tests import hostile, synthetic
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import Scorer
from udfs.core.plan.features import feature_set_hash


@pytest.fixture(scope="module")
def uri(services: Endpoints) -> str:
    return services.mlflow


@pytest.fixture(scope="module")
def name() -> str:
    return f"shop-foreign-{time.time_ns()}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    shop = synthetic.write_pipeline(tmp_path_factory.mktemp("foreign") / "shop")
    file = shop / "pipeline.yaml"
    file.write_text(file.read_text().replace("shop-refund", name))
    return shop


def headrace(uri: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments, "--mlflow", uri])


def as_json(uri: str, *arguments: str) -> Any:
    done = headrace(uri, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def onnx(folder: Path, bias: float) -> Path:
    """Write a model of two features, unnamed in the file."""

    def change(made: Any) -> None:
        made.ClearField("metadata_props")
        made.graph.initializer[1].raw_data = np.float32(bias).tobytes()

    file = folder / f"bias-{bias:g}.onnx"
    file.write_bytes(hostile.data(change))
    return file


@pytest.fixture(scope="module")
def versions(shop: Path, uri: str, name: str) -> Iterator[tuple[Any, Any]]:
    """Version 1 on two features, champion; version 2 on two others, one of them windowed."""
    register = ("register", "--pipeline", str(shop), "--metric", "auc=0.71", "--note", "trainer=by hand")
    first = as_json(uri, *register, str(onnx(shop, 0.5)), "--inputs", "amount,risk", "--alias", "champion")
    more = ("--inputs", "amount,user_amount_mean_1d", "--metric", "auc=0.75")
    second = as_json(uri, *register, str(onnx(shop, 1.5)), *more)
    yield first, second
    with connect(uri) as client:
        client.delete_registered_model(name)


def test_what_was_registered_says_everything(versions: tuple[Any, Any], name: str, shop: Path) -> None:
    first, second = versions
    assert (first["registered"]["version"], first["registered"]["alias"]) == ("1", "champion")
    assert (second["registered"]["version"], second["registered"]["alias"]) == ("2", None)
    contract = second["contract"]
    assert contract["name"] == name
    assert contract["feature_set"] == feature_set_hash(load_pipeline(shop), shop)
    assert contract["output"]["meaning"] == "probability"
    assert contract["provenance"]["trainer"] == "by hand"
    assert set(second["registered"]["digests"]) == {"model.onnx", "contract.json", "golden.json"}


@pytest.mark.usefixtures("versions")
def test_a_job_resolves_it_and_scores(uri: str, name: str, shop: Path) -> None:
    found = resolve(name, "champion", uri, feature_set_hash(load_pipeline(shop), shop))
    rows = pa.RecordBatch.from_pydict({"risk": [0.25, None], "more": ["x", "y"], "amount": [1.0, 2.0]})
    scorer = Scorer.load(found.folder)
    np.testing.assert_allclose(scorer.score(scorer.matrix(rows)), 1 / (1 + np.exp([-1.75, -2.5])), rtol=1e-6)


@pytest.mark.usefixtures("versions")
def test_the_list_finds_models_versions_and_those_that_a_change_breaks(uri: str, name: str) -> None:
    assert name in headrace(uri, "list").stdout
    [entry] = [one for one in as_json(uri, "list") if one["name"] == name]
    assert (entry["aliases"], entry["newest_version"]) == ({"champion": "1"}, "2")
    assert [one["version"] for one in as_json(uri, "list", name)] == ["2", "1"]
    assert "champion" in headrace(uri, "list", name).stdout

    def users(*names: str) -> dict[str, list[str]]:
        options = [argument for one in names for argument in ("--uses", one)]
        return {one["version"]: one["uses"] for one in as_json(uri, "list", name, *options)}

    windowed = "user_amount_mean_1d"
    assert users("risk") == {"1": ["risk"]}
    assert users("risk.score") == {"1": ["risk"]}
    assert users(windowed) == {"2": [windowed]}
    assert users("amount") == {"1": ["amount"], "2": ["amount", windowed]}
    assert users("user") == {"1": ["risk"], "2": [windowed]}
    assert users("risk", windowed) == {"1": ["risk"], "2": [windowed]}
    assert users("nothing") == {}
    with connect(uri) as client:
        found = client.search_model_versions(f"name='{name}' AND tags.features LIKE '%,{windowed},%'")
        assert [str(one.version) for one in found] == ["2"]


@pytest.mark.usefixtures("versions")
def test_show_says_what_it_is_made_of_and_what_has_changed(uri: str, name: str, shop: Path, tmp_path: Path) -> None:
    shown = headrace(uri, "show", f"{name}/2", "--pipeline", str(shop)).stdout
    for words in ("probability from probabilities; yes above 0.5", "by hand", "0.75", "all as they were", "bias-1.5"):
        assert words in shown
    other = synthetic.write_pipeline(tmp_path / "shop")
    file = other / "pipeline.yaml"
    file.write_text(file.read_text().replace("over: [1h, 1d]", "over: [1h, 2d]"))
    shown = headrace(uri, "show", f"{name}/2", "--pipeline", str(other)).stdout
    assert "1 no longer as they were" in shown
    assert re.search(r"user_amount_mean_1d .* gone", shown)
    found = as_json(uri, "show", f"{name}/2", "--pipeline", str(other))
    assert [one["feature"] for one in found["changed_features"]] == ["user_amount_mean_1d"]


@pytest.mark.usefixtures("versions")
def test_compare_says_what_differs(uri: str, name: str, shop: Path) -> None:
    found = as_json(uri, "compare", f"{name}@champion", "2")
    assert (found["added"], found["removed"], found["changed"]) == (["user_amount_mean_1d"], ["risk"], [])
    assert "no golden row has the features of both" in found["scores"]["why_not"]
    same = as_json(uri, "register", str(onnx(shop, 0.75)), "--pipeline", str(shop), "--inputs", "risk,amount")
    version = same["registered"]["version"]
    found = as_json(uri, "compare", f"{name}/1", version)
    scores = found["scores"]
    assert (found["added"], found["removed"]) == ([], [])
    # The sum does not mind the order; the bias moves a logistic function by at most a quarter of it.
    assert 0 < scores["mean"] <= scores["largest"] <= 0.25 / 4 + 1e-6
    assert scores["rows"] > 100
    assert scores["other_answer"] is not None
    shown = headrace(uri, "compare", f"{name}/1", version).stdout
    for words in ("golden scores differ by", "another answer for", "model.onnx, bytes", f"{name}/{version}"):
        assert words in shown


@pytest.mark.usefixtures("versions")
def test_promote_moves_the_alias_of_a_version_that_passes(uri: str, name: str, shop: Path, tmp_path: Path) -> None:
    try:
        moved = as_json(uri, "promote", f"{name}/2", "--pipeline", str(shop))["moved"]
        assert moved == {"name": name, "alias": "champion", "before": "1", "after": "2"}
        with connect(uri) as client:
            assert "promoted.champion" in client.get_model_version(name, "2").tags
        other = synthetic.write_pipeline(tmp_path / "shop")
        file = other / "pipeline.yaml"
        file.write_text(file.read_text().replace("max_age: 2d", "max_age: 1d"))
        refused = headrace(uri, "promote", f"{name}/1", "--pipeline", str(other))
        assert refused.exit_code == 1
        assert "was trained on feature set" in refused.stderr
        assert "[feature_set]" in refused.stderr
        assert [one["aliases"] for one in as_json(uri, "list", name)][-2:] == [["champion"], []]
    finally:
        said = headrace(uri, "promote", f"{name}/1").stdout
    assert said == f"{name}: champion pointed at version 2, now at version 1\n"


@pytest.mark.usefixtures("versions")
def test_promote_refuses_a_version_that_was_changed(uri: str, name: str) -> None:
    with connect(uri) as client:
        before = client.get_model_version(name, "2").tags["sha256.golden.json"]
        client.set_model_version_tag(name, "2", "sha256.golden.json", "0" * 64)
    try:
        refused = headrace(uri, "promote", f"{name}/2")
        assert (refused.exit_code, "[digest]" in refused.stderr) == (1, True)
        with connect(uri) as client:
            assert str(client.get_model_version_by_alias(name, "champion").version) == "1"
    finally:
        with connect(uri) as client:
            client.set_model_version_tag(name, "2", "sha256.golden.json", before)


@pytest.mark.usefixtures("versions")
def test_an_archived_version_is_out_of_use(uri: str, name: str) -> None:
    in_use = headrace(uri, "archive", f"{name}/1")
    assert (in_use.exit_code, f"[{Refusal.IN_USE}]" in in_use.stderr) == (1, True)
    assert headrace(uri, "archive", f"{name}/2").exit_code == 0
    try:
        for command in (("promote", f"{name}/2"), ("alias", f"{name}/2", "challenger")):
            refused = headrace(uri, *command)
            assert (refused.exit_code, "[archived]" in refused.stderr) == (1, True)
        with connect(uri) as client:  # as somebody does on MLflow's own page
            client.set_registered_model_alias(name, "sneaky", "2")
        with pytest.raises(ModelRefusedError, match="is archived since") as error:
            resolve(name, "sneaky", uri, None)
        assert error.value.reason is Refusal.ARCHIVED
        assert "archived" in headrace(uri, "show", f"{name}/2").stdout
    finally:
        headrace(uri, "alias", f"{name}/2", "sneaky", "--delete")
        assert headrace(uri, "archive", f"{name}/2", "--restore").exit_code == 0
    assert headrace(uri, "alias", f"{name}/2", "challenger").exit_code == 0
    assert [one["aliases"] for one in as_json(uri, "list", name)][-2:] == [["challenger"], ["champion"]]


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("show", "NAME@champ"), "has no alias 'champ'"),
        (("show", "NAME/99"), "has no version '99'"),
        (("promote", "NAMEx"), "no registered model"),
        (("archive", "NAME"), "which version? such as NAME/3"),
        (("alias", "NAME", "gone", "--delete"), "has no alias 'gone'"),
        (("register", "none.onnx", "--pipeline", "SHOP"), "[missing_file]"),
        (("register", "none.onnx", "--pipeline", "SHOP", "--meaning", "probabilty"), "did you mean 'probability'?"),
        (("register", "none.onnx", "--pipeline", "SHOP", "--metric", "auc=good"), "a number is expected"),
        (("register", "none.onnx", "--pipeline", "SHOP", "--note", "x"), "KEY=VALUE is expected"),
    ],
)
def test_mistakes_are_one_message(arguments: tuple[str, ...], text: str, uri: str, name: str, shop: Path) -> None:
    done = headrace(uri, *(one.replace("NAME", name).replace("SHOP", str(shop)) for one in arguments))
    assert done.exit_code == 1, done.output
    assert text.replace("NAME", name) in done.stderr
    assert "Traceback" not in done.stderr
