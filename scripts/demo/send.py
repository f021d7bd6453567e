"""Sends the events of a demo in their parts, and waits after each until the job has accounted for all of them."""

import time
from contextlib import closing
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.demo.collect import Collector
from scripts.demo.settings import DemoError, Settings
from scripts.demo.traffic import Traffic
from scripts.flights.replay import replay, send
from scripts.flights.stream import Events
from udfs.core.offline.parity import Origin

_TRANSACTIONAL_ID = "headrace-demo"


def send_all(settings: Settings, kafka: str, flights: Traffic, collected: Collector, console: Console) -> int:
    """Send weather, a backlog of departures, departures at an even pace, and arrivals.

    Weather goes first: the join goes by event time, but only over what has come.

    Returns
    -------
    When the backlog could be read, epoch milliseconds.

    Raises
    ------
    DemoError, ReplayError : a record was not acknowledged, or the job does not account for all of them.
    """
    rate_eps = settings.rate_eps
    _say(console, "weather, before all else", flights.weather)
    replay(flights.weather, kafka, as_fast_as_possible=True, console=console)
    topic = flights.weather.topics[0]
    collected.wait_for({Origin(topic, 0, offset) for offset in range(len(flights.weather))}, console)

    _say(console, f"departures from {settings.start}, a backlog that appears all at once", flights.backlog)
    visible_ms = send_at_once(flights.backlog, kafka, console)
    collected.wait_for({one.origin for one in flights.sent[: len(flights.backlog)]}, console)

    _say(console, f"departures from {settings.paced_from}, {rate_eps:g} per second", flights.paced)
    replay(flights.paced, kafka, rate_eps=rate_eps, console=console)
    collected.wait_for({one.origin for one in flights.sent}, console)

    _say(console, "arrivals, the truth that comes later", flights.arrivals)
    replay(flights.arrivals, kafka, as_fast_as_possible=True, console=console)
    return visible_ms


def send_at_once(events: Events, kafka: str, console: Console) -> int:
    """Send events in one transaction, so that a reader of committed records finds all of them at the same time.

    The sender, which shares the job's cores, is through before the job starts on them.

    Returns
    -------
    When the transaction was committed, epoch milliseconds by this machine's clock, which is the broker's.

    Raises
    ------
    DemoError : the broker refuses.
    ReplayError : a record was not acknowledged.
    """
    columns = (TextColumn("send"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with closing(_producer(kafka)) as producer, Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=len(events))
            producer.init_transactions()
            producer.begin_transaction()
            send(events, None, producer, on_acknowledged=lambda count: progress.advance(bar, count))
            visible_ms = int(time.time() * 1000)
            producer.commit_transaction()
    except KafkaError as error:
        msg = f"{events.topics[0]} on {kafka}: {len(events)} events could not be sent in a transaction: {error}"
        raise DemoError(msg) from error
    return visible_ms


def _producer(kafka: str) -> Any:
    return KafkaProducer(
        bootstrap_servers=kafka,
        transactional_id=_TRANSACTIONAL_ID,
        acks="all",
        linger_ms=5,
        batch_size=256 * 1024,
        allow_auto_create_topics=False,
    )


def _say(console: Console, what: str, events: Events) -> None:
    console.print(f"  {what}: {len(events):,}", highlight=False, soft_wrap=True)
