"""Output topics of programs under measurement: how much stands in them, and what committed readers see."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from confluent_kafka import Consumer, TopicPartition

from scripts.bench.payments.meter import BenchError

_BATCH, _WAIT_S = 20_000, 90.0


class Scored(msgspec.Struct, gc=False):
    """What is read of a prediction."""

    event_id: str
    score: float


_decode = msgspec.json.Decoder(Scored).decode


class Progress:
    """How many records a topic of one partition holds, committed or not; transaction marks, a few, count too."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = _consumer(bootstrap, "read_uncommitted")
        self._place = TopicPartition(topic, 0)

    def __call__(self) -> int:
        """Return the number now."""
        return int(self._consumer.get_watermark_offsets(self._place, timeout=10)[1])


def committed(bootstrap: str, topic: str, count: int, wait_s: float = _WAIT_S, gather_s: float = 0.5) -> Iterator[Any]:
    """Yield the messages of a topic that readers of committed records see, until `count` came or time is up.

    Parameters
    ----------
    wait_s : for all of them
    gather_s : how long messages are gathered before they are yielded; short where their arrival is timed
    """
    consumer = _consumer(bootstrap, "read_committed")
    consumer.assign([TopicPartition(topic, 0, 0)])
    seen, until_s = 0, time.monotonic() + wait_s
    while seen < count and time.monotonic() < until_s:
        for message in consumer.consume(_BATCH, gather_s):
            if message.error() is None:
                seen += 1
                yield message
    consumer.close()


def check_ids(bootstrap: str, topic: str, count: int) -> None:
    """Raise BenchError unless the topic holds `count` predictions, each of another event."""
    ids = [_decode(message.value()).event_id for message in committed(bootstrap, topic, count)]
    if len(ids) != count or len(set(ids)) != count:
        msg = f"{topic}: {len(ids):,} predictions of {len(set(ids)):,} events; {count:,} of as many were to come"
        raise BenchError(msg)


def check_scores(bootstrap: str, topic: str, wanted: dict[str, float], tolerance: float = 1e-5) -> float:
    """Raise BenchError unless the topic has each event once with its score; return the largest difference."""
    found = [_decode(message.value()) for message in committed(bootstrap, topic, len(wanted))]
    if len(found) != len(wanted) or {one.event_id for one in found} != wanted.keys():
        msg = f"{topic}: {len(found):,} predictions, and not those of the {len(wanted):,} events"
        raise BenchError(msg)
    worst = max(found, key=lambda one: abs(one.score - wanted[one.event_id]))
    difference = abs(worst.score - wanted[worst.event_id])
    if not difference <= tolerance:
        msg = f"{topic}: {worst.event_id} has score {worst.score}; a plain loop says {wanted[worst.event_id]}"
        raise BenchError(msg)
    return difference


def _consumer(bootstrap: str, isolation: str) -> Any:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "headrace-bench",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "fetch.message.max.bytes": 1 << 22,
            "fetch.wait.max.ms": 5,
        }
    )
