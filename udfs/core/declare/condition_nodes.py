"""The nodes of a condition: each says itself as text and compiles to Arrow computations for columns of known types.

A compiled node maps a batch to booleans, null where it compares a null. Numbers are compared by their exact value, an
int64 is never rounded to float64.
"""

import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from udfs.core.declare.contract import ARROW_TYPES, INT64_MAX, INT64_MIN
from udfs.core.errors import did_you_mean

Value = str | int | float | bool
Types = Mapping[str, str]
Compiled = Callable[[pa.RecordBatch], pa.BooleanArray]
COMPARE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "==": (pc.equal, operator.eq),
    "!=": (pc.not_equal, operator.ne),
    "<": (pc.less, operator.lt),
    "<=": (pc.less_equal, operator.le),
    ">": (pc.greater, operator.gt),
    ">=": (pc.greater_equal, operator.ge),
}
NUMBERS = ("int64", "float64")


def type_name(arrow: pa.DataType) -> str:
    """Return what a condition calls the type of a column: a field type, or Arrow's own name when it cannot be compared.

    Examples
    --------
    >>> type_name(pa.int32()), type_name(pa.large_string()), type_name(pa.date32())
    ('int64', 'string', 'date32[day]')
    """
    if pa.types.is_integer(arrow) and arrow != pa.uint64():
        return "int64"
    if pa.types.is_floating(arrow):
        return "float64"
    if pa.types.is_boolean(arrow):
        return "bool"
    return "string" if pa.types.is_string(arrow) or pa.types.is_large_string(arrow) else str(arrow)


@dataclass(frozen=True, slots=True)
class Column:
    """A column; by itself a condition if it is boolean."""

    name: str

    def __str__(self) -> str:
        return self.name

    def type(self, types: Types) -> str:
        """Return its type; ValueError if there is no such column."""
        if self.name not in types:
            msg = f"{self.name!r} is no column known here{did_you_mean(self.name, types)}"
            raise ValueError(msg)
        return types[self.name]

    def array(self, rows: pa.RecordBatch, kind: str) -> pa.Array:
        """Return its values in the Arrow type of a field type."""
        column = rows[self.name]
        return column if column.type == ARROW_TYPES[kind] else column.cast(ARROW_TYPES[kind])

    def compile(self, types: Types) -> Compiled:
        """Return its values; ValueError if it is not boolean."""
        if (got := self.type(types)) != "bool":
            msg = f"{self.name!r} is {got}, no condition by itself; compare it with something"
            raise ValueError(msg)
        return lambda rows: rows[self.name]


@dataclass(frozen=True, slots=True)
class Compare:
    """`left sign right`; the right side is a column or a literal."""

    left: Column
    sign: str
    right: Column | Value

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {_text(self.right)}"

    def compile(self, types: Types) -> Compiled:
        """Return the comparison; ValueError for types that cannot be compared."""
        kind, left = self.left.type(types), self.left
        if isinstance(self.right, Column):
            return self._compile_columns(kind, self.right.type(types), self.right)
        self._check(kind, _kind_of(self.right))
        sign, literal = _in_type(kind, self.sign, self.right)
        compare, bound = COMPARE[sign][0], pa.scalar(literal, ARROW_TYPES[kind])
        return lambda rows: compare(left.array(rows, kind), bound)

    def _compile_columns(self, kind: str, other: str, right: Column) -> Compiled:
        self._check(kind, other)
        compare, plain = COMPARE[self.sign]
        left = self.left
        if kind == other:
            return lambda rows: compare(left.array(rows, kind), right.array(rows, kind))
        if kind == "int64":
            return lambda rows: _compare_exactly(left.array(rows, kind), right.array(rows, other), self.sign, plain)
        sign = FLIPPED[self.sign]
        flipped = COMPARE[sign][1]
        return lambda rows: _compare_exactly(right.array(rows, other), left.array(rows, kind), sign, flipped)

    def _check(self, left: str, right: str) -> None:
        if left not in ARROW_TYPES or right not in ARROW_TYPES:
            msg = f"`{self}` compares {left} with {right}; only {', '.join(ARROW_TYPES)} can be compared"
            raise ValueError(msg)
        if left != right and not (left in NUMBERS and right in NUMBERS):
            msg = f"`{self}` compares {left} with {right}"
            raise ValueError(msg)
        if left == "bool" and self.sign not in ("==", "!="):
            msg = f"`{self}` orders booleans; they are only equal (==) or not (!=)"
            raise ValueError(msg)


FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class In:
    """`column in [literals]`."""

    column: Column
    values: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.column} in [{', '.join(map(_text, self.values))}]"

    def compile(self, types: Types) -> Compiled:
        """Return the membership test; ValueError when a literal is not of the column's type."""
        kind, column = self.column.type(types), self.column
        literals = []
        for value in self.values:
            Compare(column, "==", value).compile(types)
            literals.append(_in_type(kind, "==", value)[1])
        known = pa.array(literals, ARROW_TYPES[kind])

        def members(rows: pa.RecordBatch) -> pa.BooleanArray:
            got = column.array(rows, kind)
            # The hash table of `is_in` tells -0.0 from 0.0; a sum with 0.0 does not have the first.
            found = pc.is_in(pc.add(got, 0.0) if kind == "float64" else got, value_set=known)
            return pc.if_else(got.is_valid(), found, None) if got.null_count else found

        return members


@dataclass(frozen=True, slots=True)
class IsNull:
    """`column is null`; true or false, never null."""

    column: Column

    def __str__(self) -> str:
        return f"{self.column} is null"

    def compile(self, types: Types) -> Compiled:
        """Return the test; every type has nulls."""
        self.column.type(types)
        name = self.column.name
        return lambda rows: rows[name].is_null()


@dataclass(frozen=True, slots=True)
class Not:
    """`not node`."""

    node: "Node"

    def __str__(self) -> str:
        return f"not ({self.node})"

    def compile(self, types: Types) -> Compiled:
        """Return the inverse."""
        inner = self.node.compile(types)
        return lambda rows: pc.invert(inner(rows))


@dataclass(frozen=True, slots=True)
class Join:
    """`node and node …` or `node or node …`."""

    word: str
    nodes: tuple["Node", ...]

    def __str__(self) -> str:
        return f" {self.word} ".join(f"({node})" if isinstance(node, Join) else str(node) for node in self.nodes)

    def compile(self, types: Types) -> Compiled:
        """Return the three-valued `and` or `or`."""
        parts = [node.compile(types) for node in self.nodes]
        join = pc.and_kleene if self.word == "and" else pc.or_kleene

        def joined(rows: pa.RecordBatch) -> pa.BooleanArray:
            result = parts[0](rows)
            for part in parts[1:]:
                result = join(result, part(rows))
            return result

        return joined


Node = Column | Compare | In | IsNull | Not | Join


def _text(side: Column | Value) -> str:
    return str(side) if isinstance(side, Column) else json.dumps(side, ensure_ascii=False)


def _kind_of(value: Value) -> str:
    # bool is an int to Python, so it comes first.
    return next(kind for type_, kind in KINDS if isinstance(value, type_))


KINDS: tuple[tuple[type, str], ...] = ((bool, "bool"), (int, "int64"), (float, "float64"), (str, "string"))


def _in_type(kind: str, sign: str, value: Value) -> tuple[str, Value]:
    """Return (sign, literal) that say the same about a column of the type, with the literal exactly in that type."""
    if kind == "float64" and isinstance(value, int):
        if int(float(value)) != value:
            msg = f"{value} is no float64; the nearest is {float(value)!r}"
            raise ValueError(msg)
        return sign, float(value)
    if kind == "int64" and isinstance(value, float):
        if not INT64_MIN <= value < INT64_MAX + 1:
            msg = f"{value!r} is beyond int64"
            raise ValueError(msg)
        if value == int(value):
            return sign, int(value)
        if sign in ("==", "!="):
            msg = f"an int64 never equals {value!r}"
            raise ValueError(msg)
        return ("<=", math.floor(value)) if sign in ("<", "<=") else (">=", math.ceil(value))
    return sign, value


def _compare_exactly(
    ints: pa.Int64Array, floats: pa.DoubleArray, sign: str, plain: Callable[..., Any]
) -> pa.BooleanArray:
    """Compare by exact value. Rounding keeps order: where a rounded int64 differs from a float, so does the int64."""
    i = ints.fill_null(0).to_numpy(zero_copy_only=False)
    f = floats.fill_null(0.0).to_numpy(zero_copy_only=False)
    nearest = i.astype(np.float64)
    tie, beyond = nearest == f, f >= 2.0**63
    whole = np.where(tie & ~beyond, f, 0.0).astype(np.int64)
    tied = np.where(beyond, -1, np.where(i < whole, -1, i > whole))
    order = np.where(tie, tied, np.where(nearest < f, -1, 1))
    answer = np.where(np.isnan(f), sign == "!=", plain(order, 0))
    return pa.array(answer, mask=~pc.and_(ints.is_valid(), floats.is_valid()).to_numpy(zero_copy_only=False))
