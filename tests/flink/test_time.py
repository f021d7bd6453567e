"""Event time in a job: silent partitions, lanes and topics hold nothing up; each key is late only in its own time."""

import time
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer

from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.scoring import assert_each_once, header, scoring

HOUR_MS = 3_600_000
NOON_MS = 1_700_000_000_000
PIPELINE = """
name: cards
source: {topic: cards.payments, key: user}
contract:
  id: id
  time: at_ms
  fields: {id: string, at_ms: int64, user: string, shop: string, amount: float64}
enrichments:
  - name: rates
    topic: cards.rates
    key: shop
    entity: shop
    max_age: 2h
    keep: 1d
    take: {rate: rate}
    contract: {time: seen_ms, fields: {shop: string, seen_ms: int64, rate: float64}}
features:
  - {entity: user, of: amount, take: [count], over: [30m], slide: 1m}
  - {entity: shop, of: amount, take: [count], over: [30m], slide: 1m}
model: {name: cards, inputs: [amount, rate]}
sinks:
  predictions: {topic: cards.predictions}
  rejects: {topic: cards.rejects}
  late: {topic: cards.late}
  order: {topic: cards.order}
time: {allowed_lateness: 1h, future_tolerance: 1h}
lanes: 4
"""


def test_one_event_at_a_time_comes_out_although_all_else_is_silent(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "pipeline.yaml").write_text(PIPELINE)
    setting = scoring(cluster, services, tmp_path / "cards", prefix, tmp_path, partitions=3)
    job = setting.start(parallelism=2)
    producer = KafkaProducer(bootstrap_servers=setting.kafka)
    ahead_ms = time.time_ns() // 1_000_000 + 2 * HOUR_MS
    steps: list[tuple[str, int]] = [
        ("ann", NOON_MS),
        ("ann", NOON_MS + 30 * HOUR_MS),
        ("bob", NOON_MS - 50 * HOUR_MS),
        ("ann", NOON_MS + 28 * HOUR_MS),
        ("ann", NOON_MS + 29 * HOUR_MS),
        ("bob", ahead_ms),
        ("bob", NOON_MS - 51 * HOUR_MS),
    ]
    waited_s = []
    for number, (user, at_ms) in enumerate(steps):
        # All in one partition of three, and each user has one lane of four in each stage.
        value = msgspec.json.encode(_payment(number, user, at_ms))
        producer.send(setting.pipeline.source.topic, value, user.encode(), partition=1)
        producer.flush()
        sent_at_s = time.monotonic()
        setting.await_outputs(number + 1)
        waited_s.append(time.monotonic() - sent_at_s)
    producer.close()
    assert cluster.failures(job) == []
    cluster.stop(job)

    inputs, outputs = setting.inputs(), setting.outputs()
    assert_each_once(inputs, outputs)
    assert {value["event_id"] for value in outputs.predicted.values()} == {"p0", "p1", "p2", "p4", "p6"}
    (late,) = outputs.late
    assert (header(late, "stage"), header(late, "reason"), late.value) == (
        "featurize-user",
        "late",
        msgspec.json.encode(_payment(3, "ann", NOON_MS + 28 * HOUR_MS)),
    )
    (future,) = outputs.rejects
    assert (header(future, "reason"), header(future, "offset")) == ("future", "5")
    # The first one waits for the job to start, the others for a checkpoint of a second to commit.
    assert max(waited_s[1:]) < 30
    report = setting.parity(inputs, outputs)
    assert (report.rows, report.mismatches) == (5, 0)


def _payment(number: int, user: str, at_ms: int) -> dict[str, Any]:
    return {"id": f"p{number}", "at_ms": at_ms, "user": user, "shop": f"shop of {user}", "amount": 1.0}
