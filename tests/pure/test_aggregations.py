"""Every member of `AGGREGATIONS` keeps the contract: table rows, oracle, merge, dispatch, compiled = plain Python.

A new member is found by itself; it needs rows in `TABLE`.
"""

import importlib
import math
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from udfs.core.aggregations import AGGREGATIONS
from udfs.core.feature_groups import AggregationName, FeatureGroup
from udfs.core.kernels import dispatch

NAN = math.nan
Ir = NDArray[np.float64]
Values = Sequence[float]
# name -> (values, feature); null inputs are never passed on, so a row of nulls is the empty one.
TABLE: dict[str, list[tuple[Values, float]]] = {
    "count": [([], 0.0), ([7.5], 1.0), ([0.0, -0.0, 3.0], 3.0)],
    "sum": [([], NAN), ([7.5], 7.5), ([1.0, -1.0], 0.0), ([0.25, 0.5, 4.0], 4.75)],
    "mean": [([], NAN), ([7.5], 7.5), ([1.0, 2.0, 6.0], 3.0)],
    "min": [([], NAN), ([7.5], 7.5), ([3.0, -2.0, 5.0], -2.0), ([0.0], 0.0)],
    "max": [([], NAN), ([7.5], 7.5), ([3.0, -2.0, 5.0], 5.0), ([-3.0], -3.0)],
    "std": [([], NAN), ([7.5], NAN), ([1.0, 3.0], math.sqrt(2.0)), ([4.0, 4.0, 4.0], 0.0)],
}
ORACLE: dict[str, Callable[[Values], float]] = {
    "count": lambda values: float(len(values)),
    "sum": lambda values: math.fsum(values) if values else NAN,
    "mean": lambda values: statistics.fmean(values) if values else NAN,
    "min": lambda values: min(values, default=NAN),
    "max": lambda values: max(values, default=NAN),
    "std": lambda values: float(np.std(values, ddof=1)) if len(values) > 1 else NAN,
}
EXACT = {"count", "min", "max"}
NAMES = sorted(AGGREGATIONS)


def module(name: str) -> Any:
    return importlib.import_module(f"udfs.core.aggregations.{name}")


def empty(name: str) -> Ir:
    ir = np.full(AGGREGATIONS[name].ir_width, 123.0)
    module(name).init(ir)
    return ir


def ir_of(name: str, values: Values) -> Ir:
    ir = empty(name)
    for value in values:
        module(name).update(ir, value)
    return ir


def feature(name: str, ir: Ir) -> float:
    return float(module(name).finalize(ir))


def numbers(seed: int, count: int) -> list[float]:
    chance = random.Random(seed)
    return [chance.uniform(-1e6, 1e6) * chance.choice([1e-6, 1.0]) for _ in range(count)]


def agrees(name: str, got: float, expected: float) -> bool:
    if name in EXACT or math.isnan(expected):
        return got == expected or (math.isnan(got) and math.isnan(expected))
    return math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-6)


def test_the_table_the_declaration_and_the_oracle_name_the_same_aggregations() -> None:
    assert set(TABLE) == set(ORACLE) == set(AGGREGATIONS)
    for name in AGGREGATIONS:
        group = FeatureGroup.model_validate({"entity": "user", "of": "amount", "take": [name], "over": ["1h"]})
        assert group.take == (name,)


def test_opcodes_are_distinct_and_never_change() -> None:
    opcodes = {name: aggregation.opcode for name, aggregation in AGGREGATIONS.items()}
    assert len(set(opcodes.values())) == len(opcodes)
    # Stored state is laid out by these numbers: a new aggregation adds to them.
    assert opcodes.items() >= {"count": 0, "sum": 1, "mean": 2, "min": 3, "max": 4, "std": 5}.items()


@pytest.mark.parametrize(("name", "values", "expected"), [(n, v, e) for n in sorted(TABLE) for v, e in TABLE[n]])
def test_the_feature_of_values_is_as_tabled(name: str, values: Values, expected: float) -> None:
    assert agrees(name, feature(name, ir_of(name, values)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_incremental_is_batch_after_every_value(name: str) -> None:
    values, ir = numbers(1, 60), empty(name)
    for i, value in enumerate(values, start=1):
        module(name).update(ir, value)
        assert agrees(name, feature(name, ir), ORACLE[name](values[:i]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_merge_of_any_split_is_the_concatenation(name: str, count: int) -> None:
    values = numbers(2, count)
    for at in range(count + 1):
        merged = ir_of(name, values[at:])
        module(name).merge(merged, ir_of(name, values[:at]))
        assert agrees(name, feature(name, merged), ORACLE[name](values))


@pytest.mark.parametrize("name", NAMES)
def test_merge_of_many_parts_is_the_concatenation_and_leaves_the_older_part_alone(name: str) -> None:
    parts = [numbers(seed, seed % 4) for seed in range(40)]
    merged = empty(name)
    for part in parts:
        other = ir_of(name, part)
        before = other.copy()
        module(name).merge(merged, other)
        np.testing.assert_array_equal(other, before)
    assert agrees(name, feature(name, merged), ORACLE[name]([value for part in parts for value in part]))


def test_std_does_not_cancel_on_large_numbers_of_small_spread() -> None:
    values = [1e9 + step for step in (4.0, 7.0, 13.0, 16.0)]
    merged = ir_of("std", values[2:])
    module("std").merge(merged, ir_of("std", values[:2]))
    assert feature("std", merged) == pytest.approx(math.sqrt(30.0), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_dispatch_by_opcode_is_the_module_itself(name: str) -> None:
    opcode = AGGREGATIONS[name].opcode
    for values in ([], numbers(3, 1), numbers(4, 7)):
        left, right = np.full_like(empty(name), 9.0), np.full_like(empty(name), 9.0)
        dispatch.init(opcode, left)
        dispatch.init(opcode, right)
        np.testing.assert_array_equal(left, empty(name))
        for value in values:
            dispatch.update(opcode, left, value)
        dispatch.update(opcode, right, 2.5)
        np.testing.assert_array_equal(left, ir_of(name, values))
        expected = ir_of(name, values)
        module(name).merge(expected, ir_of(name, [2.5]))
        dispatch.merge(opcode, left, right)
        np.testing.assert_array_equal(left, expected)
        np.testing.assert_equal(dispatch.finalize(opcode, left), feature(name, expected))


@pytest.mark.parametrize("name", NAMES)
def test_compiled_and_plain_python_give_the_same_bits(name: str) -> None:
    found = module(name)
    for seed, count in ((5, 0), (6, 1), (7, 33)):
        compiled, plain = ir_of(name, numbers(seed, count)), empty(name)
        found.init.py_func(plain)
        for value in numbers(seed, count):
            found.update.py_func(plain, value)
        assert compiled.tobytes() == plain.tobytes()
        other = ir_of(name, numbers(8, 5))
        found.merge(compiled, other)
        found.merge.py_func(plain, other)
        assert compiled.tobytes() == plain.tobytes()
        np.testing.assert_equal(found.finalize.py_func(plain), feature(name, compiled))


def test_every_aggregation_can_be_declared_and_nothing_else() -> None:
    assert set(get_args(AggregationName)) == set(AGGREGATIONS)
