"""Letters: headers, and what becomes of one that no topic of Kafka's default size could take."""

import hashlib
from dataclasses import replace

import pytest

from udfs.core.rows.letters import CUT_BYTES, MAX_RECORD_BYTES, Letter, fitting, headers

LETTER = Letter("rejects", "topic", 3, 7, 99, "decode", "malformed", "why", '{"user":[0,1]}', b"key", b"value")


def test_headers_say_why_and_from_where() -> None:
    assert headers(LETTER) == {
        "headrace.stage": b"decode",
        "headrace.reason": b"malformed",
        "headrace.detail": b"why",
        "headrace.topic": b"topic",
        "headrace.partition": b"3",
        "headrace.offset": b"7",
        "headrace.timestamp_ms": b"99",
        "headrace.order": b'{"user":[0,1]}',
    }


def test_a_letter_that_fits_is_left_as_it_is() -> None:
    largest = replace(LETTER, value=b"x" * (MAX_RECORD_BYTES - 3))
    assert fitting(largest) is largest
    assert fitting(replace(LETTER, key=None, value=None)).value is None


@pytest.mark.parametrize(("key", "value"), [(b"key", b"x" * MAX_RECORD_BYTES), (b"k" * MAX_RECORD_BYTES, b"v")])
def test_a_letter_that_is_too_large_is_cut_and_says_so(key: bytes, value: bytes) -> None:
    cut = fitting(replace(LETTER, key=key, value=value))
    assert (cut.key, cut.value) == (key[:CUT_BYTES], value[:CUT_BYTES])
    assert f"of {len(value)}, sha256 {hashlib.sha256(value).hexdigest()}" in cut.detail
    assert cut.detail.endswith("why")
