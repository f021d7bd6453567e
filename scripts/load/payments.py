"""One block of payments as columns, in the order of event time: people who shop as they do, and fraud among them.

A user has a usual amount, one or two devices and four favourite merchants, all derived from the user's number. Fraud
comes in three patterns, which the features of `conf/payments` can see:

burst : a stolen card: one user pays 8 times within two minutes, each at another merchant, somewhat more than usual
takeover : one payment from a device the user has never had, online, at 4 to 12 times the usual amount
ring : a merchant is paid 24 times within ten minutes by users who rarely pay, each time nearly the same amount
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.load.draw import F64, I64, hashed, hashed_uniform, zipf
from scripts.load.settings import BLOCK, Load

BURST, TAKEOVER, RING = 1, 2, 3
PATTERNS = {BURST: "burst", TAKEOVER: "takeover", RING: "ring"}
BURST_PAYMENTS, BURST_S = 8, 120
RING_PAYMENTS, RING_S = 24, 600
MOST_CENTS = 9_999_999
_FAVOURITES, _FAVOURITE_SHARE, _ONLINE_SHARE, _NEW_DEVICE_SHARE = 4, 0.6, 0.3, 0.01
_DEVICES = 10**9


@dataclass(slots=True)
class Payments:
    """Payments as columns of equal length."""

    #: number of the payment in the stream
    number: I64
    time_ms: I64
    user: I64
    merchant: I64
    device: I64
    #: 1: the user has paid from this device before
    known_device: I64
    online: I64
    cents: I64
    #: 0, or the planted pattern that the payment belongs to
    pattern: NDArray[np.int8]

    def take(self, places: I64) -> "Payments":
        """Return the payments at these places, in this order."""
        return Payments(*(getattr(self, name)[places] for name in self.__slots__))


def block_of(load: Load, block: int) -> Payments:
    """Return the payments of a block, `BLOCK` of them."""
    chance = np.random.default_rng([load.seed, block])
    number = np.arange(block * BLOCK, (block + 1) * BLOCK, dtype=np.int64)
    user = zipf(chance.random(BLOCK), load.users, load.skew)
    favourite = user * _FAVOURITES + chance.integers(0, _FAVOURITES, BLOCK)
    anywhere = zipf(chance.random(BLOCK), load.merchants, load.skew)
    liked = zipf(hashed_uniform(favourite, load.seed), load.merchants, load.skew)
    known = (chance.random(BLOCK) >= _NEW_DEVICE_SHARE).astype(np.int64)
    made = Payments(
        number,
        load.start_ms + (number * (1_000.0 / load.event_rate)).astype(np.int64),
        user,
        np.where(chance.random(BLOCK) < _FAVOURITE_SHARE, liked, anywhere),
        _devices(user, chance.integers(0, 2, BLOCK)),
        known,
        (chance.random(BLOCK) < _ONLINE_SHARE).astype(np.int64),
        _cents(_usual(user, load.seed) * np.exp(chance.normal(0.0, 0.5, BLOCK))),
        np.zeros(BLOCK, np.int8),
    )
    _plant(load, chance, made)
    # A device that is new to a user is one of its own, so that it has not been seen by chance.
    new = np.flatnonzero(made.known_device == 0)
    made.device[new] = _devices(made.number[new], np.full(new.size, 7))
    return made


def _plant(load: Load, chance: np.random.Generator, made: Payments) -> None:
    """Make some payments fraud: of each pattern about as many payments, so few rings, more bursts, many takeovers."""
    wanted = load.fraud_share * BLOCK / 3
    for _ in range(_whole(chance, wanted / RING_PAYMENTS)):
        places = _places(load, chance, RING_PAYMENTS, RING_S)
        made.merchant[places] = zipf(chance.random(1), load.merchants, 0.0)[0]
        made.user[places] = load.users - 1 - chance.integers(0, max(load.users // 2, 1), RING_PAYMENTS)
        made.device[places] = _devices(made.user[places], np.zeros(RING_PAYMENTS, np.int64))
        made.cents[places] = _cents(chance.uniform(150.0, 900.0) * (1.0 + chance.uniform(-0.01, 0.01, RING_PAYMENTS)))
        made.pattern[places] = RING
    for _ in range(_whole(chance, wanted / BURST_PAYMENTS)):
        places = _places(load, chance, BURST_PAYMENTS, BURST_S)
        user = zipf(chance.random(1), load.users, load.skew / 2)
        made.user[places] = user
        made.device[places] = _devices(user, np.zeros(1, np.int64))
        made.merchant[places] = zipf(chance.random(BURST_PAYMENTS), load.merchants, 0.2)
        made.cents[places] = _cents(_usual(user, load.seed) * chance.uniform(1.0, 3.0, BURST_PAYMENTS))
        made.online[places], made.known_device[places], made.pattern[places] = 1, 1, BURST
    places = np.unique(chance.integers(0, BLOCK, _whole(chance, wanted)))
    places = places[made.pattern[places] == 0]
    usual = _usual(made.user[places], load.seed)
    made.cents[places] = _cents(usual * chance.uniform(4.0, 12.0, places.size))
    made.online[places], made.known_device[places], made.pattern[places] = 1, 0, TAKEOVER


def _places(load: Load, chance: np.random.Generator, count: int, within_s: int) -> I64:
    """Return where the payments of one pattern stand: spread over its time, or over the block if that is shorter."""
    span = min(max(int(load.event_rate * within_s), count), BLOCK)
    first = int(chance.integers(0, BLOCK - span + 1))
    return np.sort(first + chance.choice(span, count, replace=False)).astype(np.int64)


def _whole(chance: np.random.Generator, number: float) -> int:
    """Return the number rounded up or down by chance, so that small shares come true over many blocks."""
    return int(number) + int(chance.random() < number - int(number))


def _usual(user: I64, seed: int) -> F64:
    """Return the usual amount of users, between about 5 and 200."""
    return np.asarray(5.0 * 40.0 ** hashed_uniform(user, seed + 1), np.float64)


def _devices(owner: I64, which: I64) -> I64:
    found: I64 = (hashed(owner * 8 + which, 3) % np.uint64(_DEVICES)).astype(np.int64)
    return found


def _cents(amounts: F64) -> I64:
    found: I64 = np.clip(np.rint(amounts * 100.0), 100, MOST_CENTS).astype(np.int64)
    return found
