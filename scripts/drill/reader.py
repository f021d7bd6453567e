"""Readers of committed predictions: one that follows the topic live, and one that reads all of it at the end."""

import threading
import time
from typing import Any, Self

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition

from scripts.drill.accounting import Committed
from scripts.drill.settings import DrillError

_BATCH, _WAIT_S, _STALL_S = 20_000, 0.05, 60.0


class _Model(msgspec.Struct, gc=False):
    version: str


class _Prediction(msgspec.Struct, gc=False):
    event_id: str
    model: _Model


_decode = msgspec.json.Decoder(_Prediction).decode


class Live:
    """Follows a topic of one partition, and notes when what became visible; a context manager."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.count = 0
        #: the longest time without a newly visible record, milliseconds, and when it began, epoch milliseconds
        self.longest_unseen_ms, self.unseen_since_ms = 0, -1
        self._is_over = threading.Event()
        self._consumer = _consumer(bootstrap, topic)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(30)
        self._consumer.close()

    def _run(self) -> None:
        last_ms: int | None = None
        while not self._is_over.is_set():
            fetched = sum(message.error() is None for message in self._consumer.consume(_BATCH, _WAIT_S))
            if fetched:
                self.count += fetched
                now_ms = int(time.time() * 1000)
                if last_ms is not None and now_ms - last_ms > self.longest_unseen_ms:
                    self.longest_unseen_ms, self.unseen_since_ms = now_ms - last_ms, last_ms
                last_ms = now_ms

    def wait(self, count: int) -> None:
        """Wait until so many are visible.

        Raises
        ------
        DrillError : for a minute none became visible.
        """
        seen, since_s = -1, time.monotonic()
        while self.count < count:
            if self.count != seen:
                seen, since_s = self.count, time.monotonic()
            if time.monotonic() - since_s > _STALL_S:
                msg = (
                    f"{count - self.count:,} of {count:,} predictions are not visible, and none came for {_STALL_S:g} s"
                )
                raise DrillError(msg)
            time.sleep(0.05)


def read(bootstrap: str, topic: str) -> Committed:
    """Read a topic of one partition from its first record to its end.

    Raises
    ------
    DrillError : a record is no prediction of one version, or the end is not reached.
    """
    consumer = _consumer(bootstrap, topic)
    place = TopicPartition(topic, 0)
    end = consumer.get_watermark_offsets(place, timeout=10)[1]
    ids, versions, times = [], [], []
    until_s = time.monotonic() + _STALL_S
    try:
        while _position(consumer, place) < end:
            for message in consumer.consume(_BATCH, 0.5):
                if message.error() is None:
                    one = _decode(message.value())
                    ids.append(int(one.event_id[1:]))
                    versions.append(int(one.model.version))
                    times.append(message.timestamp()[1])
                    until_s = time.monotonic() + _STALL_S
            if time.monotonic() > until_s:
                msg = f"{topic}: the committed end is at {_position(consumer, place)} of {end}; is a transaction open?"
                raise DrillError(msg)
    except (msgspec.DecodeError, ValueError) as error:
        msg = f"{topic}: holds what is no prediction of one version: {error}"
        raise DrillError(msg) from error
    finally:
        consumer.close()
    return Committed(*(np.array(column, np.int64) for column in (ids, versions, times)))


def _position(consumer: Any, place: TopicPartition) -> int:
    return max(int(consumer.position([place])[0].offset), 0)


def _consumer(bootstrap: str, topic: str) -> Any:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "headrace-drill",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.message.max.bytes": 1 << 22,
            "fetch.wait.max.ms": 20,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    return consumer
