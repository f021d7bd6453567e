"""Reads what the job writes, only what is committed, until every input has an outcome."""

import time
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flink_jobs.rest import FlinkRest
from scripts.demo.accounting import LATE, PREDICTION, Outcome
from scripts.demo.outputs import Letter, Prediction, letter_of, prediction_of
from scripts.demo.settings import DemoError
from scripts.kafka.consume import Record
from udfs.core.declare.declarations import Sinks
from udfs.core.offline.parity import Origin

_POLL_MS = 200
_MAX_POLL_RECORDS = 5_000
_WATCH_S = 2.0


class Collector:
    """All output records of the job so far.

    Parameters
    ----------
    bootstrap : `host:port` of a broker
    sinks : whose topics; each has one partition
    rest, job_id : the job; once it has ended, nothing is waited for
    stall_timeout_s : longest wait without any new record
    """

    def __init__(self, bootstrap: str, sinks: Sinks, rest: FlinkRest, job_id: str, stall_timeout_s: float) -> None:
        self._sinks, self._rest, self._job_id, self._stall_timeout_s = sinks, rest, job_id, stall_timeout_s
        self.predictions: list[Prediction] = []
        self.letters: list[Letter] = []
        #: origins that have at least one outcome, or one note of order
        self.accounted: set[Origin] = set()
        topics = dict.fromkeys([sinks.predictions.topic, sinks.rejects.topic, sinks.late.topic, sinks.order.topic])
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            fetch_max_wait_ms=50,
        )
        self._consumer.assign([TopicPartition(topic, 0) for topic in topics])

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the consumer."""
        self._consumer.close(autocommit=False)

    def outcomes(self, topic: str) -> list[Outcome]:
        """Return what came of the records of an input topic."""
        late = self._sinks.late.topic
        found = [Outcome(one.origin, PREDICTION) for one in self.predictions if one.origin.topic == topic]
        return found + [
            Outcome(one.origin, LATE if one.topic == late else one.reason, one.key, one.value)
            for one in self.letters
            if one.origin.topic == topic and one.topic != self._sinks.order.topic
        ]

    def wait_for(self, origins: set[Origin], console: Console) -> None:
        """Collect until all these input records are accounted for.

        Raises
        ------
        DemoError : nothing new came for too long, or the job has ended; says what is missing.
        """
        columns = (TextColumn("accounted for"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=len(origins))
            new_s = watched_s = time.monotonic()
            while left := origins - self.accounted:
                progress.update(bar, completed=len(origins) - len(left))
                if self._poll():
                    new_s = time.monotonic()
                elif time.monotonic() - new_s > self._stall_timeout_s:
                    raise DemoError(self._missing(origins, f"nothing new for {self._stall_timeout_s:g} s"))
                if time.monotonic() - watched_s > _WATCH_S:
                    watched_s = time.monotonic()
                    if (job := self._rest.job(self._job_id)).ended:
                        raise DemoError(self._missing(origins, f"the job is {job.state}"))
            progress.update(bar, completed=len(origins))

    def settle(self, quiet_s: float) -> None:
        """Collect until nothing came for `quiet_s`: what a job writes twice may be committed later."""
        new_s = time.monotonic()
        while time.monotonic() - new_s < quiet_s:
            if self._poll():
                new_s = time.monotonic()

    def _poll(self) -> int:
        polled = self._consumer.poll(_POLL_MS, _MAX_POLL_RECORDS)
        records = [_record(raw) for fetched in polled.values() for raw in fetched]
        for record in records:
            if record.topic == self._sinks.predictions.topic:
                self.predictions.append(prediction_of(record))
                self.accounted.add(self.predictions[-1].origin)
            else:
                self.letters.append(letter_of(record))
                self.accounted.add(self.letters[-1].origin)
        return len(records)

    def _missing(self, origins: set[Origin], why: str) -> str:
        left = sorted(origins - self.accounted)
        failure = self._rest.failure(self._job_id)
        return (
            f"{left[0].topic}: {len(left)} of {len(origins)} records have no outcome, first at offsets "
            f"{[origin.offset for origin in left[:5]]}: {why}; "
            f"{f'the job failed last with: {failure}; ' if failure else ''}look at {self._rest.page(self._job_id)}"
        )


def _record(raw: Any) -> Record:
    return Record(raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers))
