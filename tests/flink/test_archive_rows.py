"""The archive's query over predictions of several arms: the columns say arm, routing and status, the value the rest."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from pyflink.table import StreamTableEnvironment

from flink_jobs.archive_rows import rows_of
from tests.flink.cluster import Cluster
from tests.samples import FLIGHTS, payment, raw_batch, small_pipeline
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.predictions import KEY_SEPARATOR, PredictionWriter, shadow_scores
from udfs.core.offline.archive import archive_schema
from udfs.core.rows.ingest import Ingest

PIPELINE = small_pipeline(
    features=[{"entity": "user", "of": "amount", "take": ["sum"], "over": ["1s"], "slide": "1s"}],
    model={
        "name": "shop-model",
        "inputs": ["amount"],
        "canary": {"share": "5%"},
        "shadows": [{"name": "next"}],
    },
)
CONTRACT = ModelContract(
    name="shop-model",
    version="7",
    files={"model.onnx": "ab" * 32},
    feature_set="0123456789abcdef",
    tensors=[Tensor("x", "float32", ["amount"])],
    output=Output("y", "probability"),
)
NAMED = ModelContract(
    name="shop-next",
    version="8",
    files={},
    feature_set="0123456789abcdef",
    tensors=[Tensor("x", "float32", ["amount"])],
    output=Output("y", "class_scores", None, 2, ["shadow", "status"]),
)


def record(routing: str = "", status: str = "", *, shadow: bool = False, parts: bool = False) -> tuple[str, str]:
    """Return key and value of a prediction."""
    sent = [payment(5, 2_000, "ann", amount=0.1)]
    rows = Ingest.of_source(PIPELINE, FLIGHTS).process(raw_batch("shop.payments", sent, 40)).rows
    for column, number in (("_lane_user", 1), ("_seq_user", 9), ("user_amount_sum_1s", 0.1)):
        rows = rows.append_column(column, pa.array([number]))
    columns = ("amount", "user_amount_sum_1s")
    writer = PredictionWriter(CONTRACT, "canary", "id", "at_ms", columns, ("user",), routing=routing, status=status)
    beside = [{"next": shadow_scores(NAMED, np.array([[0.25, 0.75]], np.float32))[0]}] if shadow else []
    made_of = [{"b": shadow_scores(NAMED, np.array([[0.5, 0.5]], np.float32))[0]}] if parts else []
    (text,) = writer.records("shop.payments", rows, np.array([0.5], np.float32), beside, made_of)
    key, _, value = text.partition(KEY_SEPARATOR)
    return key, value


def test_columns_say_of_an_arm_what_they_say_of_a_single_model_and_the_value_is_kept(cluster: Cluster) -> None:
    records = [
        record(),
        record("00ff00ff00ff00ff"),
        record("00ff00ff00ff00ff", "previous_version"),
        record(shadow=True),
        record("00ff00ff00ff00ff", "default_score", shadow=True),
        record("00ff00ff00ff00ff", shadow=True, parts=True),
        ("p5", record()[1][:-1] + ',"more":1}'),
    ]
    tables = StreamTableEnvironment.create(cluster.environment({}))
    values = ", ".join(f"('{key}', '{value}', {i})" for i, (key, value) in enumerate(records))
    tables.execute_sql(
        "CREATE TEMPORARY VIEW sent AS SELECT CAST(v AS BYTES) AS v, CAST(k AS BYTES) AS k, 0 AS part,"
        " CAST(i AS BIGINT) AS off, CAST(5 AS BIGINT) AS ms, CAST(NULL AS MAP<STRING, BYTES>) AS h"
        f" FROM (VALUES {values}) AS T(k, v, i)"
    )
    names = [*archive_schema(PIPELINE, "predictions").names, "day"]
    found: list[dict[str, Any]] = []
    with tables.execute_sql(rows_of("sent", PIPELINE, "predictions")).collect() as collected:
        found = [dict(zip(names, row, strict=True)) for row in collected]
    found.sort(key=lambda row: row["record_offset"])
    assert len(found) == len(records)
    plain, *armed, foreign = found
    assert (plain["key"], plain["value"]) == (None, None)
    assert (plain["score"], plain["arm"], plain["lane_user"], plain["seq_user"]) == (0.5, "canary", 1, 9)
    assert (plain["amount"], plain["user_amount_sum_1s"], plain["predicted_label"]) == (0.1, 0.1, None)
    assert (plain["routing"], plain["status"]) == (None, None)
    assert [(row["routing"], row["status"]) for row in armed] == [
        ("00ff00ff00ff00ff", None),
        ("00ff00ff00ff00ff", "previous_version"),
        (None, None),
        ("00ff00ff00ff00ff", "default_score"),
        ("00ff00ff00ff00ff", None),
    ]
    kept = {"key", "value", "record_offset", "routing", "status"}
    for row, (key, value) in zip(armed, records[1:], strict=False):
        assert {name: row[name] for name in row if name not in kept} == {
            name: plain[name] for name in row if name not in kept
        }
        assert (bytes(row["key"]).decode(), json.loads(bytes(row["value"]))) == (key, json.loads(value))
    assert foreign["amount"] is None
    assert foreign["value"] is not None
