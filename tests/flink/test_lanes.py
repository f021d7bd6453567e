"""The adapter between SQL and Python: records cross bit for bit, lanes are as the pure package says, evenly spread."""

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment

from flink_jobs.lanes import by_lane, lanes_of_topic
from scripts.kafka.consume import read_all
from scripts.kafka.topics import Topic, create
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.names import fresh_prefix
from tests.flink.operators import Recorder
from udfs.batch_rows import RAW_TYPE
from udfs.core.rows.lanes import key_group, lane_keys, lane_of

LANES, PARALLELISM, MAX_PARALLELISM = 4, 2, 128
TEXTS = (
    *(f"N{number:03}UA" for number in range(40)),
    "",
    " ",
    "a'b\"c\\",
    "naïve",
    "Zürich",
    "機場",
    "٣",
    "🛫",
    "a🛬b🛩",
    "e\u0301",
    "\u0000",
    "\uffff",
    "polygenelubricants",  # its Java hash is the smallest int, whose absolute value is negative
)
NOT_UTF8 = (b"\xff", b"\xffN1", b"\xc3", b"\xed\xa0\x80", b"N1\x80", bytes(range(128, 256)))
KEYS: tuple[bytes | None, ...] = (None, *(text.encode() for text in TEXTS), *NOT_UTF8)
VALUES = (None, b"", b"\x00", b"{}", bytes(range(256)), b"\x1e\x1f\n\t'", b"x" * 100_000)
TIMES_MS = (0, 1, 999, 1_000, 1_357_034_461_234, 2**31 * 1000 - 1, 2**31 * 1000, 253_402_300_799_999)


@pytest.fixture(scope="module")
def seen(
    services: Endpoints, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return (records of the topic, what the Python operators saw of them)."""
    topic, folder = fresh_prefix("lanes") + "records", tmp_path_factory.mktemp("seen")
    create(services.kafka, [Topic(topic, 2, {"message.timestamp.type": "CreateTime", "retention.ms": "-1"})])
    producer = KafkaProducer(bootstrap_servers=services.kafka)
    for round_number in range(3):
        for position, key in enumerate(KEYS):
            number = round_number * len(KEYS) + position
            value, time_ms = VALUES[number % len(VALUES)], TIMES_MS[number % len(TIMES_MS)]
            if key is not None or value is not None:
                producer.send(topic, value, key, partition=position % 2, timestamp_ms=time_ms)
    producer.flush()
    producer.close()
    bare = Producer({"bootstrap.servers": services.kafka})  # the other client refuses a record that is null altogether
    bare.produce(topic, None, None, partition=1)
    bare.flush()
    sent = read_all(services.kafka, topic)
    assert sum(one.key is None and one.value is None for one in sent) == 1

    flink = cluster.environment(
        {"parallelism.default": str(PARALLELISM), "pipeline.max-parallelism": str(MAX_PARALLELISM)}
        | {"python.fn-execution.bundle.time": "20"}
    )
    options = {
        "connector": "kafka",
        "topic": topic,
        "properties.bootstrap.servers": services.kafka,
        "properties.group.id": topic,
        "scan.startup.mode": "earliest-offset",
        "key.format": "raw",
        "key.fields": "k",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }
    batches = lanes_of_topic(
        StreamTableEnvironment.create(flink), "events", options, 50, lane_keys(LANES, MAX_PARALLELISM)
    )
    by_lane(batches, RAW_TYPE).process(Recorder(str(folder))).uid("record")
    job = str(flink.execute_async("lanes").get_job_id())
    deadline_s = time.monotonic() + 120
    while len(arrived := _read(folder)) < len(sent) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    assert cluster.failures(job) == []
    cluster.stop(job)
    return sent, arrived


def _read(folder: Path) -> list[dict[str, Any]]:
    text = "".join(file.read_text() for file in sorted(folder.glob("*.jsonl")))
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def test_every_record_crosses_once_with_exact_bytes_place_and_time(
    seen: tuple[list[Any], list[dict[str, Any]]],
) -> None:
    sent, arrived = seen
    wanted = {(one.partition, one.offset): (one.key, one.value, one.timestamp_ms) for one in sent}
    got = {(row["partition"], row["offset"]): _content(row) for row in arrived}
    assert len(arrived) == len(got)
    assert got == wanted


def test_the_lane_in_sql_is_the_lane_of_the_pure_package(seen: tuple[list[Any], list[dict[str, Any]]]) -> None:
    numbers = lane_keys(LANES, MAX_PARALLELISM)
    texts = {text.encode().hex(): text for text in TEXTS} | {None: None}
    wrong = {
        row["key"]: (numbers.index(row["lane_key"]), lane_of(texts[row["key"]], LANES))
        for row in seen[1]
        if row["key"] in texts and row["lane_key"] != numbers[lane_of(texts[row["key"]], LANES)]
    }
    assert wrong == {}
    assert {row["lane_key"] for row in seen[1]} == set(numbers)


def test_all_records_of_a_key_are_in_one_lane_even_when_it_is_no_text(
    seen: tuple[list[Any], list[dict[str, Any]]],
) -> None:
    lanes = defaultdict(set)
    for row in seen[1]:
        lanes[row["key"]].add(row["lane_key"])
    assert set(lanes) == {None if key is None else key.hex() for key in KEYS}
    assert {key: found for key, found in lanes.items() if len(found) > 1} == {}


def test_within_a_lane_the_records_of_a_partition_keep_their_order(
    seen: tuple[list[Any], list[dict[str, Any]]],
) -> None:
    offsets = defaultdict(list)
    for row in seen[1]:
        offsets[row["lane_key"], row["partition"]].append(row["offset"])
    assert len(offsets) == 2 * LANES
    assert all(found == sorted(found) for found in offsets.values())


def test_lanes_fall_evenly_on_the_subtasks_in_order(seen: tuple[list[Any], list[dict[str, Any]]]) -> None:
    subtasks = defaultdict(set)
    for row in seen[1]:
        subtasks[row["lane_key"]].add(row["subtask"])
    numbers = lane_keys(LANES, MAX_PARALLELISM)
    assert [subtasks[number] for number in numbers] == [{0}, {0}, {1}, {1}]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("max_parallelism", [1, 128, 720, 32768])
def test_key_groups_are_those_that_flink_assigns(max_parallelism: int) -> None:
    jvm = get_gateway().jvm
    assignment = jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment
    row = jvm.org.apache.flink.types.Row(1)
    for number in [*range(200), 10_007, 65_535, 2**31 - 32, 2**31 - 1]:
        row.setField(0, number)
        assert key_group(number, max_parallelism) == assignment.assignToKeyGroup(row, max_parallelism), number


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("lanes", "parallelism"), [(1, 1), (2, 2), (4, 2), (4, 4), (6, 3), (8, 4), (128, 16)])
def test_flink_puts_as_many_lanes_on_each_subtask(lanes: int, parallelism: int) -> None:
    jvm = get_gateway().jvm
    assignment = jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment
    row = jvm.org.apache.flink.types.Row(1)
    subtasks = []
    for number in lane_keys(lanes, MAX_PARALLELISM):
        row.setField(0, number)
        subtasks.append(assignment.assignKeyToParallelOperator(row, MAX_PARALLELISM, parallelism))
    assert subtasks == [lane * parallelism // lanes for lane in range(lanes)]


def _content(row: dict[str, Any]) -> tuple[bytes | None, bytes | None, int]:
    key, value = (None if row[name] is None else bytes.fromhex(row[name]) for name in ("key", "value"))
    return key, value, row["timestamp_ms"]
