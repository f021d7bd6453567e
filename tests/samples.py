"""A small pipeline and its events for the tests of the engine: payments of users in shops, joined with rates."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import plan_stages
from udfs.core.rows.batches import RawBatch
from udfs.core.rows.ingest import Ingest
from udfs.core.stage.lane import Lane

FLIGHTS = Path(__file__).parents[1] / "conf" / "flights"
EVENTS, RATES = "shop.payments", "shop.rates"
FIELDS: dict[str, Any] = {
    "id": "string",
    "at_ms": "int64",
    "user": "string?",
    "shop": "string?",
    "amount": "float64?",
    "units": "int64?",
}
RATE_JOIN: dict[str, Any] = {
    "name": "rates",
    "topic": RATES,
    "key": "shop",
    "entity": "shop",
    "max_age": "2s",
    "keep": "5s",
    "take": {"rate": "rate", "is_open": "is_open"},
    "contract": {
        "time": "seen_ms",
        "fields": {"shop": "string?", "seen_ms": "int64", "rate": "float64?", "is_open": "bool"},
    },
}
# Two tracks (1 s and 2 s tiles) with several windows; every aggregation is there.
USER_FEATURES: tuple[dict[str, Any], ...] = (
    {"entity": "user", "of": "amount", "take": ["sum", "mean", "min", "std"], "over": ["1s", "4s"], "slide": "1s"},
    {"entity": "user", "take": ["count"], "over": ["4s"], "slide": "1s"},
    {"entity": "user", "of": "units", "take": ["max", "count"], "over": ["2s", "6s"], "slide": "2s"},
)
SHOP_FEATURES: tuple[dict[str, Any], ...] = (
    {"entity": "shop", "of": "amount", "take": ["count", "mean"], "over": ["1s", "3s"], "slide": "1s"},
)


def declaration(**changes: Any) -> dict[str, Any]:
    """Return the pipeline as YAML would give it."""
    return {
        "name": "shop",
        "source": {"topic": EVENTS, "key": "user"},
        "contract": {"id": "id", "time": "at_ms", "fields": FIELDS},
        "features": [*USER_FEATURES, *SHOP_FEATURES],
        "model": {"name": "shop-model"},
        "sinks": {name: {"topic": f"shop.{name}"} for name in ("predictions", "rejects", "late", "order")},
        "time": {"allowed_lateness": "1500ms", "future_tolerance": "1d", "forget_idle_after": "0ms"},
    } | changes


def small_pipeline(**changes: Any) -> Pipeline:
    return Pipeline.model_validate(declaration(**changes))


@dataclass(frozen=True, slots=True)
class Sent:
    """One record of a sequence."""

    topic: str
    key: str | None
    row: dict[str, Any]


def payment(number: int, at_ms: int, user: str | None, **fields: Any) -> Sent:
    row = {"id": f"p{number}", "at_ms": at_ms, "user": user, "shop": None, "amount": None, "units": None} | fields
    return Sent(EVENTS, user, row)


def rate(shop: str | None, seen_ms: int, value: float | None, *, is_open: bool = True) -> Sent:
    return Sent(RATES, shop, {"shop": shop, "seen_ms": seen_ms, "rate": value, "is_open": is_open})


def raw_batch(topic: str, sent: Sequence[Sent], first_offset: int = 0, timestamp_ms: int = 10**12) -> RawBatch:
    return RawBatch(
        topic,
        [msgspec.json.encode(one.row) for one in sent],
        [None if one.key is None else one.key.encode() for one in sent],
        [0] * len(sent),
        list(range(first_offset, first_offset + len(sent))),
        [timestamp_ms] * len(sent),
    )


def cut(sent: Sequence[Sent], ends: Iterable[int] = ()) -> Iterator[RawBatch]:
    """Cut a sequence into batches: where the topic changes, and before each position of `ends`."""
    wanted, start = set(ends), 0
    for i in range(1, len(sent) + 1):
        if i == len(sent) or i in wanted or sent[i].topic != sent[start].topic:
            yield raw_batch(sent[start].topic, sent[start:i], start)
            start = i


def random_payments(
    seed: int, count: int, *, users: int = 4, step_ms: int = 300, disorder_ms: int = 2_500, start_ms: int = 0
) -> list[Sent]:
    """Return payments that move on in time but come out of order, some beyond the allowed lateness, with nulls.

    Numbers are quarters, so that sums are exact in float64 whatever their order.
    """
    chance = random.Random(seed)
    now_ms, sent = start_ms, []
    for number in range(count):
        now_ms += chance.randrange(2 * step_ms)
        if chance.random() < 0.02:
            now_ms += chance.randrange(30_000)  # a pause that lets keys be forgotten
        behind_ms = chance.choice([0, 0, 0, 0, chance.randrange(disorder_ms), chance.randrange(disorder_ms)])
        if chance.random() < 0.04:
            behind_ms = chance.randrange(40_000)  # late, or so old that its key is forgotten
        user = chance.choice([*(f"u{i}" for i in range(users)), None])
        sent.append(
            payment(
                number,
                now_ms - behind_ms,
                user,
                shop=chance.choice(["s0", "s1", None]),
                amount=chance.choice([None, chance.randrange(-400, 400) / 4]),
                units=chance.choice([None, chance.randrange(-9, 10)]),
            )
        )
    return sent


def with_rates(payments: Sequence[Sent], seed: int) -> list[Sent]:
    """Return the payments with rates among them, near their time."""
    chance = random.Random(seed)
    mixed: list[Sent] = []
    for one in payments:
        if chance.random() < 0.4:
            seen_ms = one.row["at_ms"] + chance.randrange(-9_000, 4_000)
            value = chance.choice([None, chance.randrange(100) / 4])
            mixed.append(rate(chance.choice(["s0", "s1", None]), seen_ms, value, is_open=chance.random() < 0.5))
        mixed.append(one)
    return mixed


class Passage:
    """One stage in one lane, fed with batches; keeps all rows and letters that came out, in order."""

    def __init__(self, pipeline: Pipeline, entity: str, mapping: dict[int, bytes] | None = None) -> None:
        self.mapping: dict[int, bytes] = {} if mapping is None else mapping
        self._pipeline = pipeline
        self._stage = next(stage for stage in plan_stages(pipeline) if stage.entity == entity)
        self._ingests = {pipeline.source.topic: Ingest.of_source(pipeline, FLIGHTS)}
        for join in pipeline.enrichments:
            self._ingests[join.topic] = Ingest.of_enrichment(join, pipeline.time.future_tolerance_ms)
        self._rows: list[pa.RecordBatch] = []
        self._letters: list[pa.RecordBatch] = []
        self.lane = Lane(pipeline, self._stage, 3, self.mapping)

    def restart(self) -> None:
        """Rebuild the lane from a copy of what it has stored; the old one goes on with the original."""
        self.mapping = dict(self.mapping)
        self.lane = Lane(self._pipeline, self._stage, 3, self.mapping)

    def feed(self, batches: Iterable[RawBatch]) -> "Passage":
        for batch in batches:
            piece = self.lane.process(self._ingests[batch.topic].process(batch))
            self._letters.append(piece.letters)
            if batch.topic == EVENTS:
                self._rows.append(piece.rows)
            else:
                assert piece.rows.num_rows == 0, "rows that are joined stay in the lane"
        return self

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What came out of the lane; all at once, since batch by batch would take seconds of the ring."""
        return pa.Table.from_batches(self._rows).to_pylist() if self._rows else []

    @property
    def letters(self) -> list[dict[str, Any]]:
        return pa.Table.from_batches(self._letters).to_pylist() if self._letters else []
