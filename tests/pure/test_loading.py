"""A broken pipeline file is refused with its path, what was got and what was probably meant."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tests.samples import FLIGHTS, RATE_JOIN, declaration
from udfs.core.declare.loading import load_pipeline
from udfs.core.errors import DefinitionError


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the small pipeline's declaration with one entry set, or taken out if the value is `...`."""
    document: dict[str, Any] = json.loads(json.dumps(declaration(enrichments=[RATE_JOIN])))
    inside: Any = document
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        inside = inside[part]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, since each test writes its own pipeline file into it."""
    return tmp_path_factory.mktemp("pipeline")


def write(folder: Path, document: dict[str, Any]) -> None:
    (folder / "pipeline.yaml").write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML, and quicker to write


def message_for(folder: Path, document: dict[str, Any]) -> str:
    write(folder, document)
    with pytest.raises(DefinitionError) as refused:
        load_pipeline(folder)
    text = str(refused.value)
    assert text.startswith(f"{folder / 'pipeline.yaml'}: ")
    return text.removeprefix(f"{folder / 'pipeline.yaml'}: ")


INT, FLOAT = {"type": "int64"}, {"type": "float64"}
LOOKUP = {"name": "shops", "key": "shop", "take": {"city": "city"}}
TWIN = {"entity": "user", "take": ["count"], "over": ["4s"], "slide": "2s"}
BROKEN: list[tuple[str, Any, str]] = [
    ("featuers", [], "featuers: unknown key; did you mean 'features'?"),
    ("source/topc", "t", "source.topc: unknown key; did you mean 'topic'?"),
    ("features/0/slides", "1s", "features[0].slides: unknown key; did you mean 'slide'?"),
    ("enrichments/0/contract/fields/rate", {"typ": "int64", "type": "int64"}, "rate.typ: unknown key; did you mean"),
    ("source", ..., "source: missing"),
    ("source/key", ..., "source.key: missing"),
    ("features/1/over", ..., "features[1].over: missing"),
    ("contract/id", ..., "contract.id: missing; say which field identifies an event"),
    ("features/0/take/0", "maen", "features[0].take[0]: got 'maen'; did you mean 'mean'?"),
    ("features/0/take", [], "features[0].take: got "),
    ("features/0/over/0", "1 hour", "features[0].over[0].sliding: got '1 hour'; a duration is a whole"),
    ("features/0/over/0", 60, "features[0].over[0].sliding: got 60; a duration is a whole number and a unit"),
    ("features/0/over/0", "1500ms", "over: got 1500ms; a window and its delay are whole multiples of its slide (1s)"),
    ("features/0/over/0", "0s", "features[0].over[0]: got sliding: 0ms; a window is at least 1ms long"),
    ("features/0/of", "amuont", "features[0].of: got 'amuont', which is no number column known here; did you mean 'a"),
    ("features/0/of", "shop", "features[0].of: got 'shop', which is no number column known here"),
    ("features/0/of", ..., "of: missing; sum, mean, min, std cannot do without a value"),
    ("features/0/entity", "usr", "features[0].entity: got 'usr', which is no string field of the contract; did you m"),
    ("source/key", "at_ms", "source.key: got 'at_ms', which is no string field of the contract"),
    ("source/format", "jsno", "source.format: got 'jsno'; did you mean 'json'?"),
    ("source/topic", "a topic", "source.topic: got 'a topic'; string should match pattern"),
    ("contract/time", "at", "time: got 'at', which is not among the fields"),
    ("contract/time", "user", "time: field 'user' must be int64 and not nullable; got string?"),
    ("contract/fields/amount", "flaot64", "contract.fields.amount.type: got 'flaot64'; did you mean 'float64'?"),
    ("contract/fields/_hidden", "int64", "fields: got '_hidden'; a name is letters, digits and underscores"),
    ("contract/fields/shop", {"type": "string", "min": 1}, "fields.shop: min and max need a number; got type string"),
    ("contract/fields/units", INT | {"max": 2.0**53}, "fields.units: max: got 9007199254740992.0; from 2**53 on write"),
    ("contract/fields/units", INT | {"max": 1e18}, "fields.units: max: got 1e+18; from 2**53 on write a whole number"),
    ("contract/fields/units", INT | {"min": 2**63}, "fields.units: got min 9223372036854775808 and max None; no int64"),
    ("contract/fields/units", INT | {"min": 0.2, "max": 0.8}, "units: got min 0.2 and max 0.8; no int64 is between"),
    ("contract/fields/amount", FLOAT | {"max": 2**53 + 1}, "amount: max: got 9007199254740993, which no float64 is"),
    ("contract/fields/amount", FLOAT | {"max": 10**400}, "which no float64 is; round it to a number that is one"),
    ("contract/fields/amount", FLOAT | {"min": 2, "max": 1.5}, "amount: got min 2.0 and max 1.5; no float64 is"),
    ("contract/fields/amount", FLOAT | {"min": math.nan}, "fields.amount: min: got nan; a bound is finite, or left"),
    ("lookups", [LOOKUP | {"file": "../shops.csv"}], "lookups[0].file: got '../shops.csv', which leaves the pipe"),
    ("lookups", [LOOKUP | {"file": "a/../../shops.csv"}], "lookups[0].file: got 'a/../../shops.csv', which leaves"),
    ("lookups", [LOOKUP | {"file": "/data/shops.csv"}], "lookups[0].file: got '/data/shops.csv', which leaves the pip"),
    ("derive", {"function": "../t.py:f", "outputs": {}}, "derive.function: got '../t.py', which leaves the pip"),
    ("derive", {"function": "/etc/t.py:f", "outputs": {}}, "derive.function: got '/etc/t.py', which leaves the pip"),
    ("features/2", TWIN, "feature 'user_count_4s' stands twice: in features[1], and in features[2]; keep"),
    ("contract/fields/user_count_4s", "int64", "feature 'user_count_4s' stands twice: as a column that is no feature"),
    ("enrichments/0/take/amount", "rate", "enrichments[0]: column 'amount' exists already, from contract"),
    ("enrichments/0/take/rate", "rat", "enrichments[0].take.rate: got 'rat', which is no bool or float64 or int64"),
    ("enrichments/0/entity", "shp", "enrichments[0].entity: got 'shp', which is no entity of a feature; did you mean "),
    ("enrichments/0/max_age", ..., "enrichments[0].max_age: missing"),
    ("derive", {"function": "transforms:f", "outputs": {}}, "derive.function: got 'transforms:f'; string should match"),
    ("model/inputs", ["amount", "rte"], "model.inputs[1]: got 'rte', which is no number column known here; did you"),
    ("lanes", 0, "lanes: got 0; input should be greater than or equal to 1"),
    ("sinks/late", ..., "sinks.late: missing"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "expected"), BROKEN)
def test_a_wrong_entry_is_refused_by_path_value_and_guess(path: str, value: Any, expected: str, folder: Path) -> None:
    assert expected in message_for(folder, changed(path, value))


def test_the_entry_that_is_changed_was_right_before(tmp_path: Path) -> None:
    document = changed("description", "as it was")
    write(tmp_path, document)
    assert load_pipeline(tmp_path) == load_pipeline(tmp_path / "pipeline.yaml")
    assert load_pipeline(tmp_path).description == "as it was"


def test_every_problem_is_listed_on_its_own_line(tmp_path: Path) -> None:
    document = changed("source/key", ...)
    document["features"][0]["take"] = ["maen", "stdd"]
    lines = message_for(tmp_path, document).replace(f"{tmp_path / 'pipeline.yaml'}: ", "").split("\n")
    assert lines == [
        "source.key: missing",
        "features[0].take[0]: got 'maen'; did you mean 'mean'?",
        "features[0].take[1]: got 'stdd'; did you mean 'std'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b\n", "is not valid YAML: key 'name' stands twice in "),
        ("source: {topic: a, key: k, topic: b}\n", "is not valid YAML: key 'topic' stands twice in "),
        ("name: [a\n", "is not valid YAML: while parsing a flow sequence"),
        ("\tname: a\n", "is not valid YAML: "),
        ("- a\n- b\n", "got list; expected a mapping of name, description, source"),
        ("", "got NoneType; expected a mapping of name,"),
        ("!!python/object/apply:os.system [true]\n", "is not valid YAML: could not determine a constructor"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DefinitionError, match=re.escape(f"{path}: {expected}")):
        load_pipeline(tmp_path)


def test_a_file_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(DefinitionError, match="is not valid YAML: 'utf-8' codec can't decode"):
        load_pipeline(tmp_path)


def test_a_missing_file_is_named_with_the_nearest_folder_that_has_one(tmp_path: Path) -> None:
    (tmp_path / "flights").mkdir()
    (tmp_path / "flights" / "pipeline.yaml").touch()
    expected = re.escape(f"{tmp_path / 'fligths' / 'pipeline.yaml'}: no such file; did you mean 'flights'?")
    with pytest.raises(DefinitionError, match=expected):
        load_pipeline(tmp_path / "fligths")


def test_the_flights_pipeline_is_right() -> None:
    assert load_pipeline(FLIGHTS).name == "flights"
