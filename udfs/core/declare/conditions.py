"""Conditions: a small safe expression over the columns of a row, such as `amount > 100 and not is_test`.

Columns, literals, comparisons, `in`, `is null`, `and`, `or`, `not` and parentheses, in Python's grammar; nothing is
called or computed. A comparison with a null is null, as in SQL, and a row whose condition is null does not fulfil it.
"""

import ast
import keyword
import math
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated

import pyarrow as pa
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from udfs.core.declare.condition_nodes import (
    FLIPPED,
    Column,
    Compare,
    Compiled,
    In,
    IsNull,
    Join,
    Node,
    Not,
    Types,
    Value,
    type_name,
)
from udfs.core.declare.contract import INT64_MAX, INT64_MIN

MAX_CHARS, MAX_DEPTH = 2000, 32
SIGNS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
WORDS = {"null": None, "true": True, "false": False}
MEANT = ((r"(?<![=<>!])=(?!=)", "=="), (r"&", "and"), (r"\|", "or"), (r"<>", "!="), (r"!(?!=)", "not"))
"""What other languages write, and what it is here."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition; `str` gives its canonical text, which is the same for texts that differ only in spelling."""

    #: canonical text; two conditions are equal when it is
    text: str
    #: the columns it reads, in order of appearance
    columns: tuple[str, ...]
    root: Node = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.text

    def check(self, types: Types) -> None:
        """Check it against the columns there are.

        Parameters
        ----------
        types : column -> field type (`string`, `int64`, `float64`, `bool`; `type_name` of an Arrow type)

        Raises
        ------
        ValueError : an unknown column, or types that cannot be compared; the message says which.
        """
        self.root.compile(types)

    def mask(self, rows: pa.RecordBatch) -> pa.BooleanArray:
        """Return which rows fulfil it, without nulls.

        Examples
        --------
        >>> rows = pa.RecordBatch.from_pydict({"amount": [5.0, 500.0, None], "is_test": [False, False, None]})
        >>> parse("amount > 100 and not is_test").mask(rows).to_pylist()
        [False, True, False]
        """
        types = tuple((name, type_name(rows.schema.field(name).type)) for name in self.columns)
        mask = _compiled(self, types)(rows)
        return mask.fill_null(False) if mask.null_count else mask


def parse(text: str) -> Condition:
    """Return the condition that a text says.

    Raises
    ------
    ValueError : not a condition; the message gives the place, counted in characters from 1.

    Examples
    --------
    >>> str(parse('not(3 < a) and  code in ("x",)'))
    'not (a > 3) and code in ["x"]'
    """
    text = text.strip()
    if not text or len(text) > MAX_CHARS:
        msg = f"got {len(text)} characters; a condition has 1 to {MAX_CHARS}"
        raise ValueError(msg)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as an escape that Python does not know
            tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        place = error.offset if error.lineno == 1 and error.offset else len(text)
        msg = f"got {text!r}: {error.msg} at character {place}{_meant(text)}"
        raise ValueError(msg) from None
    except (ValueError, MemoryError, RecursionError) as error:
        msg = f"got {text!r}: {str(error) or 'nested too deep'}"
        raise ValueError(msg) from None
    reader = _Reader(text)
    root = reader.node(tree, 0)
    return Condition(str(root), tuple(reader.columns), root)


def _parse(declared: object) -> Condition:
    """Return the condition of a YAML value."""
    if isinstance(declared, Condition):
        return declared
    if not isinstance(declared, str):
        msg = f"got {declared!r}; a condition is text, such as 'amount > 100'"
        raise ValueError(msg)  # noqa: TRY004  pydantic explains value errors only
    return parse(declared)


Where = Annotated[
    Condition,
    PlainValidator(_parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["amount > 100 and not is_test", 'category in ["a", "b"]']}),
]
"""Pydantic field type: written as text, held as a `Condition`."""


@lru_cache(maxsize=256)
def _compiled(condition: Condition, types: tuple[tuple[str, str], ...]) -> Compiled:
    return condition.root.compile(dict(types))


class _Reader:
    """Turns Python's syntax tree into nodes, and refuses everything that is none."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.columns: dict[str, None] = {}

    def node(self, tree: ast.expr, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self._refusal(tree, f"is nested deeper than {MAX_DEPTH}")
        match tree:
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                return _join(word, [self.node(value, depth + 1) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Not(self.node(operand, depth + 1))
            case ast.Compare(left=left, ops=signs, comparators=sides):
                pairs = zip([left, *sides], signs, sides, strict=False)
                return _join("and", [self._compare(tree, one, sign, other) for one, sign, other in pairs])
        side = self._side(tree)
        if not isinstance(side, Column):
            raise self._refusal(tree, "is a literal, no condition; compare a column with it")
        return side

    def _compare(self, tree: ast.expr, one: ast.expr, sign: ast.cmpop, other: ast.expr) -> Node:
        left = self._side(one)
        if isinstance(sign, ast.In | ast.NotIn):
            if not isinstance(left, Column) or not isinstance(other, ast.List | ast.Tuple) or not other.elts:
                raise self._refusal(tree, "is no `column in [literal, …]`")
            members = In(left, tuple(self._member(item) for item in other.elts))
            return members if isinstance(sign, ast.In) else Not(members)
        right = self._side(other)
        if isinstance(sign, ast.Is | ast.IsNot):
            if not isinstance(left, Column) or right is not None:
                raise self._refusal(tree, "is no `column is null`; values are compared with ==")
            return IsNull(left) if isinstance(sign, ast.Is) else Not(IsNull(left))
        if left is None or right is None:
            raise self._refusal(
                tree, "compares with null, which is neither equal nor not; write `is null` or `is not null`"
            )
        if isinstance(left, Column):
            return Compare(left, SIGNS[type(sign)], right)
        if isinstance(right, Column):
            return Compare(right, FLIPPED[SIGNS[type(sign)]], left)
        raise self._refusal(tree, "compares two literals; one side is a column")

    def _member(self, tree: ast.expr) -> Value:
        value = self._side(tree)
        if value is None or isinstance(value, Column):
            raise self._refusal(
                tree, "is no literal; a list holds text, numbers or booleans, for null write `or … is null`"
            )
        return value

    def _side(self, tree: ast.expr) -> Column | Value | None:
        """Return a column or the value of a literal."""
        match tree:
            case ast.Name(id=name):
                if name in WORDS:
                    return WORDS[name]
                self.columns[name] = None
                return Column(name)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if not isinstance(
                number, bool
            ):
                return self._literal(tree, -number)
            case ast.Constant(value=None | str() | int() | float() as value):
                return None if value is None else self._literal(tree, value)
        raise self._refusal(
            tree, "is not part of a condition: columns, literals, == != < <= > >=, in, is null, and, or, not"
        )

    def _literal(self, tree: ast.expr, value: Value) -> Value:
        if isinstance(value, str) and not _is_utf8(value):
            raise self._refusal(tree, "is not UTF-8")
        if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
            raise self._refusal(tree, "is beyond int64")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refusal(tree, "is beyond float64")
        return value + 0.0 if isinstance(value, float) else value  # -0.0 is 0.0

    def _refusal(self, tree: ast.expr, why: str) -> ValueError:
        place = len(self._text.encode()[: tree.col_offset].decode()) + 1
        msg = f"got {self._text!r}: `{ast.get_source_segment(self._text, tree)}` at character {place} {why}"
        return ValueError(msg + _meant(self._text))


def _join(word: str, nodes: list[Node]) -> Node:
    """Return the nodes joined, those of the same word merged: (a and b) and c is a and b and c."""
    flat: list[Node] = []
    for node in nodes:
        flat += node.nodes if isinstance(node, Join) and node.word == word else [node]
    return flat[0] if len(flat) == 1 else Join(word, tuple(flat))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _meant(text: str) -> str:
    """Return a guess at what was meant, if the text has what other languages write."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", text)
    words: Iterable[str] = re.findall(r"\w+", bare)
    for word in words:
        if word.lower() in ("and", "or", "not", "in", "is") and word != word.lower():
            return f"; did you mean {word.lower()!r}?"
        if keyword.iskeyword(word) and word not in ("and", "or", "not", "in", "is", "None", "True", "False"):
            return f"; {word!r} is a reserved word, which names no column here"
    return next((f"; did you mean {meant!r}?" for wrong, meant in MEANT if re.search(wrong, bare)), "")
