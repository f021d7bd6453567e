"""INV, the clauses that are pure: each record has exactly one outcome, the right one; order; what readers saw.

The ledger holds what was sent and where the broker put it. Whatever the job wrote names the place of its input, so also
a payload that nobody can read is accounted for.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scripts.demo.accounting import PREDICTION, Accounting, Outcome, Sent, account
from scripts.demo.outputs import Letter, Prediction
from scripts.kafka.consume import Record
from udfs.core.offline.parity import Origin

Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the ledger."""

    sent: Sent
    #: of a record that may be scored
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the clauses found."""

    books: Accounting
    #: a sentence per broken clause
    broken: tuple[str, ...]


def judge(
    entries: Sequence[Entry], predictions: Sequence[Prediction], letters: Sequence[Letter], late_topic: str
) -> Verdict:
    """Judge clauses 1, 2 and 4.

    Parameters
    ----------
    entries : all records of the input topic
    predictions : as they stand in their topic of one partition
    letters : rejects and late rows
    """
    outcomes = [Outcome(one.origin, PREDICTION) for one in predictions]
    outcomes += [
        Outcome(one.origin, "late" if one.topic == late_topic else one.reason, one.key, one.value) for one in letters
    ]
    books = account([one.sent for one in entries], outcomes)
    broken = []
    if books.duplicates:
        broken.append(f"clause 1: {books.duplicates} outcomes beyond the first")
    for count, what in (
        (books.missing, "records without an outcome"),
        (books.strangers, "outcomes of records that were never sent"),
        (books.misjudged, "outcomes that are not the right ones"),
        (books.altered, "letters whose bytes differ from the record's"),
    ):
        if count:
            broken.append(f"clause 2: {count} {what}")
    if broken:
        broken += [f"  {example}" for example in books.examples[:3]]
    broken += _ids(entries, predictions)
    broken += _order({one.sent.origin: one.sent.key for one in entries}, predictions)
    return Verdict(books, tuple(broken))


def _ids(entries: Sequence[Entry], predictions: Sequence[Prediction]) -> list[str]:
    """A prediction must name the event that stands at its origin."""
    known = {one.sent.origin: one.event_id for one in entries}
    wrong = [one for one in predictions if known.get(one.origin) != one.event_id]
    if not wrong:
        return []
    first = wrong[0]
    example = f"{first.event_id!r} of {first.origin}, which is {known.get(first.origin)!r}"
    return [f"clause 2: {len(wrong)} predictions name another event than that of their origin, such as {example}"]


def _order(keys: Mapping[Origin, bytes | None], predictions: Sequence[Prediction]) -> list[str]:
    """Along the predictions topic, the records of a key come in their order."""
    newest: dict[tuple[int, bytes | None], int] = {}
    wrong = []
    for one in predictions:
        key = (one.origin.partition, keys.get(one.origin))
        if one.origin.offset <= newest.get(key, -1):
            wrong.append(f"{one.origin} of key {key[1]!r} behind offset {newest[key]}")
        newest[key] = max(one.origin.offset, newest.get(key, -1))
    return [f"clause 4: {len(wrong)} predictions are out of the order of their key: {wrong[0]}"] if wrong else []


def fingerprints(records: Sequence[Record]) -> dict[Place, bytes]:
    """Return place in Kafka -> digest of key, value and headers."""
    return {(one.topic, one.partition, one.offset): _digest(one) for one in records}


def compare_readers(beside: Mapping[Place, bytes], final: Mapping[Place, bytes]) -> list[str]:
    """Judge clause 3: a reader of committed records that ran all along saw what one sees that reads at the end."""
    unseen, gone = final.keys() - beside.keys(), beside.keys() - final.keys()
    changed = [place for place in beside.keys() & final.keys() if beside[place] != final[place]]
    found = []
    for places, what in ((gone, "were seen by the reader beside the job and are gone"), (unseen, "it never saw")):
        if places:
            found.append(f"clause 3: {len(places)} records {what}, such as {min(places)}")
    if changed:
        found.append(f"clause 3: {len(changed)} records have changed, such as {min(changed)}")
    return found


def _digest(record: Record) -> bytes:
    return hashlib.sha256(repr((record.key, record.value, record.headers)).encode()).digest()
