"""The archive without its job: columns, the pattern of what they say all of, and the reader."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flink_jobs.archive_rows import prediction_pattern, rows_of, sql_type
from flink_jobs.config import Environment, archive_of, load_environment
from tests.samples import declaration
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import DefinitionError
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.predictions import KEY_SEPARATOR, PredictionWriter
from udfs.core.offline.archive import (
    DAY,
    KINDS,
    ArchiveError,
    archive_schema,
    archived_features,
    archived_topics,
    is_begun,
    open_archive,
)
from udfs.core.plan.features import feature_columns, plan_stages

LABEL = {"topic": "shop.refunds", "of": "refund", "above": 1}
LABEL_CONTRACT = {"id": "id", "time": "at_ms", "fields": {"id": "string", "at_ms": "int64", "refund": "float64?"}}
SHOP = Pipeline.model_validate(declaration(label={**LABEL, "contract": LABEL_CONTRACT}))
PATTERN = re.compile(prediction_pattern(SHOP))
OUTPUTS = (
    Output("y", "probability"),
    Output("y", "class_scores", width=2, classes=["no", "yes, {or} so"]),
    Output("y", "vector", width=2),
)
TODAY = dt.date(2026, 1, 31)


def writer(output: Output) -> PredictionWriter:
    contract = ModelContract(
        name="shop-model",
        version="7",
        files={"model.onnx": "ab" * 32},
        feature_set="0123456789abcdef",
        tensors=[Tensor("x", "float32", FEATURES)],
        output=output,
    )
    return PredictionWriter(contract, "champion", "id", "at_ms", FEATURES, ENTITIES)


FEATURES, ENTITIES = list(feature_columns(SHOP)), [stage.entity for stage in plan_stages(SHOP)]
WRITERS = [(output.width, writer(output)) for output in OUTPUTS]


def written(number: int, features: list[float | None], event_id: str = "p1") -> str:
    """Return a prediction with one of the outputs as the project's own writer encodes it."""
    row: dict[str, Any] = {"id": [event_id], "at_ms": [-5], "_partition": [1], "_offset": [2**50], "_timestamp_ms": [0]}
    row |= {name: pa.array([value], pa.float64()) for name, value in zip(FEATURES, features, strict=True)}
    row |= {f"_{part}_{entity}": [3] for part in ("lane", "seq") for entity in ENTITIES}
    width, one = WRITERS[number]
    scores = np.full((1, width) if width > 1 else 1, 0.1, np.float32)
    return one.write("shop.payments", pa.RecordBatch.from_pydict(row), scores).partition(KEY_SEPARATOR)[2]


@given(
    st.data(), st.sampled_from(range(len(OUTPUTS))), st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)
)
def test_the_pattern_knows_whatever_the_writer_writes(data: st.DataObject, output: int, event_id: str) -> None:
    number = st.none() | st.floats(allow_nan=False, allow_infinity=False)
    features = data.draw(st.lists(number, min_size=len(FEATURES), max_size=len(FEATURES)))
    assert PATTERN.search(written(output, features, event_id))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("}}", '},"status":"fallback"}'),  # a member that no column holds
        ('"score":0.1', '"score":"0.1"'),
        ('"score":0.1', '"score":NaN'),
        ('"offset":1', '"offset":1.0'),
        ('"event_time_ms":-5', '"event_time_ms":' + "9" * 19),
        ('"order":{"user"', '"order":{"merchant"'),
        ('"features":{"user', '"features":{"merchant'),
        ("null", '"null"'),
        ("}}", "}}\n"),
        ("}}", "}} "),
        ("}}", "}"),
        ("{", "[{"),
        ('"arm":"', '"arm":"\\"'),
    ],
)
def test_the_pattern_refuses_what_columns_cannot_say(old: str, new: str) -> None:
    good = written(0, [None] * len(FEATURES))
    assert old in good
    assert PATTERN.search(good)
    assert not PATTERN.search(good.replace(old, new, 1))


def test_columns_follow_from_the_pipeline() -> None:
    names = archive_schema(SHOP, "predictions").names
    assert [name for name in feature_columns(SHOP) if name not in names] == []
    assert {"event_id", "score", "model_version", "origin_offset", "lane_user", "seq_shop", "value"} <= set(names)
    assert len(set(names)) == len(names)
    assert "reason" in archive_schema(SHOP, "late").names
    assert archive_schema(SHOP, "labels").field("label").type == pa.float64()
    for kind in KINDS:
        assert all(sql_type(field.type) for field in archive_schema(SHOP, kind))


def test_a_feature_whose_name_is_taken_gets_an_underscore() -> None:
    fields = {
        "id": "string",
        "at_ms": "int64",
        "user": "string",
        "score": "float64",
        "score_": "float64",
        "day": "int64",
    }
    contract = {"id": "id", "time": "at_ms", "fields": fields}
    features = [{"entity": "user", "of": "score", "take": ["sum"], "over": ["1s"], "slide": "1s"}]
    model = {"name": "m", "inputs": ["score", "score_", "day"]}
    pipeline = Pipeline.model_validate(declaration(contract=contract, features=features, enrichments=[], model=model))
    assert archived_features(pipeline) == {
        "score": "score__", "score_": "score_", "day": "day_", "user_score_sum_1s": "user_score_sum_1s"
    }  # fmt: skip


def test_features_that_are_not_written_have_no_columns() -> None:
    declared = declaration()
    declared["sinks"]["predictions"]["features"] = False
    pipeline = Pipeline.model_validate(declared)
    assert archived_features(pipeline) == {}
    assert '"features"' not in prediction_pattern(pipeline)


def test_a_pipeline_without_labels_archives_none() -> None:
    assert "labels" not in archived_topics(Pipeline.model_validate(declaration()))
    assert set(archived_topics(SHOP)) == set(KINDS)


def test_kinds_that_share_a_topic_are_told_apart_by_their_reason() -> None:
    declared = declaration()
    declared["sinks"]["late"] = declared["sinks"]["rejects"]
    shared = Pipeline.model_validate(declared)
    assert rows_of("t", shared, "late").endswith("AS STRING) = 'late'")
    assert "NOT IN ('late', 'kept')" in rows_of("t", shared, "rejects")
    assert "WHERE" not in rows_of("t", shared, "order")
    assert "WHERE" not in rows_of("t", SHOP, "rejects")


def write(folder: Path, table: pa.Table, day: dt.date = TODAY, name: str = "part-1-0-0") -> None:
    place = folder / "shop" / "rejects" / f"day={day}"
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, place / name)


def rejects(*offsets: int) -> pa.Table:
    schema = archive_schema(SHOP, "rejects")
    place = {"record_partition": 0, "record_timestamp_ms": 5, "headers": [("h", b"\xff")]}
    return pa.Table.from_pylist([{**place, "record_offset": offset} for offset in offsets], schema)


@pytest.mark.parametrize("as_uri", [True, False])
def test_the_reader_sees_committed_files_and_their_days(tmp_path: Path, *, as_uri: bool) -> None:
    write(tmp_path, rejects(1, 2))
    write(tmp_path, rejects(3), TODAY + dt.timedelta(1))
    write(tmp_path, rejects(4), name=".part-1-0-1.inprogress.6f")
    found = open_archive(tmp_path.as_uri() if as_uri else str(tmp_path), SHOP, "rejects").to_table()
    assert dict(zip(found["record_offset"].to_pylist(), found[DAY].to_pylist(), strict=True)) == {
        1: TODAY, 2: TODAY, 3: TODAY + dt.timedelta(1)
    }  # fmt: skip
    assert found["headers"].to_pylist()[0] == [("h", b"\xff")]


def test_what_an_older_file_lacks_is_null_and_what_it_has_more_is_left(tmp_path: Path) -> None:
    write(tmp_path, rejects(1).drop(["stage"]).append_column("another", pa.array([1.0])))
    found = open_archive(str(tmp_path), SHOP, "rejects").to_table()
    assert found["stage"].to_pylist() == [None]
    assert found.column_names == [*archive_schema(SHOP, "rejects").names, DAY]


def test_a_kind_without_files_is_empty_and_no_archive_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, rejects(1))
    assert open_archive(str(tmp_path), SHOP, "late").to_table().schema.names[-1] == DAY
    other = SHOP.model_copy(update={"name": "shopp"})
    with pytest.raises(ArchiveError, match="holds no archive of pipeline 'shopp'; did you mean 'shop'"):
        open_archive(str(tmp_path), other, "rejects")
    with pytest.raises(ArchiveError, match="there is no such folder; run `headrace run archive` first"):
        open_archive(str(tmp_path / "nowhere"), SHOP, "rejects")
    with pytest.raises(ArchiveError, match="got kind 'reject'; did you mean 'rejects'"):
        open_archive(str(tmp_path), SHOP, "reject")  # type: ignore[arg-type]


def test_an_archive_is_begun_once_a_file_is_committed(tmp_path: Path) -> None:
    assert not is_begun(str(tmp_path), "shop")
    write(tmp_path, rejects(4), name=".part-1-0-1.inprogress.6f")
    assert not is_begun(tmp_path.as_uri(), "shop")
    write(tmp_path, rejects(4))
    assert is_begun(tmp_path.as_uri(), "shop")
    assert not is_begun(str(tmp_path), "another")


def test_a_root_may_be_relative_to_the_project_and_no_root_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "conf" / "here.yaml"
    file.parent.mkdir()
    flink = {"rest_url": "http://127.0.0.1:1", "checkpoints": "file:///c", "savepoints": "file:///s"}
    declared = {"kafka": {"bootstrap_servers": "b:1"}, "mlflow": {"tracking_uri": "http://m"}, "flink": flink}
    file.write_text(json.dumps(declared | {"archive": {"root": "build/archive", "checkpoint_interval": "2m"}}))
    archive = archive_of(load_environment(file), file)
    assert archive.root == (tmp_path / "build" / "archive").as_uri()
    assert (archive.checkpoint_interval_ms, archive.file_mb) == (120_000, 128)
    with pytest.raises(DefinitionError, match=r"here\.yaml: archive: missing; say where Parquet files go"):
        archive_of(Environment.model_validate(declared), file)
    elsewhere = declared | {"archive": {"root": "s3://bucket/a"}}
    file.write_text(json.dumps(elsewhere))
    assert archive_of(load_environment(file), file).root == "s3://bucket/a"
