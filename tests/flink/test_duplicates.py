"""Duplicates in a job: a second event of an id becomes a reject, also after a restart from a savepoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer

from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.scoring import Scoring, assert_each_once, assert_gapless, header, scoring

NOON_MS = 1_700_000_000_000
PIPELINE = """
name: cards
source: {topic: cards.payments, key: user}
contract:
  id: id
  time: at_ms
  fields: {id: string, at_ms: int64, user: string, shop: string, amount: float64}
features:
  - {entity: user, of: amount, take: [count, sum], over: [30m], slide: 1m}
  - {entity: shop, of: amount, take: [count], over: [30m], slide: 1m}
model: {name: cards, inputs: [amount]}
sinks:
  predictions: {topic: cards.predictions}
  rejects: {topic: cards.rejects}
  late: {topic: cards.late}
  order: {topic: cards.order}
time: {duplicates_within: 1h}
lanes: 2
"""


def test_a_repeated_id_is_rejected_and_counts_in_no_feature_also_after_a_savepoint(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "pipeline.yaml").write_text(PIPELINE)
    setting = scoring(cluster, services, tmp_path / "cards", prefix, tmp_path)
    first, other = _payment("p0", "ann", NOON_MS, 10.0), _payment("p1", "bob", NOON_MS, 2.0)
    before = [first, first, other, _payment("p0", "ann", NOON_MS, 11.0), _payment("p2", "ann", NOON_MS + 60_000, 1.0)]
    job = setting.start()
    _send(setting, before)
    setting.await_outputs(len(before))
    savepoint = cluster.stop(job)
    after = [other, _payment("p3", "bob", NOON_MS + 60_000, 3.0), first]
    job = setting.start(savepoint=savepoint)
    _send(setting, after)
    setting.await_outputs(len(before) + len(after))
    assert cluster.failures(job) == []
    cluster.stop(job)

    inputs, outputs = setting.inputs(), setting.outputs()
    assert_each_once(inputs, outputs)
    assert_gapless(outputs)
    rejects = sorted((header(one, "reason"), header(one, "stage"), one.value) for one in outputs.rejects)
    duplicate, conflict = ("duplicate", "duplicates"), ("conflict", "duplicates")
    assert rejects == sorted(
        (*why, msgspec.json.encode(row))
        for why, (_, row) in (
            (duplicate, first),
            (conflict, before[3]),
            (duplicate, other),
            (duplicate, first),
        )
    )
    features = {value["event_id"]: value["features"] for value in outputs.predicted.values()}
    columns = ("user_amount_count_30m", "user_amount_sum_30m", "shop_amount_count_30m")
    assert {key: tuple(row[name] for name in columns) for key, row in features.items()} == {
        "p0": (1.0, 10.0, 1.0),
        "p1": (1.0, 2.0, 1.0),
        "p2": (2.0, 11.0, 2.0),
        "p3": (2.0, 5.0, 2.0),
    }
    report = setting.parity(inputs, outputs)
    assert (report.rows, report.mismatches) == (4, 0)


def _payment(event_id: str, user: str, at_ms: int, amount: float) -> tuple[str, dict[str, Any]]:
    return user, {"id": event_id, "at_ms": at_ms, "user": user, "shop": f"shop of {user}", "amount": amount}


def _send(setting: Scoring, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
    producer = KafkaProducer(bootstrap_servers=setting.kafka)
    for key, row in rows:
        producer.send(setting.pipeline.source.topic, msgspec.json.encode(row), key.encode())
    producer.flush()
    producer.close()
