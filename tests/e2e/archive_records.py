"""What the topics of a pipeline hold in a test of its archive: records of the project's own writers, and spoilt ones.

Beside them an oracle: the row that each record should become, by Python's own JSON.
"""

import datetime as dt
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from scripts.kafka.consume import Record
from tests.synthetic import START_MS
from udfs.core.declare.definition import Pipeline
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.predictions import KEY_SEPARATOR, RECORD_SEPARATOR, PredictionWriter
from udfs.core.offline.archive import ArchiveKind, archived_features
from udfs.core.plan.features import feature_columns, plan_stages
from udfs.core.rows.batches import OFFSET, PARTITION, TIMESTAMP_MS, lane_column, seq_column
from udfs.core.rows.letters import Kind, Letter, headers, order_json

DAY_MS = 86_400_000
EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
YEARS_MS = (-62_135_596_800_000, 253_402_300_799_999)
SPECIAL = (-0.0, 5e-324, 0.1, 1e16, 1e22, 2.0**53 + 2, 1.7976931348623157e308, np.nan)
OUTPUTS = (
    Output("y", "probability"),
    Output("y", "class_scores", width=2, classes=["yes", "no, or {so}"]),
    Output("y", "class_scores", width=2, classes=['a "b"', "c"]),
    Output("y", "vector", width=3),
)
Sent = tuple[bytes | None, bytes | None, dict[str, bytes]]
"""Key, value and headers of a record."""


def of_kind(pipeline: Pipeline, kind: ArchiveKind, first: int, count: int) -> list[Sent]:
    """Return records of a kind, good and spoilt."""
    if kind == "labels":
        return labels(first, count)
    if kind != "predictions":
        return letters(kind, pipeline.source.topic, first, count)
    good = predictions(pipeline, first, count)
    return [*good, *spoilt(good[0]).values()]


def predictions(pipeline: Pipeline, first: int, count: int) -> list[Sent]:
    """Return predictions with features of any bits, of a model of each kind of output."""
    random = np.random.default_rng(first)
    rows = _rows(pipeline, first, count, random)
    features = list(feature_columns(pipeline))
    found: list[Sent] = []
    for position, output in enumerate(OUTPUTS):
        contract = ModelContract(
            name="shop-refund",
            version="7",
            files={"model.onnx": "ab" * 32},
            feature_set="0123456789abcdef",
            tensors=[Tensor("x", "float32", features)],
            output=output,
        )
        writer = PredictionWriter(
            contract, "champion", "order_id", "at_ms", features, [stage.entity for stage in plan_stages(pipeline)]
        )
        mine = rows.slice(position * count // len(OUTPUTS), count // len(OUTPUTS))
        shape = (mine.num_rows,) if output.width == 1 else (mine.num_rows, output.width)
        text = writer.write(pipeline.source.topic, mine, random.standard_normal(shape).astype(np.float32))
        pairs = [record.encode().split(KEY_SEPARATOR.encode()) for record in text.split(RECORD_SEPARATOR)]
        found += [(key, value, {}) for key, value in pairs]
    return found


def spoilt(good: Sent) -> dict[str, Sent]:
    """Return records that are no predictions, or more than one; made from a good one."""
    key, value, _ = good
    assert key is not None
    assert value is not None
    says_more = value[:-1] + b',"status":"fallback"}'
    return {
        "tombstone": (key, None, {}),
        "empty": (key, b"", {}),
        "no JSON": (b"k", b"\x00\xff nonsense", {}),
        "no object": (None, b"[1]", {}),
        "another object": (key, b'{"event_id":5}', {}),
        "cut": (key, value[:-7], {}),
        "no UTF-8": (key, value.replace(b'"arm":"', b'"arm":"\xc3'), {}),
        "deep": (key, b'{"event_id":' + b"[" * 100_000, {}),
        "long": (key, b'{"event_id":"' + b"\\n" * 300_000, {}),
        "spread out": (key, json.dumps(json.loads(value), indent=1).encode(), {}),
        "beyond int64": (key, value.replace(b'"offset":', b'"offset":1' + b"0" * 20), {}),
        "says more": (key, says_more, {}),
        "another line": (key, value + b"\n", {}),
        "other key": (b"other", value, {}),
    }


def letters(kind: Kind, topic: str, first: int, count: int) -> list[Sent]:
    """Return letters of a kind as the job sends them, and records that are none."""
    random = np.random.default_rng(first)
    found: list[Sent] = []
    for i in range(first, first + count):
        value = None if i % 11 == 0 else random.bytes(int(random.integers(0, 40)))
        key = None if i % 7 == 0 and value is not None else f"k{i}\xff".encode("latin-1")
        time_ms = START_MS + i * DAY_MS // 50
        stamp = {"user": (0, i)} if i % 3 else {}
        letter = Letter(
            kind, topic, i % 3, i, time_ms, "decode", "malformed", f"détail {i} \x1e", order_json(stamp), key, value
        )
        found.append((key, value, headers(letter)))
    return [*found, (b"", None, {}), (b"k", b"v", {"headrace.offset": b"many", "headrace.partition": b"9" * 30})]


def labels(first: int, count: int) -> list[Sent]:
    """Return labels, good ones and others."""
    found: list[Sent] = []
    random = np.random.default_rng(first)
    for i in range(first, first + count):
        number = [None, -0.0, 0, -1.5, *struct.unpack("<d", random.bytes(8))][i % 5]
        if number is not None and not np.isfinite(number):
            number = 0.1
        fields = {"order_id": f'é"\\\u2028{i}', "at_ms": START_MS + i * DAY_MS // 50, "refund": number}
        found.append((f"o{i}".encode(), json.dumps(fields, ensure_ascii=bool(i % 2)).encode(), {}))
    others = [b"", None, b"\xff", b"[" * 100_000, b'{"refund":1e999,"at_ms":1e400,"order_id":7}', b'"text"']
    others += [b'{"refund":"12","at_ms":"5","order_id":null}', b'{"refund":true,"at_ms":9223372036854775807}']
    others += [b'{"refund":3.5', b'{"refund":1e999999999,"at_ms":1e999999999,"order_id":"x"}']
    return found + [(b"k", value, {}) for value in others]


def prediction_row(pipeline: Pipeline, record: Record, what: str = "") -> dict[str, Any]:
    """Return what a record of the predictions topic should become; `what` of `spoilt` it is, if it is one."""
    read: dict[str, Any] = {}
    if what in ("", "says more", "another line", "other key", "beyond int64"):
        read = json.loads(record.value or b"")
        if what == "beyond int64":
            read["origin"]["offset"] = None
    scores = read.get("scores")
    escaped = scores is not None and any('"' in name for name in scores)
    whole = what in ("", "other key") and not escaped
    origin, model = read.get("origin", {}), read.get("model", {})
    order, features = (read.get(name, {}) if whole else {} for name in ("order", "features"))
    row = {name: read.get(name) for name in ("event_id", "event_time_ms", "score", "vector", "arm", "feature_set")}
    row |= dict.fromkeys(("routing", "status"))  # a pipeline with a single model writes neither
    row["predicted_label"] = read.get("label")
    row["scores"] = None if escaped or scores is None else sorted(scores.items())
    row |= {f"model_{name}": model.get(name) for name in ("name", "version", "sha256")}
    row |= {f"origin_{name}": origin.get(name) for name in ("topic", "partition", "offset", "timestamp_ms")}
    for stage in plan_stages(pipeline):
        row[f"lane_{stage.entity}"], row[f"seq_{stage.entity}"] = order.get(stage.entity, (None, None))
    row |= {column: features.get(feature) for feature, column in archived_features(pipeline).items()}
    row["key"] = None if whole and what != "other key" else record.key
    row["value"] = None if whole else record.value
    return row | _place(record, row["event_time_ms"])


def letter_row(record: Record) -> dict[str, Any]:
    """Return what a letter should become."""
    found = dict(record.headers)
    read = {name: found[f"headrace.{name}"].decode() if f"headrace.{name}" in found else None for name in NAMES}
    numbers = {name: _whole(read[name]) for name in ("partition", "offset", "timestamp_ms")}
    return {
        "origin_topic": read["topic"],
        "origin_partition": numbers["partition"],
        "origin_offset": numbers["offset"],
        "origin_timestamp_ms": numbers["timestamp_ms"],
        **{name: read[name] for name in ("stage", "reason", "detail")},
        "stamps": read["order"],
        "headers": sorted(found.items()),
        "key": record.key,
        "value": record.value,
        **_place(record, numbers["timestamp_ms"]),
    }


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and len(text) < 19 else None


NAMES = ("topic", "partition", "offset", "timestamp_ms", "stage", "reason", "detail", "order")


def label_row(record: Record) -> dict[str, Any]:
    """Return what a label should become."""
    try:
        fields = json.loads(record.value or b"")
    except (ValueError, RecursionError):
        fields = {}
    fields = fields if isinstance(fields, dict) else {}
    name, at, number = (fields.get(name) for name in ("order_id", "at_ms", "refund"))
    time_ms = at if type(at) is int and abs(at) < 2**63 else None
    return {
        "event_id": name if isinstance(name, str) else None,
        "event_time_ms": time_ms,
        "label": float(number) if isinstance(number, int | float) and np.isfinite(number) else None,
        "key": record.key,
        "value": record.value,
        **_place(record, time_ms),
    }


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the archive with its mappings in order."""
    is_map = {
        name: isinstance(value, list) and bool(value) and isinstance(value[0], tuple) for name, value in row.items()
    }
    return {name: sorted(value) if is_map[name] else value for name, value in row.items()}


def bits(rows: Iterable[Mapping[str, Any]]) -> list[tuple[tuple[str, Any], ...]]:
    """Return rows so that they can be sorted and compared: floats by their bits, mappings by name."""
    return [tuple((name, _bits(row[name])) for name in sorted(row)) for row in rows]


def _bits(value: Any) -> Any:
    if isinstance(value, float):
        return struct.pack("<d", value).hex()
    if isinstance(value, list | tuple):
        return tuple(_bits(one) for one in value)
    return value


def _place(record: Record, time_ms: int | None) -> dict[str, Any]:
    dated_ms = record.timestamp_ms if time_ms is None or not YEARS_MS[0] <= time_ms <= YEARS_MS[1] else time_ms
    return {
        "day": dt.date.fromordinal(EPOCH_DAY + dated_ms // DAY_MS),
        "record_partition": record.partition,
        "record_offset": record.offset,
        "record_timestamp_ms": record.timestamp_ms,
    }


def _rows(pipeline: Pipeline, first: int, count: int, random: np.random.Generator) -> pa.RecordBatch:
    """Return scored rows; features have any bits, event times lie in the year 1, before 1970 and in several days."""
    numbers = range(first, first + count)
    times = [START_MS + i * DAY_MS // 200 for i in numbers]
    times[:2] = [-62_135_596_800_000, -1]
    columns: dict[str, Sequence[Any] | pa.Array] = {
        "order_id": [f'é"\\\u2028{i}' if i % 9 == 0 else f"o{i}" for i in numbers],
        "at_ms": times,
        PARTITION: pa.array([i % 3 for i in numbers], pa.int32()),
        OFFSET: [2**40 + i for i in numbers],
        TIMESTAMP_MS: [START_MS + i for i in numbers],
    }
    for stage in plan_stages(pipeline):
        columns[lane_column(stage.entity)] = pa.array([0] * count, pa.int32())
        columns[seq_column(stage.entity)] = list(numbers)
    for feature in feature_columns(pipeline):
        values = np.frombuffer(random.bytes(8 * count), np.float64).copy()
        values[~np.isfinite(values)] = np.nan
        values[: len(SPECIAL)] = random.permutation(SPECIAL)
        columns[feature] = pa.array(values, from_pandas=True)
    return pa.RecordBatch.from_pydict(columns)
