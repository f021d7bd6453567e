"""Send events to Kafka in their order: paced by event time, evenly, or as fast as possible.

Each record is acknowledged by all replicas exactly once in its partition (idempotent producer); one that fails ends the
replay. Kafka timestamps are left to the broker.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.flights.events import WEATHER
from scripts.flights.stream import Events
from udfs.core.errors import HeadraceError, did_you_mean

StreamOrder = Literal["event_time", "enrichments_first"]
_ORDERS = ("event_time", "enrichments_first")
_CHUNK = 500
_MOST_UNACKNOWLEDGED = 50_000  # the producer's memory has no bound of its own
_LONGEST_SLEEP_S = 0.25  # the progress bar moves on meanwhile
_ACKNOWLEDGE_TIMEOUT_S = 130.0  # just above the producer's delivery_timeout_ms


class ReplayError(HeadraceError):
    """A replay was asked for wrongly, or a record was not acknowledged."""


class Producer(Protocol):
    """What a replay needs of a KafkaProducer."""

    def send(self, topic: str, value: bytes | None, key: bytes | None) -> Any:
        """Return a future with `is_done`, `failed()` and `exception`."""

    def flush(self, timeout: float) -> None:
        """Wait until every record sent is acknowledged or failed."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay did."""

    #: Topic -> records acknowledged.
    acknowledged: dict[str, int]
    wall_s: float

    @property
    def rate_eps(self) -> float:
        """Records acknowledged per second."""
        return sum(self.acknowledged.values()) / max(self.wall_s, 1e-9)


def replay(
    events: Events,
    bootstrap: str,
    *,
    speed_up: float | None = None,
    rate_eps: float | None = None,
    as_fast_as_possible: bool = False,
    stream_order: StreamOrder = "event_time",
    enrichment_topics: Collection[str] = (WEATHER,),
    console: Console | None = None,
) -> ReplayReport:
    """Send all events and wait until each is acknowledged.

    Parameters
    ----------
    events : in the order they are to be sent.
    bootstrap : `host:port` of a broker; the topics exist.
    speed_up, rate_eps, as_fast_as_possible : exactly one of event seconds per real second, events per real second, and
        no pace at all.
    stream_order : `enrichments_first` sends the events of `enrichment_topics` before all others and without a pace, so
        that the as-of join finds them whatever the pace of the rest.
    enrichment_topics : full topic names.
    console : where a progress bar is shown; None shows none.

    Raises
    ------
    ReplayError : not exactly one pace, a pace not above 0, an unknown order, or a record that was not acknowledged.
    """
    due_s = due_times_s(events.times_ms, speed_up, rate_eps, as_fast_as_possible=as_fast_as_possible)
    if stream_order not in _ORDERS:
        msg = f"stream_order: got {stream_order!r}{did_you_mean(stream_order, _ORDERS)}"
        raise ReplayError(msg)
    parts = [(events, due_s)]
    if stream_order == "enrichments_first":
        early = np.array([topic in set(enrichment_topics) for topic in events.topics], bool)
        rest = events.take(~early)
        rest_due_s = due_times_s(rest.times_ms, speed_up, rate_eps, as_fast_as_possible=as_fast_as_possible)
        parts = [(events.take(early), None), (rest, rest_due_s)]
    started_s = time.monotonic()
    try:
        with closing(_producer(bootstrap)) as producer, _progress(console) as progress:
            bar = progress.add_task("replay", total=len(events))
            for part, part_due_s in parts:
                send(part, part_due_s, producer, on_acknowledged=lambda count: progress.advance(bar, count))
    except KafkaError as error:
        msg = f"replay to {bootstrap}: {error}; are the broker and its topics {sorted(set(events.topics))} up?"
        raise ReplayError(msg) from error
    return ReplayReport(dict(Counter(events.topics)), time.monotonic() - started_s)


def check_pace(speed_up: float | None, rate_eps: float | None, *, as_fast_as_possible: bool) -> None:
    """Raise ReplayError unless exactly one pace is given, and it is above 0."""
    paces = [pace for pace in (speed_up, rate_eps) if pace is not None]
    if len(paces) + as_fast_as_possible != 1:
        msg = (
            "give exactly one of speed_up, rate_eps and as_fast_as_possible; "
            f"got {speed_up}, {rate_eps} and {as_fast_as_possible}"
        )
        raise ReplayError(msg)
    if paces and not 0 < paces[0] < float("inf"):
        msg = f"a pace must be above 0 and finite; got {paces[0]}; did you mean as_fast_as_possible?"
        raise ReplayError(msg)


def due_times_s(
    times_ms: NDArray[np.int64], speed_up: float | None, rate_eps: float | None, *, as_fast_as_possible: bool
) -> NDArray[np.float64] | None:
    """When each event is to be sent, in seconds after the start; None when there is no pace.

    Raises
    ------
    ReplayError : not exactly one pace, or one that is not above 0.

    Examples
    --------
    >>> due_times_s(np.array([0, 60_000]), 30.0, None, as_fast_as_possible=False).tolist()
    [0.0, 2.0]
    """
    check_pace(speed_up, rate_eps, as_fast_as_possible=as_fast_as_possible)
    if speed_up is not None:
        return np.asarray((times_ms - times_ms[:1].sum()) / 1000.0 / speed_up, np.float64)
    return None if rate_eps is None else np.arange(len(times_ms)) / rate_eps


def send(
    events: Events,
    due_s: NDArray[np.float64] | None,
    producer: Producer,
    *,
    on_acknowledged: Callable[[int], Any] = lambda _count: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Send events when they are due, and wait until all are acknowledged.

    Parameters
    ----------
    events : in the order they are to be sent.
    due_s : float64[n], not falling, seconds after the start; None sends without a pace.
    producer : an idempotent KafkaProducer, or a fake.
    on_acknowledged : called with the number of records newly acknowledged.
    clock, sleep : in seconds.

    Raises
    ------
    ReplayError : a record was not acknowledged.
    """
    waiting: deque[Any] = deque()
    started_s, position = clock(), 0
    while position < len(events):
        upto = len(events)
        if due_s is not None:
            now_s = clock() - started_s
            upto = int(np.searchsorted(due_s, now_s, side="right"))
            if upto <= position:
                sleep(min(float(due_s[position]) - now_s, _LONGEST_SLEEP_S))
                on_acknowledged(_settle(waiting))
                continue
        chunk = slice(position, min(upto, position + _CHUNK))
        for topic, key, value in zip(events.topics[chunk], events.keys[chunk], events.values[chunk], strict=True):
            waiting.append(producer.send(topic, value, key))
        position = chunk.stop
        on_acknowledged(_settle(waiting))
        if len(waiting) > _MOST_UNACKNOWLEDGED:
            waiting[len(waiting) // 2].get(_ACKNOWLEDGE_TIMEOUT_S)
    producer.flush(_ACKNOWLEDGE_TIMEOUT_S)
    on_acknowledged(_settle(waiting))
    if waiting:
        msg = f"{len(waiting)} of {len(events)} records were neither acknowledged nor refused; is the broker up?"
        raise ReplayError(msg)


def _settle(waiting: deque[Any]) -> int:
    """Drop acknowledged records from the front and count them."""
    count = 0
    while waiting and waiting[0].is_done:
        future = waiting.popleft()
        if future.failed():
            msg = f"a record was not acknowledged: {future.exception!r}; is the broker up, and does the topic exist?"
            raise ReplayError(msg)
        count += 1
    return count


def _producer(bootstrap: str) -> Any:
    return KafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        batch_size=256 * 1024,
        allow_auto_create_topics=False,
        max_block_ms=15_000,
    )


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=console is None)
