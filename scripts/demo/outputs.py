"""What the scoring job wrote, read back: records of its output topics -> predictions and letters; nothing is judged."""

from dataclasses import dataclass

import msgspec

from scripts.kafka.consume import Record
from udfs.core.errors import HeadraceError
from udfs.core.offline.parity import Observed, Origin

Order = dict[str, tuple[int, int]]
_HEADER = "headrace."


class OutputError(HeadraceError):
    """A record of an output topic is not as the job writes them."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One record of the predictions topic."""

    origin: Origin
    #: when the broker took the input and when it took the prediction, epoch milliseconds
    input_appended_ms: int
    appended_ms: int
    event_id: str
    score: float
    features: dict[str, int | float | None]
    order: Order
    #: the record's value
    value: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of the rejects, late or order topic."""

    #: topic it was read from
    topic: str
    origin: Origin
    stage: str
    reason: str
    order: Order
    key: bytes | None
    value: bytes | None


class _Origin(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class _Prediction(msgspec.Struct):
    event_id: str
    score: float
    origin: _Origin
    order: Order
    features: dict[str, int | float | None]


_decode = msgspec.json.Decoder(_Prediction).decode
_decode_order = msgspec.json.Decoder(Order).decode


def prediction_of(record: Record) -> Prediction:
    """Read a record of the predictions topic.

    Raises
    ------
    OutputError : it is no prediction with features.
    """
    try:
        found = _decode(record.value or b"")
    except msgspec.DecodeError as error:
        msg = f"{record.topic} at offset {record.offset}: no prediction with features ({error}): {record.value!r:.200}"
        raise OutputError(msg) from error
    return Prediction(
        Origin(found.origin.topic, found.origin.partition, found.origin.offset),
        found.origin.timestamp_ms,
        record.timestamp_ms,
        found.event_id,
        found.score,
        found.features,
        found.order,
        record.value or b"",
    )


def letter_of(record: Record) -> Letter:
    """Read a record of a letter topic by its headers.

    Raises
    ------
    OutputError : a header is missing, or is not what it should be.
    """
    headers = {name.removeprefix(_HEADER): value for name, value in record.headers}
    try:
        return Letter(
            record.topic,
            Origin(headers["topic"].decode(), int(headers["partition"]), int(headers["offset"])),
            headers["stage"].decode(),
            headers["reason"].decode(),
            _decode_order(headers["order"]),
            record.key,
            record.value,
        )
    except (KeyError, ValueError, msgspec.DecodeError) as error:
        msg = f"{record.topic} at offset {record.offset}: headers are no letter's ({error!r}): {sorted(headers)}"
        raise OutputError(msg) from error


def observed_of(predictions: list[Prediction], letters: list[Letter]) -> dict[Origin, Observed]:
    """Return what the job said of each input record that reached a featurize stage, for `check_parity`."""
    seen = {letter.origin: Observed(letter.order, None) for letter in letters if letter.order}
    return seen | {one.origin: Observed(one.order, one.features) for one in predictions}
