"""Payments as JSON texts, all at once: bytes are laid out in a matrix, one row per event, digits by table.

What varies in length stands last, so that a row is cut at its end by numpy itself. No Python object is made per event
but the bytes that are sent.
"""

import numpy as np
from numpy.typing import NDArray

from scripts.load.draw import I64
from scripts.load.payments import Payments

U8 = NDArray[np.uint8]
_GROUP = np.frombuffer(b"".join(b"%04d" % i for i in range(10_000)), np.uint8).reshape(-1, 4)
_AMOUNT_DIGITS = 5
#: text before a number, digits of the number, and whether the number stands in quotes, behind a letter
_FIELDS = (
    (b'{"payment_id":"p', 11, True),
    (b',"paid_at_ms":', 13, False),
    (b',"user":"u', 8, True),
    (b',"merchant":"m', 5, True),
    (b',"device":"d', 9, True),
    (b',"known_device":', 1, False),
    (b',"online":', 1, False),
)
_LAST = b',"amount":'


def texts(payments: Payments) -> list[bytes]:
    """Return one JSON object per payment.

    Examples
    --------
    >>> one = Payments(*(np.array([number]) for number in (7, 1_767_225_600_000, 1, 2, 3, 1, 0, 1250, 0)))
    >>> texts(one)[0].decode()[:60]
    '{"payment_id":"p00000000007","paid_at_ms":1767225600000,"use'
    """
    template = b"".join(before + b"0" * digits + (b'"' if quoted else b"") for before, digits, quoted in _FIELDS)
    head = template + _LAST
    count, width = payments.number.size, len(head) + _AMOUNT_DIGITS + len(b".00}")
    matrix = np.zeros((count, width), np.uint8)
    matrix[:, : len(head)] = np.frombuffer(head, np.uint8)
    columns = (
        *(payments.number, payments.time_ms, payments.user, payments.merchant),
        *(payments.device, payments.known_device, payments.online),
    )
    at = 0
    for (before, digits, quoted), column in zip(_FIELDS, columns, strict=True):
        at += len(before)
        _put(matrix, at, digits, column)
        at += digits + quoted
    _put_amounts(matrix, len(head), payments.cents)
    found: list[bytes] = matrix.view(f"S{width}").ravel().tolist()
    return found


def user_keys(payments: Payments) -> list[bytes]:
    """Return the Kafka key of each payment: its user, so that the payments of one keep their order."""
    return _names(b"u", 8, payments.user)


def chargeback_texts(numbers: I64, known_ms: I64) -> list[bytes]:
    """Return one chargeback per payment number.

    Examples
    --------
    >>> chargeback_texts(np.array([7]), np.array([1_767_225_600_000]))
    [b'{"payment_id":"p00000000007","known_at_ms":1767225600000,"charged_back":1}']
    """
    head, middle, last = b'{"payment_id":"p', b'","known_at_ms":', b',"charged_back":1}'
    template = head + b"0" * 11 + middle + b"0" * 13 + last
    matrix = np.tile(np.frombuffer(template, np.uint8), (numbers.size, 1))
    _put(matrix, len(head), 11, numbers)
    _put(matrix, len(head) + 11 + len(middle), 13, known_ms)
    found: list[bytes] = matrix.view(f"S{len(template)}").ravel().tolist()
    return found


def payment_keys(numbers: I64) -> list[bytes]:
    """Return the ids of payments, the Kafka keys of chargebacks."""
    return _names(b"p", 11, numbers)


def _names(letter: bytes, digits: int, numbers: I64) -> list[bytes]:
    matrix = np.full((numbers.size, 1 + digits), letter[0], np.uint8)
    _put(matrix, 1, digits, numbers)
    found: list[bytes] = matrix.view(f"S{1 + digits}").ravel().tolist()
    return found


def _put(matrix: U8, at: int, digits: int, numbers: I64) -> None:
    """Write numbers into columns `at` .. `at + digits`, zeros before them."""
    end, rest = at + digits, numbers
    while end > at:
        some = min(4, end - at)
        if end - some > at:
            group, rest = rest % 10_000, rest // 10_000
        else:
            group = rest
        matrix[:, end - some : end] = _GROUP[group, 4 - some :]
        end -= some


def _put_amounts(matrix: U8, at: int, cents: I64) -> None:
    whole, part = cents // 100, cents % 100
    for digits in range(1, _AMOUNT_DIGITS + 1):
        mine = np.flatnonzero((whole >= 10 ** (digits - 1) if digits > 1 else whole >= 0) & (whole < 10**digits))
        if mine.size:
            text = np.tile(np.frombuffer(b"0" * digits + b".00}", np.uint8), (mine.size, 1))
            _put(text, 0, digits, whole[mine])
            _put(text, digits + 1, 2, part[mine])
            matrix[mine, at : at + text.shape[1]] = text
