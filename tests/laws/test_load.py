"""The load generator: the same bytes for the same seed, and faults that come to what they say."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from scripts.load.draw import zipf
from scripts.load.faults import DUPLICATE, GOOD, LATE, POISON
from scripts.load.payments import BURST, RING, TAKEOVER
from scripts.load.send import send_paced
from scripts.load.settings import BLOCK, Load, LoadError
from scripts.load.stream import Records, batches, blocks, chargebacks, sample
from udfs.core.declare.loading import load_pipeline
from udfs.core.offline.featurize import featurize_offline
from udfs.core.rows.batches import RawBatch

pytestmark = pytest.mark.pure

PAYMENTS = Path(__file__).parents[2] / "conf" / "payments"
FAULTY = Load(users=500, merchants=50, duplicate_share=0.05, late_share=0.03, poison_share=0.02, disorder_ms=3_000)
COUNT = 3_000


@pytest.fixture(scope="module")
def faulty() -> Records:
    return sample(FAULTY, COUNT)


def test_the_same_seed_gives_the_same_bytes_whatever_the_batch_size(faulty: Records) -> None:
    cut = list(batches(FAULTY, COUNT, 700))
    assert [value for part in cut for value in part.values] == faulty.values
    assert [key for part in cut for key in part.keys] == faulty.keys
    names = {700 * i + place: name for i, part in enumerate(cut) for place, name in part.reasons.items()}
    assert names == faulty.reasons


def test_a_stream_may_be_begun_in_the_middle_of_a_block(faulty: Records) -> None:
    (part,) = blocks(FAULTY, 100, first=2_000)
    assert part.values == faulty.values[2_000:2_100]
    assert len(list(blocks(FAULTY, 20, first=BLOCK - 10))) == 2


def test_another_seed_gives_other_payments(faulty: Records) -> None:
    assert sample(Load(seed=2, users=500, merchants=50), 100).values != faulty.values[:100]


def test_poison_is_refused_for_the_reason_it_was_made_for_and_all_else_is_taken(faulty: Records) -> None:
    offsets = list(range(COUNT))
    kafka_ms = [FAULTY.start_ms + 86_400_000] * COUNT
    batch = RawBatch("payments.transactions", faulty.values, faulty.keys, [0] * COUNT, offsets, kafka_ms)
    done = featurize_offline(load_pipeline(PAYMENTS), PAYMENTS, [batch])
    letters = done.letters.to_pylist()
    rejects = {one["offset"]: one["reason"] for one in letters if one["kind"] == "rejects"}
    late = {one["offset"] for one in letters if one["kind"] == "late"}
    assert rejects == faulty.reasons
    assert len(set(faulty.reasons.values())) == 9
    planted = set(np.flatnonzero(faulty.kinds == LATE).tolist())
    assert planted
    assert planted <= late  # a copy of one that is late by then is late, too
    assert done.rows.num_rows == COUNT - len(rejects) - len(late)


def test_duplicates_repeat_an_earlier_event_byte_by_byte(faulty: Records) -> None:
    places = np.flatnonzero(faulty.kinds == DUPLICATE).tolist()
    assert places
    assert all(faulty.values[place] in faulty.values[:place] for place in places)
    ids = [value[:28] for value, kind in zip(faulty.values, faulty.kinds, strict=True) if value and kind == GOOD]
    assert len(set(ids)) == len(ids)


def test_events_come_at_most_the_disorder_behind_newer_ones() -> None:
    times_ms = sample(Load(disorder_ms=2_000), COUNT).times_ms
    behind_ms = np.maximum.accumulate(times_ms) - times_ms
    assert 0 < behind_ms.max() <= 2_000
    assert (np.diff(sample(Load(), COUNT).times_ms) >= 0).all()


def test_fraud_stands_out_as_its_pattern_says() -> None:
    found = sample(Load(users=5_000, fraud_share=0.03), BLOCK)
    share = np.bincount(found.patterns, minlength=4) / len(found)
    assert np.allclose(share[1:], 0.01, atol=0.002)
    events: list[Any] = [msgspec.json.decode(value or b"") for value in found.values]
    of = {kind: [events[i] for i in np.flatnonzero(found.patterns == kind)] for kind in (0, BURST, TAKEOVER, RING)}
    assert all(one["known_device"] == 0 and one["online"] == 1 for one in of[TAKEOVER])
    usual = np.median([one["amount"] for one in of[0]])
    assert np.median([one["amount"] for one in of[TAKEOVER]]) > 4 * usual
    per_merchant = len(of[RING]) / len({one["merchant"] for one in of[RING]})
    assert per_merchant >= 20


def test_a_chargeback_comes_once_and_after_its_payment() -> None:
    load = Load(users=500, duplicate_share=0.2, poison_share=0.1, fraud_share=0.1)
    found, paid_ms = sample(load, COUNT), {}
    for value, kind in zip(found.values, found.kinds, strict=True):
        if value and kind != POISON:
            event = msgspec.json.decode(value)
            paid_ms[event["payment_id"]] = event["paid_at_ms"]
    told = [msgspec.json.decode(value) for _, values, _ in chargebacks(load, COUNT) for value in values]
    assert len(told) > 100
    assert len({one["payment_id"] for one in told}) == len(told)
    for one in told:
        delay_ms = one["known_at_ms"] - paid_ms[one["payment_id"]]
        assert load.chargeback_delay_ms / 2 < delay_ms <= load.chargeback_delay_ms + 1


def test_few_keys_have_most_by_the_law_of_zipf() -> None:
    drawn = zipf(np.random.default_rng(1).random(200_000), 1_000, 1.0)
    counts = np.bincount(drawn, minlength=1_000)
    assert counts[0] / counts[99] == pytest.approx(np.log(2) / np.log(101 / 100), rel=0.2)
    assert (np.bincount(zipf(np.random.default_rng(1).random(100_000), 10, 0.0)) > 9_500).all()


class Keeper:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def put(self, keys: list[bytes], _values: list[bytes | None]) -> None:
        self.sizes.append(len(keys))

    def flush(self) -> None:
        pass


def test_a_pace_is_an_open_loop() -> None:
    now, keeper = [0.0], Keeper()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    given: list[tuple[list[bytes], list[bytes | None]]] = [([b"k"] * 300, [b"v"] * 300)] * 2
    report = send_paced(keeper, given, 1_000.0, clock=lambda: now[0], sleep=sleep)  # type: ignore[arg-type]
    assert report.sent == 600
    assert report.wall_s == pytest.approx(0.6, abs=0.02)
    assert max(keeper.sizes) <= 10


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"users": 0}, "--users: got 0"),
        ({"fraud_share": 5.0}, "did you pass percent"),
        ({"skew": -1.0}, "--skew"),
        ({"event_rate": 0.0}, "--event-rate"),
        ({"disorder_ms": -1}, "none of them may be negative"),
    ],
)
def test_what_cannot_be_made_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(LoadError, match=says):
        sample(Load(**wrong), 10)
