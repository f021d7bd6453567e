"""One day of flights through real Kafka: what is read back is what was sent, and reading ends where it should."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
from kafka import KafkaProducer

from scripts.flights import events
from scripts.flights.poison import poisoned
from scripts.flights.replay import replay
from scripts.flights.stream import Events, merge
from scripts.kafka.consume import Record, read_all, read_until
from scripts.kafka.errors import ReadTimeoutError, TopicError
from scripts.kafka.topics import Topic, create, delete, describe, end_offsets
from scripts.services.endpoints import Endpoints

PREFIX = "test-replay."
DAY = dt.date(2013, 11, 5)


@pytest.fixture
def kafka(services: Endpoints) -> Iterator[str]:
    """Brokers without topics of this test, before and after."""
    names = [PREFIX + name for name in (events.WEATHER, events.DEPARTURES, events.ARRIVALS, "transactions")]
    delete(services.kafka, names)
    yield services.kafka
    delete(services.kafka, names)


def by_key(stream: Events | list[Record]) -> dict[bytes | None, list[bytes | None]]:
    """Values in order per key; Kafka keeps no order between the null keys of several partitions."""
    found = defaultdict(list)
    for each in stream:
        found[each.key].append(each.value)
    found[None].sort(key=lambda value: value or b"")
    return dict(found)


def test_a_day_with_poison_comes_back_equal(kafka: str) -> None:
    departures, _ = poisoned(events.departures(DAY, DAY), 1, now_ms=1_764_000_000_000)
    sent = merge(events.weather(DAY, DAY), departures, events.arrivals(DAY, DAY)).prefixed(PREFIX)
    create(kafka, [Topic(name, 3) for name in sorted(set(sent.topics))])

    report = replay(sent, kafka, as_fast_as_possible=True)

    assert report.acknowledged == Counter(sent.topics)
    for topic, count in report.acknowledged.items():
        records = read_all(kafka, topic)
        assert len(records) == count == sum(end_offsets(kafka, topic).values())
        mine = sent.take(np.array([name == topic for name in sent.topics]))
        assert by_key(records) == by_key(mine)


def test_enrichments_go_first_when_asked(kafka: str) -> None:
    hours = merge(events.weather(DAY, DAY), events.departures(DAY, DAY)).prefixed(PREFIX)
    create(kafka, [Topic(name) for name in sorted(set(hours.topics))])
    weather = PREFIX + events.WEATHER
    replay(hours, kafka, rate_eps=2_000.0, stream_order="enrichments_first", enrichment_topics=[weather])
    last_weather = max(record.timestamp_ms for record in read_all(kafka, weather))
    departures = [record.timestamp_ms for record in read_all(kafka, PREFIX + events.DEPARTURES)]
    assert last_weather <= min(departures)
    # 967 departures at 2,000 a second; the records' times are the broker's.
    assert 300 < max(departures) - min(departures) < 5_000


def test_topics_are_made_once_and_tell_how_they_are(kafka: str) -> None:
    topic = Topic(PREFIX + "transactions", 2)
    assert create(kafka, [topic]) == [topic.name]
    assert create(kafka, [topic]) == []
    assert describe(kafka, [topic.name, PREFIX + "none"]) == {topic.name: topic}
    assert end_offsets(kafka, topic.name) == {0: 0, 1: 0}
    assert read_all(kafka, topic.name) == []
    assert delete(kafka, [topic.name]) == [topic.name]
    assert delete(kafka, [topic.name]) == []
    with pytest.raises(TopicError, match="does not exist"):
        read_all(kafka, topic.name)
    with pytest.raises(TopicError, match="does not exist"):
        end_offsets(kafka, topic.name)


def test_reading_ends_behind_markers_and_before_open_transactions(kafka: str) -> None:
    topic = PREFIX + "transactions"
    create(kafka, [Topic(topic, 2)])
    producer = KafkaProducer(bootstrap_servers=kafka, transactional_id=topic)
    producer.init_transactions()
    for number in range(4):  # the last one is aborted: markers and dead records stand at the very end
        producer.begin_transaction()
        for partition in (0, 1):
            producer.send(topic, str(number).encode(), partition=partition, headers=[("n", b"1")])
        producer.flush()
        (producer.abort_transaction if number % 2 else producer.commit_transaction)()
    committed = read_all(kafka, topic, timeout_s=10)
    assert [record.value for record in committed if record.partition == 0] == [b"0", b"2"]
    assert len(committed) == 4
    assert {record.headers for record in committed} == {(("n", b"1"),)}
    assert max(record.offset for record in committed) < max(end_offsets(kafka, topic).values()) - 1

    producer.begin_transaction()
    producer.send(topic, b"open", partition=0)
    producer.flush()
    assert set(read_all(kafka, topic, timeout_s=10)) == set(committed)
    assert end_offsets(kafka, topic)[0] < end_offsets(kafka, topic, committed=False)[0]
    with pytest.raises(ReadTimeoutError, match=r"not enough after 0\.5 s; got 4 records"):
        read_until(kafka, topic, lambda records: len(records) == 5, timeout_s=0.5)
    producer.commit_transaction()
    producer.close()
    all_five = read_until(kafka, topic, lambda records: len(records) == 5, timeout_s=10)
    assert {record.value for record in set(all_five) - set(committed)} == {b"open"}
