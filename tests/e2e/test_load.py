"""Payments through real Kafka: what is read back is what the seed says, whatever the batches and the pace."""

import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from scripts.kafka.consume import Record, read_all
from scripts.kafka.topics import Topic, create, delete
from scripts.load.cli import send_to
from scripts.load.send import Sender
from scripts.load.settings import Load
from scripts.load.stream import sample
from scripts.services.endpoints import Endpoints

pytestmark = pytest.mark.e2e

TOPIC = "test-load.payments"
FAULTY = Load(users=200, merchants=20, duplicate_share=0.05, late_share=0.02, poison_share=0.05, disorder_ms=2_000)


@pytest.fixture
def topic(services: Endpoints) -> Iterator[str]:
    delete(services.kafka, [TOPIC])
    create(services.kafka, [Topic(TOPIC, 3)])
    yield TOPIC
    delete(services.kafka, [TOPIC])


def by_key(records: list[Record]) -> dict[bytes | None, list[bytes | None]]:
    found = defaultdict(list)
    for one in records:
        found[one.key].append(one.value)
    return dict(found)


def test_what_is_sent_comes_back_in_the_order_of_each_user(services: Endpoints, topic: str) -> None:
    report = send_to(FAULTY, 20_000, Sender(services.kafka, topic), batch=3_001)

    assert report.sent == 20_000
    wanted: dict[bytes | None, list[bytes | None]] = defaultdict(list)
    whole = sample(FAULTY, 20_000)
    for key, value in zip(whole.keys, whole.values, strict=True):
        wanted[key].append(value)
    assert None in whole.values
    assert by_key(read_all(services.kafka, topic)) == wanted


def test_a_pace_is_kept(services: Endpoints, topic: str) -> None:
    begun_s = time.monotonic()
    report = send_to(Load(), 1_500, Sender(services.kafka, topic, linger_ms=1), rate=1_000.0)

    assert report.sent == 1_500
    assert 1.4 < time.monotonic() - begun_s < 4.0
    arrived_ms = sorted(one.timestamp_ms for one in read_all(services.kafka, topic))
    assert arrived_ms[750] - arrived_ms[0] == pytest.approx(750, abs=300)
