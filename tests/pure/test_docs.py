"""The pages in docs/: every example runs, twice, and gives what stands there; what is generated is current."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from flink_jobs.schema import schema_text
from scripts.docs.features import FAMILIES, features_page
from scripts.docs.reference import main
from scripts.docs.worked import Example, ExampleError, at_once, examples, one_by_one, parse, time_ms
from udfs.core.declare.catalog import CATALOG
from udfs.core.declare.feature_groups import FeatureGroup

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("semantics", "features")}
EXAMPLES = [
    pytest.param(example, id=f"{page}-{number}")
    for page, text in PAGES.items()
    for number, example in enumerate(examples(text))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_gives_what_the_page_says(example: Example) -> None:
    assert tuple(at_once(example)) == example.wanted
    assert tuple(one_by_one(example)) == example.wanted, "record by record, restored before each"


def test_no_example_is_passed_over() -> None:
    for text in PAGES.values():
        assert len(list(examples(text))) == text.count("```yaml\nfeatures:") > 5


def test_the_page_of_features_is_current() -> None:
    assert features_page() == PAGES["features"], "write it with: make docs"
    assert sorted(name for names in FAMILIES.values() for name in names) == sorted(CATALOG)


def test_a_stale_document_is_found_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    page, readme = tmp_path / "docs" / "features.md", tmp_path / "README.md"
    page.write_text("# Features", encoding="utf-8")
    readme.write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    root = ["--root", str(tmp_path)]
    assert main([*root, "--check"]) == 1
    assert f"{page}: the generated parts are stale" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "# Features"
    assert main(root) == main([*root, "--check"]) == 0
    assert page.read_text(encoding="utf-8") == PAGES["features"]


def test_the_schema_knows_what_the_pages_show() -> None:
    schema = json.loads(schema_text("pipeline.schema.json"))
    group = Draft202012Validator({"$ref": "#/$defs/FeatureGroup", "$defs": schema["$defs"]})
    declared = [
        group_
        for text in PAGES.values()
        for block in text.split("```yaml\n")[1:]
        for group_ in yaml.safe_load(block.partition("```")[0]).get("features", [])
    ]
    assert len(declared) > 10
    for one in declared:
        group.validate(one)


@pytest.mark.parametrize(
    ("take", "over"),
    [
        (["maen"], ["1h"]),
        ([{"last_n": 0}], ["1h"]),
        ([{"last_n": 3, "first_n": 3}], ["1h"]),
        ([{"mean": 3}], ["1h"]),
        ([{"quantile": 1.5}], ["1h"]),
        ([{"decayed_sum": "one hour"}], ["1h"]),
        (["mean"], ["1 hour"]),
        (["mean"], [{"sliding": 1}]),
        (["mean"], [{"tumble": "1h"}]),
    ],
)
def test_the_schema_refuses_what_a_pipeline_refuses(take: list[object], over: list[object]) -> None:
    schema = json.loads(schema_text("pipeline.schema.json"))
    group = Draft202012Validator({"$ref": "#/$defs/FeatureGroup", "$defs": schema["$defs"]})
    assert group.is_valid({"entity": "user", "of": "amount", "take": ["mean"], "over": ["1h"]})
    wrong = {"entity": "user", "of": "amount", "take": take, "over": over}
    assert not group.is_valid(wrong)
    with pytest.raises(ValidationError):
        FeatureGroup.model_validate(wrong)


def test_examples_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(ExampleError, match="10:00:30 or Tue-10:00"):
        time_ms("noon")
    with pytest.raises(ExampleError, match="the head has"):
        parse({}, {}, "at user -> a b\n10:00 ann -> 1 2 3\n")
    with pytest.raises(ExampleError, match="before the pipeline"):
        list(examples("```yaml\nfeatures: []\n```\n\n```text\nat -> a\n```\n"))
