"""A backlog over several partitions and topics is read at one pace in event time; silence holds nothing up."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from pyflink.table import StreamTableEnvironment

from flink_jobs.config import Environment
from flink_jobs.lanes import by_lane, lanes_of_topic
from flink_jobs.sources import alignment, source_options, watermark
from scripts.kafka.topics import Topic, create
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.operators import Recorder
from tests.samples import EVENTS, RATE_JOIN, RATES, USER_FEATURES, small_pipeline
from udfs.batch_rows import RAW_TYPE
from udfs.core.declare.definition import Pipeline
from udfs.core.rows.lanes import lane_keys

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000
HOURS = 4
#: events of each partition of the source, spread over HOURS; the third ends halfway, the fourth is empty
SOURCE = (60_000, 30_000, 5_000, 0)
RATE_PARTITION, RATE_EVENTS = 4, 150_000
WAIT_S = 90.0
#: of the whole job, as if it had work to do: an hour of the backlog takes more than a second
RECORDS_PER_S = 20_000.0


def joined(clock: str, **changes: str) -> Pipeline:
    return small_pipeline(enrichments=[RATE_JOIN], time={"allowed_lateness": "1h", "partition_clock": clock} | changes)


class Reading:
    """A job that records what it reads of both topics, in the order in which it is read."""

    def __init__(
        self, cluster: Cluster, services: Endpoints, prefix: str, pipeline: Pipeline, folder: Path, group: str
    ) -> None:
        self._cluster, self._folder = cluster, folder
        environment = Environment.model_validate(
            {
                "kafka": {"bootstrap_servers": services.kafka, "topic_prefix": prefix + group},
                "mlflow": {"tracking_uri": "none: no model is used"},
                "flink": {"rest_url": "none: given", "checkpoints": "none: none", "savepoints": "none: none"},
            }
        )
        flink = cluster.environment({"parallelism.default": "1", "python.fn-execution.bundle.time": "20"})
        tables = StreamTableEnvironment.create(flink)
        streams = [
            lanes_of_topic(
                tables,
                name,
                source_options(prefix + topic, pipeline, environment, align=True),
                20,
                lane_keys(1, 128),
                watermark(topic, pipeline),
            )
            for name, topic in (("events", EVENTS), ("rates", RATES))
        ]
        by_lane(streams[0].union(streams[1]), RAW_TYPE).process(Recorder(str(folder), RECORDS_PER_S)).uid("record")
        self.job = str(flink.execute_async("alignment").get_job_id())

    def rows(self) -> list[dict[str, Any]]:
        """What was read by now."""
        file = self._folder / "0.jsonl"
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait for what was read to be as wanted."""
        deadline_s = time.monotonic() + WAIT_S
        while not holds(rows := self.rows()):
            assert time.monotonic() < deadline_s, f"read {len(rows)} records in {WAIT_S:.0f} s"
            time.sleep(0.3)
        return rows

    def stop(self) -> None:
        assert self._cluster.failures(self.job) == []
        self._cluster.cancel(self.job)


def send(services: Endpoints, records: Iterable[tuple[str, int, int]]) -> None:
    """Produce (topic, partition, time in ms), the time in Kafka and in the event, in small batches as live ones are."""
    producer = Producer({"bootstrap.servers": services.kafka, "linger.ms": 5, "batch.size": 4096})
    for number, (topic, partition, time_ms) in enumerate(records):
        value = b'{"%s":%d}' % (b"seen_ms" if topic.endswith(RATES) else b"at_ms", time_ms)
        while True:
            try:
                producer.produce(topic, value, b"k", partition=partition, timestamp=time_ms)
                break
            except BufferError:
                producer.poll(0.2)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()


def make_topics(services: Endpoints, prefix: str, timestamps: str = "CreateTime") -> None:
    for topic, partitions in ((EVENTS, len(SOURCE)), (RATES, RATE_PARTITION + 1)):
        config = {"message.timestamp.type": timestamps, "retention.ms": "-1"}
        create(services.kafka, [Topic(prefix + topic, partitions, config)])


def backlog(prefix: str) -> Iterable[tuple[str, int, int]]:
    span_ms = HOURS * HOUR_MS
    for partition, count in enumerate(SOURCE):
        length_ms = span_ms // 2 if partition == 2 else span_ms
        yield from ((prefix + EVENTS, partition, START_MS + length_ms * i // count) for i in range(count))
    yield from ((prefix + RATES, RATE_PARTITION, START_MS + span_ms * i // RATE_EVENTS) for i in range(RATE_EVENTS))


def astray(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Return which share of the events is late, and which is far ahead of what it is joined with.

    Of the last quarter: before both topics are read there is nothing to keep together, for seconds on a busy machine.
    """
    times_ms = np.array([next(iter(json.loads(bytes.fromhex(row["value"])).values())) for row in rows])
    is_rate = np.array([row["partition"] == RATE_PARTITION for row in rows])
    newest_event_ms = np.maximum.accumulate(np.where(is_rate, 0, times_ms))
    newest_rate_ms = np.maximum.accumulate(np.where(is_rate, times_ms, START_MS))
    late = newest_event_ms - times_ms > HOUR_MS
    ahead = times_ms - newest_rate_ms > HOUR_MS
    last = np.flatnonzero(~is_rate)[-(sum(SOURCE) // 4) :]
    return float(late[last].mean()), float(ahead[last].mean())


@pytest.mark.parametrize(("clock", "timestamps"), [("kafka", "CreateTime"), ("event", "LogAppendTime")])
def test_partitions_and_topics_of_a_backlog_keep_together(
    clock: str, timestamps: str, cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    """With timestamps of the broker, a topic that was loaded at once says nothing of event time."""
    make_topics(services, prefix, timestamps)
    send(services, backlog(prefix))
    late, ahead = {}, {}
    for name, changes in (("apart", {"partition_skew": "0s"}), ("together", {})):
        folder = tmp_path / name
        folder.mkdir()
        reading = Reading(cluster, services, prefix, joined(clock, **changes), folder, name)
        rows = reading.until(lambda rows: len(rows) >= sum(SOURCE) + RATE_EVENTS)
        reading.stop()
        assert {(row["partition"], row["offset"]) for row in rows} == {
            *((partition, offset) for partition, count in enumerate(SOURCE) for offset in range(count)),
            *((RATE_PARTITION, offset) for offset in range(RATE_EVENTS)),
        }
        late[name], ahead[name] = astray(rows)
    assert late["apart"] + ahead["apart"] > 0.3
    assert max(late["together"], ahead["together"]) < 0.1


NO_TIMES = (
    None,
    b"",
    b"{",
    b"\xff\xfe",
    b"[1]",
    b"7",
    b'{"at_ms":null}',
    b'{"at_ms":"x"}',
    b'{"at_ms":1.5}',
    b'{"at_ms":true}',
    b'{"at_ms":{"at_ms":1}}',
    b'{"at_ms":9223372036854775807}',
    b'{"at_ms":-9223372036854775808}',
    b'{"at_ms":99999999999999999999999}',
    b'{"at_ms":253402300800000}',
    b'{"at_ms":1e400}',
    b'{"at_ms":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    b"x" * 100_000,
)


def test_what_has_no_time_passes_and_holds_nobody(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    make_topics(services, prefix)
    reading = Reading(cluster, services, prefix, joined("event"), tmp_path, "poison")
    producer = Producer({"bootstrap.servers": services.kafka})
    for value in NO_TIMES:
        for partition in range(len(SOURCE)):
            producer.produce(prefix + EVENTS, value, b"k", partition=partition)
    producer.flush()
    send(services, [(prefix + EVENTS, partition, START_MS) for partition in range(len(SOURCE))])
    rows = reading.until(lambda rows: len(rows) >= len(SOURCE) * (len(NO_TIMES) + 1))
    assert [row["offset"] for row in rows if row["partition"] == 1] == list(range(len(NO_TIMES) + 1))
    reading.stop()


def test_nobody_waits_for_silent_partitions_nor_for_a_clock_that_is_ahead(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    make_topics(services, prefix)
    topic = prefix + EVENTS
    # Three partitions have an old event each and no more.
    send(services, [(topic, 2, START_MS), (topic, 3, START_MS), (prefix + RATES, RATE_PARTITION, START_MS)])
    reading = Reading(cluster, services, prefix, joined("kafka"), tmp_path, "live")
    reading.until(lambda rows: len(rows) == 3)
    producer = Producer({"bootstrap.servers": services.kafka, "linger.ms": 0})
    deadline_s, sent = time.monotonic() + 40, 0
    while sent < 20 or sum(row["partition"] == 1 for row in reading.rows()) < sent:
        assert time.monotonic() < deadline_s, f"not all of {sent} events of a partition are read"
        for _ in range(30):  # this one is never silent, or it would hold nobody
            producer.produce(topic, b"x", b"k", partition=0)
            producer.poll(0)
            time.sleep(0.01)
        if sent < 20:
            # The first one comes from ahead, as far as the broker lets it.
            now_ms = time.time_ns() // 1_000_000
            producer.produce(topic, b"x", b"k", partition=1, timestamp=now_ms + (0 if sent else 50 * 60_000))
            sent += 1
    producer.flush()
    reading.stop()


@pytest.mark.parametrize(
    ("changes", "skew"),
    [
        ({}, "15m"),
        ({"time": {"allowed_lateness": "1h", "partition_skew": "2m"}}, "2m"),
        ({"time": {"allowed_lateness": "1h", "partition_skew": "0s"}}, None),
        ({"time": {"allowed_lateness": "0s"}}, None),
        ({"features": list(USER_FEATURES)}, None),
        ({"features": list(USER_FEATURES), "enrichments": [RATE_JOIN | {"entity": "user"}]}, "15m"),
    ],
)
def test_only_what_sees_several_partitions_keeps_them_together(changes: dict[str, Any], skew: str | None) -> None:
    options = alignment(small_pipeline(**({"time": {"allowed_lateness": "1h"}} | changes)))
    expected = {None: None, "15m": "900000 ms", "2m": "120000 ms"}[skew]
    assert options.get("scan.watermark.alignment.max-drift") == expected
    assert bool(options) == (skew is not None)
