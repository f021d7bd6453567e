"""The command line, without services: help, validate, plan, schema, messages."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from flink_jobs.cli import ORDER, app
from flink_jobs.schema import SCHEMAS, schema_text
from scripts.docs.reference import MarkerError, filled

ROOT = Path(__file__).parents[2]
FLIGHTS = ROOT / "conf" / "flights"
CARRIER = "  - {entity: carrier, of: is_delayed_15"
# A change of conf/flights/pipeline.yaml, and the message that it brings.
WRONG = [
    (
        CARRIER,
        "  - {entity: carrier, of: dep_delay_min, take: [mean], over: [6h], slide: 1m}\n" + CARRIER,
        "'carrier_dep_delay_min_mean_6h' stands twice: in features[4], and in features[5]; keep one",
    ),
    (
        "plane_seats: seats}",
        "plane_seats: tailnum}",
        "planes.csv: column 'tailnum' holds string; lookup 'planes' takes",
    ),
    ("plane_seats: seats}", "plane_seats: seat}", "'seat', which is not in the file; did you mean 'seats'?"),
    ("file: planes.csv", "file: plane.csv", "file of lookup 'planes' is missing; did you mean 'planes.csv'?"),
    ("py:departure_columns", "py:departure_column", "has no function 'departure_column'; did you mean"),
    ("dep_hour: int64, ", "", "derive.outputs declares dep_weekday, is_delayed_15, plane_age_years"),
    ("plane_year: year,", "year_built: year,", "raised KeyError for a batch of no rows"),
    ("inputs: [dep_delay_min,", "inputs: [distance_mi,", "model.inputs[1]: 'distance_mi' stands twice"),
]


def headrace(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FLIGHTS, tmp_path / "flights"))


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "pipeline.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_help_lists_every_command_and_examples() -> None:
    shown = headrace("--help")
    assert shown.exit_code == 0
    for name in ORDER:
        assert name in shown.stdout
    assert "headrace run score --pipeline conf/flights" in shown.stdout


def test_validate_names_what_it_checked() -> None:
    done = headrace("validate")
    assert done.exit_code == 0
    assert "conf/flights  feature set " in done.stdout


def test_validate_goes_on_behind_a_wrong_pipeline(flights: Path) -> None:
    change(flights, "take: [count, mean, max],      over: [1d, 3d]", "take: [count, maen, max], over: [1d, 3d]")
    done = headrace("validate", str(flights), str(FLIGHTS))
    assert done.exit_code == 1
    assert f"{flights}/pipeline.yaml: features[0].take[1]: got 'maen'; did you mean 'mean'?" in done.stderr
    assert "feature set" in done.stdout


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_validate_says_what_is_wrong(flights: Path, old: str, new: str, message: str) -> None:
    if new == "":
        change(flights, "dep_delay_min, distance_mi, dep_hour, dep_weekday", "dep_delay_min, distance_mi, dep_weekday")
    change(flights, old, new)
    done = headrace("validate", str(flights))
    assert done.exit_code == 1
    assert message in done.stderr


def test_plan_as_text_shows_path_state_and_guarantees() -> None:
    done = headrace("plan", "--pipeline", str(FLIGHTS))
    assert done.exit_code == 0
    for words in ("featurize-tailnum", "as-of join weather", "≤ 148 = 11,840 B", "exactly once, visible at checkpoint"):
        assert words in done.stdout


def test_plan_as_json_has_stable_keys() -> None:
    done = headrace("plan", "--pipeline", str(FLIGHTS), "--json")
    found = json.loads(done.stdout)
    assert [stage["name"] for stage in found["stages"]] == [
        "featurize-tailnum",
        "featurize-origin",
        "featurize-carrier",
    ]
    assert found["runtime"]["checkpoint_interval_ms"] == 5000
    assert found["stages"][1]["joins"][0]["columns"] == ["temp_f", "wind_speed_mph", "precip_in", "visib_mi"]
    assert len(found["inputs"]) == 34
    assert {"pipeline", "feature_set", "lanes", "sinks", "model", "source_topic"} <= set(found)


@pytest.mark.parametrize("command", [["validate"], ["plan", "--pipeline"]])
def test_a_pipeline_may_be_named_by_its_file(command: list[str]) -> None:
    by_folder, by_file = (headrace(*command, str(path)) for path in (FLIGHTS, FLIGHTS / "pipeline.yaml"))
    assert by_folder.exit_code == by_file.exit_code == 0
    assert by_file.output == by_folder.output


def test_an_error_is_one_message_and_exit_code_1() -> None:
    done = headrace("plan", "--pipeline", "conf/flightz")
    assert done.exit_code == 1
    assert done.stderr == "headrace: conf/flightz/pipeline.yaml: no such file; did you mean 'flights'?\n"
    assert "Traceback" in headrace("--debug", "plan", "--pipeline", "conf/flightz").stderr


def test_a_cluster_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "away.yaml"
    flink = {"rest_url": "http://127.0.0.1:1", "checkpoints": "file:///c", "savepoints": "file:///s"}
    mlflow = {"tracking_uri": "http://127.0.0.1:1"}
    file.write_text(yaml.safe_dump({"kafka": {"bootstrap_servers": "b:1"}, "mlflow": mlflow, "flink": flink}))
    done = headrace("status", "--environment", str(file))
    assert done.exit_code == 1
    assert "http://127.0.0.1:1: there is no Flink cluster to reach" in done.stderr


def test_parts_show_their_own_help() -> None:
    done = headrace("services", "up", "--help")
    assert done.exit_code == 0
    assert "wait until they are ready" in done.stdout


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_in_conf_is_current(name: str) -> None:
    assert (ROOT / "conf" / name).read_text(encoding="utf-8") == schema_text(name), "write it with: make schema"


def test_the_schema_accepts_what_people_write() -> None:
    models = json.loads(schema_text("pipeline.schema.json"))["$defs"]
    short = models["Contract"]["properties"]["fields"]["additionalProperties"]["anyOf"]
    assert any(one.get("type") == "string" for one in short)
    assert models["FeatureGroup"]["properties"]["slide"]["default"] is None
    assert models["TimePolicy"]["properties"]["allowed_lateness"]["default"] == "1h"


def test_the_reference_in_the_readme_is_current() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert filled(readme) == readme, "write it with: make docs"
    assert "`features[].slide`" in readme


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(MarkerError, match="aggregations:begin"):
        filled("# A README")
