"""The reader beside the job: all that becomes visible to a reader of committed records while faults happen."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from scripts.chaos.settings import ChaosError
from scripts.demo.outputs import Letter, Prediction, letter_of, prediction_of
from scripts.kafka.consume import Record
from udfs.core.offline.parity import Origin

_BATCH, _WAIT_S = 10_000, 0.2


class Reader:
    """Reads the output topics of a job, each of one partition, from their beginning, in a thread of its own."""

    def __init__(self, bootstrap: str, predictions: str, letters: Sequence[str]) -> None:
        self._predictions_topic, self._topics = predictions, (predictions, *letters)
        self._consumer: Any = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "headrace-chaos",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, 0) for topic in self._topics])
        self.records: list[Record] = []
        #: places in the source that have an outcome
        self.accounted: set[tuple[int, int]] = set()
        self.predictions = 0
        self._error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def wait(self, count: int, timeout_s: float, check: Callable[[], None]) -> None:
        """Wait until so many records of the source have an outcome, or time is up: then the books say what is missing.

        Parameters
        ----------
        check : is called twice a second; raises when waiting is in vain
        """
        until_s = time.monotonic() + timeout_s
        while len(self.accounted) < count and time.monotonic() < until_s:
            if self._error is not None:
                raise self._error
            check()
            time.sleep(0.5)

    def close(self) -> list[Record]:
        """End it; return what it saw."""
        self._stop.set()
        self._thread.join(30)
        if self._error is not None:
            raise self._error
        return self.records

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for message in self._consumer.consume(_BATCH, _WAIT_S):
                    if message.error() is None:
                        self._take(message)
        except Exception as error:  # noqa: BLE001  the waiting thread raises it
            self._error = error
        finally:
            self._consumer.close()

    def _take(self, message: Any) -> None:
        headers = tuple((name, value) for name, value in message.headers() or ())
        place = (message.topic(), message.partition(), message.offset(), message.timestamp()[1])
        record = Record(*place, message.key(), message.value(), headers)
        self.records.append(record)
        origin = self._origin(record)
        self.accounted.add((origin.partition, origin.offset))
        self.predictions += record.topic == self._predictions_topic

    def _origin(self, record: Record) -> Origin:
        return (prediction_of if record.topic == self._predictions_topic else letter_of)(record).origin


def outputs_of(records: Sequence[Record], predictions_topic: str) -> tuple[list[Prediction], list[Letter]]:
    """Return what stands in output records, each topic in its order."""
    predictions = [prediction_of(one) for one in records if one.topic == predictions_topic]
    return predictions, [letter_of(one) for one in records if one.topic != predictions_topic]


def progress_of(bootstrap: str, topic: str) -> Callable[[], int]:
    """Return what says how many records a topic of one partition holds, committed or not.

    Raises
    ------
    ChaosError : by the call, when the broker is away.
    """
    consumer: Any = Consumer({"bootstrap.servers": bootstrap, "group.id": "headrace-chaos-progress"})
    place = TopicPartition(topic, 0)

    def progress() -> int:
        try:
            return int(consumer.get_watermark_offsets(place, timeout=1.0)[1])
        except Exception as error:
            msg = f"{topic}: no answer of the broker: {error}"
            raise ChaosError(msg) from error

    return progress
