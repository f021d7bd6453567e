"""Every sketch keeps the contract: exact while there is little, within its error beyond; merge = concatenation; storing
one and reading it back is no change, also for what comes after; no merge changes the older one.

A new member of `SKETCHES` or `TEXT_KINDS` is found by itself; it needs rows in `KINDS`.
"""

import importlib
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from udfs.core.sketches import SKETCHES, TEXT_KINDS
from udfs.core.sketches.buckets import MOST, OTHERS, Buckets
from udfs.core.sketches.distinct import BOUND
from udfs.core.sketches.frequent import MOST as MOST_COUNTS
from udfs.core.sketches.quantile import BUFFER

Timed = tuple[int, Any]


class Kind(NamedTuple):
    """How a kind of sketch is made, fed and judged."""

    arguments: tuple[Any, ...]
    #: (random source, how many) -> values
    values: Callable[[random.Random, int], list[Any]]
    #: (values with times, by time then arrival) -> what it should say
    oracle: Callable[[Sequence[Timed]], Any]
    #: up to how many values it is exact
    exact: int = 10**9


def texts(chance: random.Random, count: int) -> list[str]:
    return [chance.choice(["ü", "b", "a|b", "", "🛫", "c\0"]) for _ in range(count)]


def quarters(chance: random.Random, count: int) -> list[float]:
    return [chance.randrange(-40, 40) / 4 for _ in range(count)]


def many(chance: random.Random, count: int) -> list[Any]:
    return [chance.randrange(4 * count + 1) for _ in range(count)]


def ranked(timed: Sequence[Timed]) -> list[str]:
    counts = Counter(str(value) for _, value in timed)
    return [value for value, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:3]


def by_bucket(timed: Sequence[Timed]) -> list[tuple[str, float]]:
    sums: dict[str, float] = {}
    for _, (bucket, value) in timed:
        sums[bucket] = sums.get(bucket, 0.0) + value
    return sorted(sums.items())


def ordered(timed: Sequence[Timed]) -> list[Any]:
    return [value for _, value in sorted(timed, key=lambda pair: pair[0])]


KINDS: dict[str, Kind] = {
    "distinct.Distinct": Kind(((),), many, lambda timed: float(len({value for _, value in timed})), BOUND),
    "unique.Unique": Kind(((3.0,),), quarters, lambda timed: sorted({value for _, value in timed})[:3]),
    "quantile.Quantile": Kind(
        ((0.3,),), quarters, lambda timed: float(np.quantile([v for _, v in timed], 0.3)) if timed else None, BUFFER
    ),
    "frequent.Frequent": Kind(((3.0,),), many, ranked, MOST_COUNTS),
    "ends.First": Kind(((3.0,),), texts, lambda timed: (ordered(timed) + [None] * 3)[:3]),
    "ends.Last": Kind(((3.0,),), texts, lambda timed: (ordered(timed)[::-1] + [None] * 3)[:3]),
    "buckets.Buckets": Kind(
        ("sum", ()), lambda chance, n: list(zip(texts(chance, n), quarters(chance, n), strict=True)), by_bucket
    ),
}
NAMES = sorted(KINDS)


def make(name: str, data: bytes | None = None) -> Any:
    module, _, kind = name.partition(".")
    found = getattr(importlib.import_module(f"udfs.core.sketches.{module}"), kind)
    return found(*KINDS[name].arguments) if data is None else found.from_bytes(data, *KINDS[name].arguments)


def said(name: str, sketch: Any) -> Any:
    """Return what a sketch says, all outputs of those that have several."""
    if name.startswith("ends."):
        return [sketch.value(0, 0, index) for index in range(3)]
    return sketch.value(0, 0, 0)


def timed(name: str, seed: int, count: int) -> list[Timed]:
    """Return values with times: out of order, some times twice."""
    chance = random.Random(seed)
    return [(chance.randrange(1 + count), value) for value in KINDS[name].values(chance, count)]


def fed(name: str, pairs: Sequence[Timed]) -> Any:
    sketch = make(name)
    for time_ms, value in pairs:
        sketch.update(value, time_ms)
    return sketch


def test_every_sketch_has_its_row() -> None:
    kinds = {sketch.kind for sketch in SKETCHES.values()} | set(TEXT_KINDS.values())
    assert set(KINDS) == kinds | {"buckets.Buckets"}


@pytest.mark.parametrize("name", NAMES)
def test_what_it_says_is_exact_after_every_value_while_there_are_few(name: str) -> None:
    pairs, sketch = timed(name, 1, min(KINDS[name].exact, 90)), make(name)
    assert said(name, sketch) == KINDS[name].oracle([])
    for i, (time_ms, value) in enumerate(pairs, start=1):
        sketch.update(value, time_ms)
        assert said(name, sketch) == KINDS[name].oracle(pairs[:i])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_the_merge_of_any_split_is_the_concatenation(name: str, count: int) -> None:
    """The older part is merged into the newer one; of equal times those of the older part came first."""
    pairs = timed(name, 2, count)
    for at in range(0, count + 1, max(count // 9, 1)):
        merged = fed(name, pairs[at:])
        merged.merge(fed(name, pairs[:at]))
        assert said(name, merged) == KINDS[name].oracle(pairs)


@pytest.mark.parametrize("name", NAMES)
def test_a_merge_leaves_the_older_one_as_it_was(name: str) -> None:
    for older_count, newer_count in ((30, 30), (30, 500), (500, 30), (500, 500)):
        older, twin = (fed(name, timed(name, 3, older_count)) for _ in range(2))
        newer = fed(name, timed(name, 4, newer_count))
        newer.merge(older)
        newer.update(timed(name, 5, 1)[0][1], 7)
        assert older.to_bytes() == twin.to_bytes()
        older.merge(newer)
        twin.merge(newer)
        assert said(name, older) == said(name, twin)


@pytest.mark.parametrize("name", NAMES)
def test_being_stored_anywhere_is_no_change_for_all_that_comes_after(name: str) -> None:
    """Bit for bit, through updates and merges, far beyond what is exact."""
    chance = random.Random(6)
    kept, restored = make(name), make(name)
    for step in range(60):
        pairs = timed(name, 100 + step, chance.choice([0, 1, 3, 40]))
        if chance.random() < 0.3:
            older = fed(name, pairs)
            kept.merge(older)
            restored.merge(make(name, older.to_bytes()))
        else:
            for time_ms, value in pairs:
                kept.update(value, time_ms)
                restored.update(value, time_ms)
        data = restored.to_bytes()
        assert make(name, data).to_bytes() == data
        restored = make(name, data)
        assert said(name, restored) == said(name, kept)
    assert restored.to_bytes() == kept.to_bytes()


# What running jobs have stored: a change of these is a change of the version of segments.
STORED = {
    "distinct.Distinct": b"s" + bytes.fromhex("57fe50b6764844b4"),
    "unique.Unique": b"\x91\xcb@\x04" + bytes(6),
    "quantile.Quantile": np.array([1.0, 2.5], "<f8").tobytes(),
    "frequent.Frequent": b"\x81\xa32.5\x01",
    "ends.First": b"\x91\x92\x07\xcb@\x04" + bytes(6),
    "ends.Last": b"\x91\x92\x07\xcb@\x04" + bytes(6),
    "buckets.Buckets": b"\x81\xa1a\xc4\x10" + np.array([1.0, 2.5], "<f8").tobytes(),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_small_sketch_is_stored_as_ever(name: str) -> None:
    sketch = fed(name, [(7, ("a", 2.5) if name == "buckets.Buckets" else 2.5)])
    assert sketch.to_bytes() == STORED[name]
    assert said(name, make(name, STORED[name])) == said(name, sketch)


@pytest.mark.parametrize("name", NAMES)
def test_asking_is_no_change(name: str) -> None:
    asked, quiet = make(name), make(name)
    for time_ms, value in timed(name, 7, 400):
        asked.update(value, time_ms)
        quiet.update(value, time_ms)
        said(name, asked)
        asked.to_bytes()
    assert asked.to_bytes() == quiet.to_bytes()


def windows_of(name: str, pairs: Sequence[Timed], tiles: int) -> Any:
    """Return a window over tiles, folded newest first."""
    window, size = make(name), math.ceil(len(pairs) / tiles)
    for start in range(0, len(pairs), size)[::-1]:
        window.merge(fed(name, pairs[start : start + size]))
    return window


@pytest.mark.parametrize("count", [BOUND, BOUND + 1, 400, 5_000])
def test_distinct_values_are_counted_within_the_error_whatever_their_order(count: int) -> None:
    values = [(0, f"{i}:{count}") for i in range(count)]
    says = said("distinct.Distinct", fed("distinct.Distinct", [*values, *values[: count // 2]]))
    assert says == count if count <= BOUND else abs(says / count - 1) < 3 * 0.016
    random.Random(8).shuffle(values)
    for tiles in (1, 2, 7, 48):
        window = windows_of("distinct.Distinct", values, tiles)
        assert said("distinct.Distinct", window) == says
        assert len(window.to_bytes()) < 4_300


def test_a_number_and_its_text_are_different_values() -> None:
    assert said("distinct.Distinct", fed("distinct.Distinct", [(0, 1), (0, "1"), (0, "ü"), (0, 1)])) == 3.0


@pytest.mark.parametrize("tiles", [1, 48])
@pytest.mark.parametrize(("share", "error"), [(0.5, 0.02), (0.9, 0.01), (0.99, 0.002), (0.01, 0.002)])
def test_quantiles_are_within_the_error_of_rank(tiles: int, share: float, error: float) -> None:
    for seed in range(3):
        values = np.random.default_rng(seed).lognormal(size=4_000)
        window = windows_of("quantile.Quantile", [(0, value) for value in values.tolist()], tiles)
        window._share = share
        found = window.value(0, 0, 0)
        below, up_to = (values < found).mean(), (values <= found).mean()
        assert below - error <= share <= up_to + error
        assert len(window.to_bytes()) < 5_000
        for end, extreme in ((0.0, values.min()), (1.0, values.max())):
            window._share = end
            assert window.value(0, 0, 0) == extreme


@pytest.mark.parametrize("tiles", [1, 12])
@pytest.mark.parametrize("heavy", [1, 9, 40])
def test_counts_beyond_the_bound_are_too_low_by_a_97th_of_the_events_at_most(tiles: int, heavy: int) -> None:
    """The worst case: half the values as frequent as the median, which a purge takes from all of them."""
    values = [f"a{i}" for i in range(97)] * heavy + [f"b{i}" for i in range(300)]
    random.Random(heavy).shuffle(values)
    window = windows_of("frequent.Frequent", [(0, value) for value in values], tiles)
    true = Counter(values)
    lost = [count - window._counts.get(value, 0) for value, count in true.items()]
    assert 0 < max(lost) <= len(values) / 97
    assert min(lost) >= 0
    assert len(window._counts) <= MOST_COUNTS


def test_a_value_more_frequent_than_the_error_is_found_among_thousands() -> None:
    values = [*("often" for _ in range(200)), *(f"once{i}" for i in range(3_000))]
    random.Random(9).shuffle(values)
    window = windows_of("frequent.Frequent", [(0, value) for value in values], 24)
    assert said("frequent.Frequent", window)[0] == "often"


def test_buckets_beyond_the_bound_share_one() -> None:
    pairs = [(0, (f"{i:04}", 1.0)) for i in range(MOST + 50)]
    sums = dict(said("buckets.Buckets", fed("buckets.Buckets", [*pairs, *pairs])))
    assert len(sums) == MOST + 1
    assert sums.pop(OTHERS) == 100.0
    assert set(sums.values()) == {2.0}


def test_buckets_give_null_where_their_aggregation_does() -> None:
    spread = Buckets("std", ())
    for bucket, value in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        spread.update((bucket, value), 0)
    assert spread.value(0, 0, 0) == [("a", pytest.approx(math.sqrt(2.0))), ("b", None)]


def test_buckets_know_the_size_of_their_window() -> None:
    rates = Buckets("rate", (1_000.0,))
    rates.update(("a", 1.0), 500)
    assert rates.value(2_500, 4_000, 0) == [("a", 0.25)]
    assert rates.value(2_500, 0, 0) == [("a", 0.5)]
