"""A small pipeline with an enrichment and a label, and a history for it: enough for a real model in a second."""

import json
from pathlib import Path

import numpy as np

from models.history import write_history
from models.training import Parameters

START_MS = 1_700_006_400_000  # 2023-11-15
MINUTE_MS = 60_000
EVENTS = 900  # every ten minutes: six days and a quarter
QUICK = Parameters(num_iterations=20, num_leaves=7, min_data_in_leaf=10, num_threads=1)

PIPELINE = """
name: shop
source: {topic: orders, key: user}
contract:
  id: order_id
  time: at_ms
  fields: {order_id: string, at_ms: int64, user: string, amount: float64, discount: "float64?"}
enrichments:
  - name: risk
    topic: risk
    key: user
    entity: user
    max_age: 2d
    keep: 10d
    take: {risk: score}
    contract: {time: at_ms, fields: {user: string, at_ms: int64, score: "float64?"}}
features:
  - {entity: user, of: amount, take: [count, mean, max], over: [1h, 1d], slide: 10m}
model: {name: shop-refund, inputs: [amount, discount, risk]}
label:
  topic: refunds
  of: refund
  above: 10
  contract: {id: order_id, time: at_ms, fields: {order_id: string, at_ms: int64, refund: "float64?"}}
sinks: {predictions: {topic: p}, rejects: {topic: r}, late: {topic: l}, order: {topic: o}}
"""


def write_pipeline(folder: Path) -> Path:
    """Write the pipeline into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    return folder


def write_orders(path: Path) -> Path:
    """Write a history: orders, a risk row now and then, and for most orders a label an hour later."""
    random = np.random.default_rng(7)
    records: list[tuple[int, str, str, dict[str, object]]] = []
    for i in range(EVENTS):
        at_ms, user = START_MS + i * 10 * MINUTE_MS, f"u{random.integers(6)}"
        amount, risk = round(float(random.gamma(2, 20)), 2), round(float(random.random()), 3)
        if i % 9 == 0:
            records.append((at_ms, "risk", user, {"user": user, "at_ms": at_ms, "score": risk if i % 4 else None}))
        order = {"order_id": f"o{i}", "at_ms": at_ms, "user": user, "amount": amount}
        records.append((at_ms, "orders", user, {**order, "discount": None if i % 5 == 0 else round(amount / 10, 2)}))
        if i % 50:
            known_ms = at_ms + 60 * MINUTE_MS
            refund = None if i % 31 == 0 else amount / 3 + float(random.normal(0, 3))
            records.append((known_ms, "refunds", f"o{i}", {"order_id": f"o{i}", "at_ms": known_ms, "refund": refund}))
    records.sort(key=lambda record: record[0])
    times_ms, topics, keys, values = zip(*records, strict=True)
    write_history(path, topics, [key.encode() for key in keys], [json.dumps(one).encode() for one in values], times_ms)
    return path
