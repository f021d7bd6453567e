"""The Kafka transactions of a job: which are open, and how to end those that nobody will."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from scripts.kafka.errors import TopicError
from scripts.kafka.topics import admin_of

OPEN = ("Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence")
_ABORT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Transaction:
    """What the broker knows of one transactional id."""

    name: str
    #: Kafka's word, such as `Ongoing`; see `OPEN`
    state: str
    producer_id: int
    #: after which the broker aborts it by itself
    timeout_ms: int
    #: epoch milliseconds; None: nothing was written yet
    started_ms: int | None
    #: topics and partitions that it has written to, and whose readers it holds back
    places: tuple[tuple[str, int], ...]

    @property
    def is_open(self) -> bool:
        """Say whether it holds readers of committed records back."""
        return self.state in OPEN


def is_of(name: str, prefix: str) -> bool:
    """Say whether a transactional id is of the job with that prefix, as Flink's Kafka sink makes them.

    Examples
    --------
    >>> is_of("headrace-pay-0-12", "headrace-pay"), is_of("headrace-pay-eu-0-12", "headrace-pay")
    (True, False)
    """
    return re.fullmatch(rf"{re.escape(prefix)}-\d+-\d+", name) is not None


def transactions(bootstrap: str, prefix: str, *, only_open: bool = True) -> list[Transaction]:
    """Return the transactions of a job.

    Parameters
    ----------
    bootstrap : `host:port` of a broker
    prefix : transactional id prefix of the job: its name
    only_open : without those that are through, which the broker remembers for days

    Raises
    ------
    TopicError : the broker cannot be reached, or refuses.
    """
    try:
        with admin_of(bootstrap) as admin:
            states = OPEN if only_open else None
            listed = [one for found in admin.list_transactions(state_filters=states).values() for one in found]
            names = sorted(one.transactional_id for one in listed if is_of(one.transactional_id, prefix))
            return [_transaction(name, one) for name, one in sorted(admin.describe_transactions(names).items())]
    except KafkaError as error:
        msg = f"{bootstrap}: the broker does not say which transactions there are: {type(error).__name__}: {error}"
        raise TopicError(msg) from error


def abort(bootstrap: str, names: Iterable[str]) -> None:
    """Abort the open transaction of each id: a producer of the same id begins anew, which fences the old one.

    Raises
    ------
    TopicError : the broker refuses, or one is open still.
    """
    for name in names:
        try:
            producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
            try:
                producer.init_transactions()
            finally:
                producer.close()
        except KafkaError as error:
            msg = f"transaction {name!r} cannot be aborted: {type(error).__name__}: {error}"
            raise TopicError(msg) from error
        until_s = time.monotonic() + _ABORT_TIMEOUT_S
        while _is_open(bootstrap, name):
            if time.monotonic() > until_s:
                msg = f"transaction {name!r} is open still, {_ABORT_TIMEOUT_S:.0f} s after it was aborted"
                raise TopicError(msg)
            time.sleep(0.1)


def _is_open(bootstrap: str, name: str) -> bool:
    with admin_of(bootstrap) as admin:
        return _transaction(name, admin.describe_transactions([name])[name]).is_open


def _transaction(name: str, found: Any) -> Transaction:
    started_ms = found.transaction_start_time_ms
    return Transaction(
        name,
        str(found.state.value),
        found.producer_id,
        found.transaction_timeout_ms,
        started_ms if started_ms >= 0 else None,
        tuple(sorted((place.topic, place.partition) for place in found.topic_partitions)),
    )
