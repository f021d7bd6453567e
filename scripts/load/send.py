"""Records to Kafka by librdkafka, in batches: as fast as it goes, or at an even pace."""

import importlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from scripts.load.settings import LoadError

SEND_BATCH = 10_000
"""Without a pace: what is handed to librdkafka at once."""
QUEUE = 1_000_000
"""Records that may wait for their acknowledgement."""
PACED_S = 0.005
"""With a pace: how often records are sent."""
_FLUSH_S = 60.0
_BATCH = tuple[list[bytes], list[bytes | None]]


@dataclass(frozen=True, slots=True)
class Report:
    """What was sent, and acknowledged by the broker."""

    sent: int
    wall_s: float

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.sent / max(self.wall_s, 1e-9)


class Sender:
    """An idempotent producer for one topic.

    Parameters
    ----------
    bootstrap : `host:port` of a broker
    topic : exists
    linger_ms : how long librdkafka waits for more records before it sends some; small for latency, large for rate
    """

    def __init__(self, bootstrap: str, topic: str, linger_ms: float = 20.0) -> None:
        self._topic = topic
        self._producer: Any = _library().Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": linger_ms,
                "batch.size": 1 << 18,
                "batch.num.messages": 20_000,
                "queue.buffering.max.messages": QUEUE,
                # By the key alone, so that the payments of a user keep their order.
                "partitioner": "murmur2",
            }
        )

    def put(self, keys: list[bytes], values: list[bytes | None]) -> None:
        """Hand records over; waits while too many are not yet acknowledged."""
        # Room is waited for beforehand: of a batch that is taken in part, the rest would come in another order.
        while len(self._producer) + len(keys) > QUEUE:
            self._producer.poll(0.01)
        messages: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
        taken = self._producer.produce_batch(self._topic, messages)
        if taken != len(messages):
            error = next(one["_error"] for one in messages if "_error" in one)
            msg = f"{self._topic}: {len(messages) - taken:,} of {len(messages):,} records were refused: {error}"
            raise LoadError(msg)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until every record is acknowledged.

        Raises
        ------
        LoadError : some are not within a minute.
        """
        left = self._producer.flush(_FLUSH_S)
        if left:
            msg = f"{self._topic}: {left:,} records were not acknowledged in {_FLUSH_S:.0f} s; is the broker up?"
            raise LoadError(msg)


def send(sender: Sender, given: Iterable[_BATCH], on_sent: Callable[[int], Any] = lambda _count: None) -> Report:
    """Send batches as fast as the broker takes them."""
    begun_s, sent = time.monotonic(), 0
    for keys, values in given:
        sender.put(keys, values)
        sent += len(keys)
        on_sent(len(keys))
    sender.flush()
    return Report(sent, time.monotonic() - begun_s)


def send_paced(
    sender: Sender,
    given: Iterable[_BATCH],
    rate: float,
    on_sent: Callable[[int], Any] = lambda _count: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Send batches in an open loop: each record when it is due, whatever has become of those before it.

    Parameters
    ----------
    rate : records per second, above 0
    """
    begun_s, sent = clock(), 0
    for keys, values in given:
        done = 0
        while done < len(keys):
            due = min(int((clock() - begun_s) * rate) - sent, len(keys) - done)
            if due > 0:
                sender.put(keys[done : done + due], values[done : done + due])
                done += due
                sent += due
                on_sent(due)
            else:
                sleep(PACED_S)
    sender.flush()
    return Report(sent, clock() - begun_s)


def _library() -> Any:
    try:
        return importlib.import_module("confluent_kafka")
    except ImportError as error:
        msg = "confluent-kafka is not installed; it comes with the extra `dev`: pip install -e '.[dev]'"
        raise LoadError(msg) from error
