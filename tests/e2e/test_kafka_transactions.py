"""Transactions that a job left open: seen, and ended so that readers of committed records go on."""

import time
from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from scripts.kafka.consume import read_all
from scripts.kafka.topics import Topic, create, delete, end_offsets
from scripts.kafka.transactions import abort, transactions
from scripts.services.endpoints import Endpoints


@pytest.fixture
def name(services: Endpoints) -> Iterator[str]:
    """A job name, which is its topic's, too."""
    name = f"test-transactions-{time.time_ns()}"
    create(services.kafka, [Topic(name)])
    yield name
    delete(services.kafka, [name])


def writer(bootstrap: str, topic: str, transactional_id: str, value: bytes) -> KafkaProducer:
    """A producer with an open transaction that has written a record."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=transactional_id)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, value)
    producer.flush()
    return producer


def test_an_open_transaction_is_listed_and_aborted_and_that_of_another_job_is_not(
    services: Endpoints, name: str
) -> None:
    left = writer(services.kafka, name, f"{name}-0-7", b"left")
    other = writer(services.kafka, name, f"{name}-more-0-1", b"other")
    [found] = transactions(services.kafka, name)
    assert (found.name, found.state, found.is_open) == (f"{name}-0-7", "Ongoing", True)
    assert found.places == ((name, 0),)
    assert found.started_ms is not None
    assert end_offsets(services.kafka, name)[0] == 0

    abort(services.kafka, [found.name])

    assert transactions(services.kafka, name) == []
    assert [one.is_open for one in transactions(services.kafka, name, only_open=False)] == [False]
    assert len(transactions(services.kafka, f"{name}-more")) == 1
    other.commit_transaction()
    assert [one.value for one in read_all(services.kafka, name, timeout_s=10)] == [b"other"]
    for producer in (left, other):
        producer.close(timeout=1)
