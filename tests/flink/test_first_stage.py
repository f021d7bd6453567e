"""An enrichment of the source's own key: the first stage joins it, and an operator of its own ingests the source."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer

from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.scoring import Scoring, assert_each_once, assert_gapless, header, origin_of, scoring

HOUR_MS = 3_600_000
NOON_MS = 1_700_000_000_000
PIPELINE = """
name: cards
source: {topic: cards.payments, key: user}
contract:
  id: id
  time: at_ms
  fields: {id: string, at_ms: int64, user: "string?", shop: string, amount: float64}
enrichments:
  - name: limits
    topic: cards.limits
    key: user
    entity: user
    max_age: 2h
    keep: 1d
    take: {limit: limit}
    contract:
      time: since_ms
      fields: {user: string, since_ms: int64, limit: "float64?"}
features:
  - {entity: user, of: amount, take: [count, sum], over: [30m], slide: 1m}
  - {entity: shop, of: amount, take: [max], over: [30m], slide: 1m}
model: {name: cards, inputs: [amount, limit]}
sinks:
  predictions: {topic: cards.predictions}
  rejects: {topic: cards.rejects}
  late: {topic: cards.late}
  order: {topic: cards.order}
lanes: 2
"""


def test_the_first_stage_joins_an_enrichment_of_the_source_key(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "pipeline.yaml").write_text(PIPELINE)
    setting = scoring(cluster, services, tmp_path / "cards", prefix, tmp_path)
    job = setting.start()
    limits = [
        ("ann", {"user": "ann", "since_ms": NOON_MS, "limit": 500.0}),
        ("bob", {"user": "bob", "since_ms": NOON_MS, "limit": 20.5}),
        ("bob", {"user": "bob", "since_ms": NOON_MS + HOUR_MS, "limit": None}),
        ("eve", {"user": "eve", "since_ms": NOON_MS + 1, "limit": 9.0}),
        ("dan", {"user": "dan", "limit": 9.0}),
    ]
    payments = [
        _payment("p0", "ann", NOON_MS, 10.0),
        _payment("p1", "bob", NOON_MS + 5, 7.5),
        _payment("p2", "ann", NOON_MS + 60_000, 2.5),
        _payment("p3", "bob", NOON_MS + HOUR_MS + 1, 1.0),
        _payment("p4", "eve", NOON_MS, 3.0),
        _payment("p5", "ann", NOON_MS + 2 * HOUR_MS + 1, 4.0),
        _payment("p6", "zoe", NOON_MS, 5.0),
        _payment("p7", None, NOON_MS, 6.0),
        ("ann", {"id": "p8"}),
    ]
    _send(setting, setting.pipeline.enrichments[0].topic, limits)
    setting.await_outputs(len(limits))
    _send(setting, setting.pipeline.source.topic, payments)
    setting.await_outputs(len(limits) + len(payments))
    assert cluster.failures(job) == []
    cluster.stop(job)

    inputs, outputs = setting.inputs(), setting.outputs()
    assert_each_once(inputs, outputs)
    assert_gapless(outputs)
    columns = ("limit", "user_amount_count_30m", "user_amount_sum_30m", "shop_amount_max_30m")
    features = {value["event_id"]: value["features"] for value in outputs.predicted.values()}
    assert {key: tuple(row[name] for name in columns) for key, row in features.items()} == {
        "p0": (500.0, 1.0, 10.0, 10.0),
        "p1": (20.5, 1.0, 7.5, 7.5),
        "p2": (500.0, 2.0, 12.5, 10.0),
        "p3": (None, 1.0, 1.0, 1.0),  # the newest row says null
        "p4": (None, 1.0, 3.0, 3.0),  # the only row is newer than the event
        "p5": (None, 1.0, 4.0, 4.0),  # the row is older than max_age
        "p6": (None, 1.0, 5.0, 5.0),
        "p7": (None, None, None, 6.0),
    }
    reasons = {(origin_of(one).topic, header(one, "stage"), header(one, "reason")) for one in outputs.rejects}
    assert reasons == {(topic, "decode", "missing_field") for topic in inputs}
    report = setting.parity(inputs, outputs)
    assert (report.rows, report.mismatches) == (8, 0)


def _payment(event_id: str, user: str | None, at_ms: int, amount: float) -> tuple[str | None, dict[str, Any]]:
    return user, {"id": event_id, "at_ms": at_ms, "user": user, "shop": f"shop of {user}", "amount": amount}


def _send(setting: Scoring, topic: str, rows: Sequence[tuple[str | None, dict[str, Any]]]) -> None:
    producer = KafkaProducer(bootstrap_servers=setting.kafka)
    for key, row in rows:
        producer.send(topic, msgspec.json.encode(row), None if key is None else key.encode())
    producer.flush()
    producer.close()
