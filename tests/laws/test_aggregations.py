"""Every member of `AGGREGATIONS` keeps the contract: table rows, oracle, merge, dispatch, compiled = plain Python.

A new member is found by itself; it needs a row in `TABLE`.
"""

import importlib
import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.slow_aggregations import SLOW, Event, Given
from udfs.core.aggregations import AGGREGATIONS, IRS, Aggregation
from udfs.core.declare.feature_groups import Take
from udfs.core.kernels import dispatch

NAN = math.nan
AT = 2  #: where the parameters stand among those of other IRs
Ir = NDArray[np.float64]


class Value(NamedTuple):
    """One non-null value; `units` is its second column."""

    time_ms: int
    value: float
    units: float | None = None


class Case(NamedTuple):
    """Values in the order in which they come -> outputs, NaN for null."""

    values: Sequence[Value]
    outputs: tuple[float, ...]
    now_ms: int = 2_000
    own: float = NAN
    size_ms: int = 0


class Row(NamedTuple):
    """An aggregation's argument, as YAML has it, and its cases; what it gives for no values is `empty`."""

    argument: Any
    cases: tuple[Case, ...]


def at_times(*pairs: tuple[int, float]) -> list[Value]:
    return [Value(*pair) for pair in pairs]


ONE, THREE = at_times((1_000, 7.5)), at_times((1_000, 1.0), (3_000, 6.0), (2_000, 2.0))
# Two values of one time on either side: the earlier arrival is first, the later one last.
TIES = at_times((2_000, 5.0), (1_000, 1.0), (3_000, 8.0), (1_000, 2.0), (3_000, 9.0))
THERE = [Value(1_000, 1.0, 3.0), Value(3_000, 2.0, None), Value(2_000, 3.0, 9.0), Value(3_000, 4.0, 9.0)]
THERE += [Value(3_000, 5.0, 9.0), Value(4_000, 6.0, 3.0), Value(4_000, 7.0, 4.0)]
UNKNOWN = [Value(1_000, 1.0, None)]
LOW, HIGH = at_times((0, -1.0), (0, 10.0)), at_times((0, 9.75), (0, 99.0), (0, 0.0))

TABLE: dict[str, Row] = {
    "count": Row(None, (Case(ONE, (1.0,)), Case(THREE, (3.0,)))),
    "sum": Row(None, (Case(ONE, (7.5,)), Case(THREE, (9.0,)), Case(at_times((1, 1.0), (2, -1.0)), (0.0,)))),
    "mean": Row(None, (Case(ONE, (7.5,)), Case(THREE, (3.0,)))),
    "min": Row(None, (Case(ONE, (7.5,)), Case(at_times((1, 3.0), (2, -2.0), (3, 5.0)), (-2.0,)))),
    "max": Row(None, (Case(ONE, (7.5,)), Case(at_times((1, -3.0), (2, -2.0), (3, -5.0)), (-2.0,)))),
    "variance": Row(None, (Case(ONE, (NAN,)), Case(THREE, (7.0,)), Case([*ONE, *ONE], (0.0,)))),
    "std": Row(None, (Case(ONE, (NAN,)), Case(THREE, (math.sqrt(7.0),)), Case([*ONE, *ONE], (0.0,)))),
    "skew": Row(
        None,
        (
            Case(THREE[:2], (NAN,)),
            Case(THREE, (1.4578629673213046,)),  # as SciPy (bias=False) and DuckDB give it
            Case([*ONE, *ONE, *ONE], (NAN,)),
        ),
    ),
    "kurtosis": Row(
        None,
        (
            Case(THREE, (NAN,)),
            Case([*THREE, Value(4_000, 0.0)], (2.23486717956162,)),  # the same
            Case([*ONE, *ONE, *ONE, *ONE], (NAN,)),
        ),
    ),
    "first": Row(None, (Case(ONE, (7.5,)), Case(TIES, (1.0,)))),
    "first_n": Row(3, (Case(ONE, (7.5, NAN, NAN)), Case(TIES, (1.0, 2.0, 5.0)))),
    "last": Row(None, (Case(ONE, (7.5,)), Case(TIES, (9.0,)))),
    "last_n": Row(3, (Case(ONE, (7.5, NAN, NAN)), Case(TIES, (9.0, 8.0, 5.0)))),
    "lag": Row(2, (Case(ONE, (NAN,)), Case(TIES, (8.0,)))),
    "delta": Row(2, (Case(ONE, (NAN,), own=3.0), Case(TIES, (-5.0,), own=3.0), Case(TIES, (NAN,)))),
    # The newest may be newer than an event that is late.
    "time_since_first": Row(None, (Case(ONE, (1_000.0,)), Case(TIES, (-500.0,), now_ms=500))),
    "time_since_last": Row(None, (Case(ONE, (1_000.0,)), Case(TIES, (-1_000.0,)))),
    "decayed_count": Row("1s", (Case(ONE, (0.5,)), Case(THREE, (1.75,), now_ms=3_000), Case(THREE, (1.75,)))),
    "decayed_sum": Row("1s", (Case(ONE, (3.75,)), Case(THREE, (7.25,), now_ms=3_000), Case(THREE, (3.625,), 4_000))),
    "decayed_mean": Row("1s", (Case(ONE, (7.5,)), Case(THREE, (7.25 / 1.75,)), Case(THREE, (7.25 / 1.75,), 9_000))),
    "argmax": Row("units", (Case(THERE, (5.0,)), Case(UNKNOWN, (NAN,)), Case(THERE[:1], (1.0,)))),
    "argmin": Row("units", (Case(THERE, (6.0,)), Case(UNKNOWN, (NAN,)), Case(THERE[:1], (1.0,)))),
    "histogram": Row([0, 10], (Case(LOW, (1.0, 0.0, 1.0)), Case(HIGH, (0.0, 2.0, 1.0)))),
    "ratio": Row("units > 3", (Case(at_times((1, 1.0), (2, 0.0), (3, 0.0), (4, 0.0)), (0.25,)),)),
    "rate": Row(
        "1s",
        (
            Case(THREE, (0.75,), size_ms=4_000),
            Case(THREE, (1.5,), now_ms=3_000),
            Case(THREE, (NAN,), now_ms=1_000),
            Case([], (0.0,), size_ms=4_000),
        ),
    ),
}  # fmt: skip
NAMES = sorted(AGGREGATIONS)


def test_every_aggregation_has_its_row() -> None:
    assert set(TABLE) == set(AGGREGATIONS)


def test_opcodes_are_distinct() -> None:
    for table in (AGGREGATIONS, IRS):
        opcodes = [one.opcode for one in table.values()]
        assert sorted(opcodes) == sorted(set(opcodes))


def take_of(name: str) -> tuple[Aggregation, NDArray[np.float64], int]:
    """Return an aggregation, its parameters among others, and how many outputs it has."""
    take = Take(name=name, argument=TABLE[name].argument if name != "histogram" else tuple(TABLE[name].argument))
    assert isinstance(take.aggregation, Aggregation)
    return take.aggregation, np.array([NAN, NAN, *take.params]), len(take.labels)


class Functions:
    """The functions of one aggregation: those that the kernels run, or those of its module as plain Python."""

    def __init__(self, name: str, *, plain: bool = False) -> None:
        self.aggregation, self.params, self.parts = take_of(name)
        module: Any = importlib.import_module(f"udfs.core.aggregations.{self.aggregation.ir}")
        self.ir_kind = IRS[self.aggregation.ir]
        self._plain = plain
        self._module = module

    def _call(self, word: str, opcode: int, *arguments: Any) -> Any:
        if self._plain:
            name = self.aggregation.finalize if word == "finalize" else word
            return getattr(self._module, name).py_func(*arguments)
        return getattr(dispatch, word)(opcode, *arguments)

    def empty(self) -> Ir:
        ir = np.full(self.ir_kind.width(tuple(self.params[AT:])), 123.0)
        self._call("init", self.ir_kind.opcode, ir, self.params, AT)
        return ir

    def add(self, ir: Ir, one: Value) -> None:
        units = NAN if one.units is None else float(one.units)
        self._call("update", self.ir_kind.opcode, ir, one.value, units, one.time_ms, self.params, AT)

    def ir_of(self, values: Sequence[Value]) -> Ir:
        ir = self.empty()
        for one in values:
            self.add(ir, one)
        return ir

    def merge(self, ir: Ir, older: Ir) -> None:
        self._call("merge", self.ir_kind.opcode, ir, older, self.params, AT)

    def outputs(self, ir: Ir, now_ms: int = 2_000, own: float = NAN, size_ms: int = 0) -> list[float]:
        opcode = self.aggregation.opcode
        return [
            float(self._call("finalize", opcode, ir, self.params, AT, part, own, now_ms, size_ms))
            for part in range(self.parts)
        ]


def oracle(name: str, values: Sequence[Value], now_ms: int, own: float) -> list[float]:
    """Return the outputs by NumPy, pandas and plain Python; `values` in the order in which they came."""
    events = [Event(one.time_ms, seq, {"units": one.units}) for seq, one in enumerate(values)]
    known = sorted(zip(events, (one.value for one in values), strict=True))
    given = Given([event for event, _ in known], [value for _, value in known], TABLE[name].argument, own, now_ms)
    return [NAN if one is None else one for one in SLOW[name](given)]


def assert_agrees(name: str, got: Sequence[float], expected: Sequence[float]) -> None:
    if AGGREGATIONS[name].error == "exact":
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-6)


def some(name: str, seed: int, count: int) -> list[Value]:
    """Return values of very different sizes, out of order in time, with ties and unknown second columns."""
    chance = random.Random(seed)
    return [
        Value(
            chance.randrange(0, 20) * 500,
            float(chance.random() < 0.3) if name == "ratio" else chance.uniform(-100, 100) * chance.choice([1e-3, 1.0]),
            chance.choice([None, chance.randrange(3), chance.randrange(30)]),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_feature_of_values_is_as_tabled(name: str) -> None:
    functions, row = Functions(name), TABLE[name]
    for case in row.cases:
        got = functions.outputs(functions.ir_of(case.values), case.now_ms, case.own, case.size_ms)
        np.testing.assert_allclose(got, case.outputs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_feature_of_nothing_is_the_empty_value(name: str) -> None:
    functions = Functions(name)
    empty = AGGREGATIONS[name].empty
    # Without a size no time has passed since a first value that there is none of.
    sizes = (1_000,) if name == "rate" else (0, 1_000)
    for size_ms in sizes:
        got = functions.outputs(functions.empty(), own=3.0, size_ms=size_ms)
        np.testing.assert_array_equal(got, [NAN if empty is None else empty] * functions.parts)


@pytest.mark.parametrize("name", NAMES)
def test_incremental_is_batch_after_every_value(name: str) -> None:
    functions, values = Functions(name), some(name, 1, 40)
    ir = functions.empty()
    for i, one in enumerate(values, start=1):
        functions.add(ir, one)
        now_ms = max(value.time_ms for value in values[:i]) + 250
        assert_agrees(name, functions.outputs(ir, now_ms, 5.0), oracle(name, values[:i], now_ms, 5.0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 2, 9, 30])
def test_merge_of_any_split_is_the_concatenation(name: str, count: int) -> None:
    """The older part is merged into the newer one; of equal times those of the older part came first."""
    functions, chance = Functions(name), random.Random(count)
    for turn in range(4):
        values = some(name, 10 * count + turn, count)
        is_older = [chance.random() < 0.5 for _ in values]
        older = [one for one, that in zip(values, is_older, strict=True) if that]
        newer = [one for one, that in zip(values, is_older, strict=True) if not that]
        merged, other = functions.ir_of(newer), functions.ir_of(older)
        before = other.copy()
        functions.merge(merged, other)
        np.testing.assert_array_equal(other, before)
        got = functions.outputs(merged, 12_000, 5.0)
        assert_agrees(name, got, oracle(name, [*older, *newer], 12_000, 5.0))


@pytest.mark.parametrize(
    ("name", "outputs"),
    [("first", [1.0]), ("last", [2.0]), ("first_n", [1.0, 2.0, NAN]), ("last_n", [2.0, 1.0, NAN]), ("argmax", [2.0]),
     ("argmin", [2.0])],
)  # fmt: skip
def test_of_one_time_what_the_newer_part_holds_came_later(name: str, outputs: list[float]) -> None:
    functions = Functions(name)
    merged = functions.ir_of([Value(1_000, 2.0, 5.0)])
    functions.merge(merged, functions.ir_of([Value(1_000, 1.0, 5.0)]))
    np.testing.assert_array_equal(functions.outputs(merged), outputs)


@pytest.mark.parametrize("name", NAMES)
def test_merge_of_many_tiles_newest_first_is_the_concatenation(name: str) -> None:
    functions = Functions(name)
    tiles = [[one._replace(time_ms=one.time_ms + 10_000 * i) for one in some(name, i, i % 5)] for i in range(30)]
    merged = functions.empty()
    for tile in reversed(tiles):
        functions.merge(merged, functions.ir_of(tile))
    together = [one for tile in tiles for one in tile]
    assert_agrees(name, functions.outputs(merged, 310_000, 5.0), oracle(name, together, 310_000, 5.0))


@pytest.mark.parametrize("name", NAMES)
def test_what_was_read_was_not_changed(name: str) -> None:
    functions = Functions(name)
    ir = functions.ir_of(some(name, 3, 12))
    before = ir.tobytes()
    assert functions.outputs(ir) == pytest.approx(functions.outputs(ir), nan_ok=True, abs=0)
    assert ir.tobytes() == before


@pytest.mark.parametrize("name", NAMES)
def test_compiled_and_plain_python_give_the_same_bits(name: str) -> None:
    compiled, plain = Functions(name), Functions(name, plain=True)
    for seed, count in ((5, 0), (6, 1), (7, 33)):
        left, right = (one.ir_of(some(name, seed, count)) for one in (compiled, plain))
        assert left.tobytes() == right.tobytes()
        for one, ir in ((compiled, left), (plain, right)):
            one.merge(ir, one.ir_of(some(name, 8, 9)))
        assert left.tobytes() == right.tobytes()
        for size_ms in (0, 3_000):
            np.testing.assert_array_equal(
                compiled.outputs(left, 12_345, 5.0, size_ms), plain.outputs(right, 12_345, 5.0, size_ms)
            )


@pytest.mark.parametrize(("name", "expected"), [("variance", 30.0), ("std", math.sqrt(30.0)), ("skew", 0.0)])
def test_spread_does_not_cancel_on_large_numbers(name: str, expected: float) -> None:
    functions = Functions(name)
    values = [Value(i, 1e9 + step) for i, step in enumerate((4.0, 7.0, 13.0, 16.0))]
    merged = functions.ir_of(values[2:])
    functions.merge(merged, functions.ir_of(values[:2]))
    assert functions.outputs(merged) == [pytest.approx(expected, rel=1e-9, abs=1e-9)]


def test_of_several_parts_each_output_is_its_own() -> None:
    for name in ("first_n", "last_n", "histogram"):
        functions = Functions(name)
        assert functions.parts == len(functions.outputs(functions.empty())) == 3
