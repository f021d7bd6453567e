"""The ledger: what was sent, in an open loop by an idempotent producer, and where the broker put it."""

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from scripts.chaos.invariant import Entry
from scripts.chaos.settings import ChaosError
from scripts.chaos.traffic import Event
from scripts.demo.accounting import Sent
from scripts.kafka.consume import Record, read_all
from udfs.core.offline.parity import Origin

STEP_S = 0.005
_FLUSH_S = 180.0


class Ledger:
    """Sends events in a thread of its own, each when it is due, whatever has become of those before it."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic, self._bootstrap = topic, bootstrap
        self.events: list[Event] = []
        self.handed = 0
        self.acknowledged = 0
        self._failed: list[str] = []
        #: place in the ledger -> (partition, offset), as far as the broker said it
        self._told: dict[int, tuple[int, int]] = {}
        self._thread: threading.Thread | None = None
        self._producer: Any = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 300_000}
        )

    def send(self, events: Sequence[Event], rate: float) -> None:
        """Begin to send; those that were sent before must be through."""
        self.join()
        first = len(self.events)
        self.events += events
        self._thread = threading.Thread(target=self._run, args=(first, rate), name="ledger", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until every record is acknowledged.

        Raises
        ------
        ChaosError : some are not.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failed or self.acknowledged != len(self.events):
            what = self._failed[0] if self._failed else "no answer"
            msg = f"{self.topic}: {len(self.events) - self.acknowledged} records were not acknowledged: {what}"
            raise ChaosError(msg)

    def entries(self) -> tuple[list[Entry], list[Record]]:
        """Return the ledger and the records of the topic, once it is shown that they are the same.

        A retry over a broker's death may be acknowledged without its offset, so the topic itself says it.

        Raises
        ------
        ChaosError : the topic does not hold what was sent, in its order.
        """
        self.join()
        records = read_all(self._bootstrap, self.topic)
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(record.partition, []).append(record)
        places = {partition: iter(found) for partition, found in by_partition.items()}
        found = []
        for place, event in enumerate(self.events):
            at = next(places.get(event.partition, iter(())), None)
            told = self._told.get(place)
            if (
                at is None
                or (at.key, at.value) != (event.key, event.value)
                or told not in (None, (at.partition, at.offset))
            ):
                msg = f"{self.topic}: record {place} was acknowledged at {told} and is not there; there is {at!r:.300}"
                raise ChaosError(msg)
            origin = Origin(self.topic, at.partition, at.offset)
            found.append(Entry(Sent(origin, event.expected, event.key, event.value), event.event_id))
        if len(found) != len(records):
            msg = f"{self.topic}: holds {len(records)} records, {len(found)} were sent; does anyone else write there?"
            raise ChaosError(msg)
        return found, records

    def _run(self, first: int, rate: float) -> None:
        begun_s, at = time.monotonic(), first
        while at < len(self.events):
            due = min(first + int((time.monotonic() - begun_s) * rate), len(self.events))
            while at < due:
                event = self.events[at]
                self._producer.produce(
                    self.topic, event.value, event.key, event.partition, on_delivery=partial(self._done, at)
                )
                at += 1
            self.handed = at
            self._producer.poll(0)
            time.sleep(STEP_S)
        self._producer.flush(_FLUSH_S)

    def _done(self, place: int, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failed.append(str(KafkaException(error)))
            return
        self.acknowledged += 1
        if message.offset() is not None and message.offset() >= 0:
            self._told[place] = (message.partition(), message.offset())
