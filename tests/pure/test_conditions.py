"""Conditions say of each row what plain Python says of it, and what is wrong with them is said before a row is read."""

import operator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from udfs.core.declare.condition_nodes import Column, Compare, In, IsNull, Join, Node, Not, Value
from udfs.core.declare.conditions import Where, parse

TYPES = {"country": "string", "city": "string", "count": "int64", "size": "int64", "amount": "float64"} | {
    "limit": "float64",
    "is_test": "bool",
    "is_new": "bool",
}
ARROW = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
TEXTS = st.sampled_from(["", "DE", "de", "Zürich", 'a"b', "a'b", "\\n", "\n", "𝄞", "\x7f", "ﬀ", "null"])
INTS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 2, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1])
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 1.0, 2.5, 2.0**53, 2.0**53 + 2, 2.0**63, -(2.0**63), -(2.0**64)]
)
VALUES: dict[str, st.SearchStrategy[Value]] = {
    "string": TEXTS,
    "int64": INTS,
    "float64": FLOATS,
    "bool": st.booleans(),
}
LITERALS = VALUES | {"float64": FLOATS | st.integers(-(2**53), 2**53)}
SIGNS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NAMES = st.sampled_from(sorted(TYPES))


@st.composite
def comparisons(draw: st.DrawFn) -> Node:
    name = draw(NAMES)
    kind = TYPES[name]
    sign = draw(st.sampled_from(sorted(SIGNS) if kind != "bool" else ["==", "!="]))
    if draw(st.booleans()):
        numbers = ("int64", "float64")
        others = [n for n, k in TYPES.items() if k == kind or (k in numbers and kind in numbers)]
        return Compare(Column(name), sign, Column(draw(st.sampled_from(others))))
    if kind == "int64" and sign not in ("==", "!="):
        inside = st.floats(-(2.0**63), 2.0**63, exclude_max=True)
        return Compare(Column(name), sign, draw(LITERALS[kind] | inside))
    return Compare(Column(name), sign, draw(LITERALS[kind]))


@st.composite
def memberships(draw: st.DrawFn) -> Node:
    name = draw(NAMES)
    return In(Column(name), tuple(draw(st.lists(LITERALS[TYPES[name]], min_size=1, max_size=4))))


LEAVES = (
    comparisons() | memberships() | NAMES.map(Column).map(IsNull) | st.sampled_from(["is_test", "is_new"]).map(Column)
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        inner.map(Not)
        | st.builds(
            lambda word, nodes: Join(word, tuple(nodes)),
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3),
        )
    ),
    max_leaves=8,
)
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | VALUES[kind] for name, kind in TYPES.items()}), min_size=0, max_size=12
)


def evaluate(node: Node, row: dict[str, Value | None]) -> bool | None:  # noqa: PLR0911  a case each
    """What a node says of a row, by the rules of SQL and Python's exact numbers."""
    match node:
        case Column(name):
            return None if row[name] is None else row[name] is True
        case Compare(left, sign, right):
            one, other = row[left.name], row[right.name] if isinstance(right, Column) else right
            return None if one is None or other is None else bool(SIGNS[sign](one, other))
        case In(column, values):
            got = row[column.name]
            return None if got is None else got in values
        case IsNull(column):
            return row[column.name] is None
        case Not(inner):
            verdict = evaluate(inner, row)
            return None if verdict is None else not verdict
        case Join(word, nodes):
            verdicts = [evaluate(one, row) for one in nodes]
            decisive = word == "or"
            if decisive in verdicts:
                return decisive
            return None if None in verdicts else not decisive
    raise AssertionError(node)


@given(TREES, ROWS)
@example(
    Compare(Column("count"), "<", Column("amount")), [dict.fromkeys(TYPES) | {"count": 2**53 + 1, "amount": 2.0**53}]
)
@example(
    Compare(Column("amount"), "<", Column("count")), [dict.fromkeys(TYPES) | {"count": 2**53 + 1, "amount": 2.0**53}]
)
@example(
    Compare(Column("count"), "<", Column("amount")), [dict.fromkeys(TYPES) | {"count": 2**63 - 1, "amount": 2.0**63}]
)
@example(Compare(Column("count"), "==", 2**53 + 1), [dict.fromkeys(TYPES) | {"count": 2**53}])
@example(In(Column("amount"), (0,)), [dict.fromkeys(TYPES) | {"amount": -0.0}])
def test_a_condition_says_of_each_row_what_plain_python_says(node: Node, rows: list[dict[str, Value | None]]) -> None:
    condition = parse(str(node))
    batch = pa.RecordBatch.from_pylist(rows, pa.schema([(name, ARROW[kind]) for name, kind in TYPES.items()]))

    condition.check(TYPES)
    mask = condition.mask(batch)

    assert mask.to_pylist() == [evaluate(node, row) is True for row in rows]
    assert mask.type == pa.bool_()
    assert mask.null_count == 0


@given(TREES)
def test_the_canonical_text_is_its_own_canonical_text(node: Node) -> None:
    condition = parse(str(node))
    assert str(parse(str(condition))) == str(condition)
    assert parse(str(condition)) == condition


@given(TREES, ROWS, st.integers(0, 12))
def test_a_slice_of_a_batch_has_the_slice_of_its_mask(node: Node, rows: list[dict[str, Value | None]], at: int) -> None:
    condition = parse(str(node))
    batch = pa.RecordBatch.from_pylist(rows, pa.schema([(name, ARROW[kind]) for name, kind in TYPES.items()]))
    assert condition.mask(batch.slice(at)).to_pylist() == condition.mask(batch).to_pylist()[at:]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("3<count", "count > 3"),
        ("  1 < count <= size ", "count > 1 and count <= size"),
        ("(is_test and is_new) and count>3", "is_test and is_new and count > 3"),
        ("is_test or is_new and count>3", "is_test or (is_new and count > 3)"),
        ("country in ('a', \"b\")", 'country in ["a", "b"]'),
        ("country not in ['a']", 'not (country in ["a"])'),
        ("country is not None", "not (country is null)"),
        ("is_test == True", "is_test == true"),
        ("amount > -1_000", "amount > -1000"),
    ],
)
def test_one_condition_has_one_text(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


def test_columns_are_those_read_in_order_of_appearance() -> None:
    assert parse("b > 1 and not a and b < c").columns == ("b", "a", "c")


def test_conditions_that_compare_other_literals_differ() -> None:
    texts = ["x == 1", "x == 1.0", "x == true", 'x == "1"']
    assert len({parse(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "got 0 characters; a condition has 1 to 2000"),
        ("count = 3", r"'count = 3': invalid syntax at character 7; did you mean '=='\?"),
        ("is_test && is_new", r"at character 10; did you mean 'and'\?"),
        ("is_test AND is_new", r"at character 9; did you mean 'and'\?"),
        ("count > 3 and", "invalid syntax at character 13"),
        ("(count > 3", "'\\(' was never closed at character 1"),
        ('country == "é" and len(city) > 2', r"`len\(city\)` at character 20 is not part of a condition"),
        ("country.upper() == 'DE'", r"`country.upper\(\)` at character 1 is not part"),
        ("country.x == 'DE'", "`country.x` at character 1 is not part"),
        ("count + 1 > 2", r"`count \+ 1` at character 1 is not part"),
        ("count > 2 if is_test else is_new", "is not part of a condition"),
        ("(lambda: 1)() == count", "is not part of a condition: .*; 'lambda' is a reserved word"),
        ("class == 3", "'class' is a reserved word"),
        ("country == f'{city}'", "is not part of a condition"),
        ("country == b'DE'", "is not part of a condition"),
        ("count == null", "compares with null, which is neither equal nor not; write `is null`"),
        ("count is 3", "is no `column is null`"),
        ("3 < 4", "compares two literals"),
        ("true", "is a literal, no condition"),
        ("country in city", r"is no `column in \[literal, …\]`"),
        ("country in []", r"is no `column in \[literal, …\]`"),
        ("country in [city]", "`city` at character 13 is no literal"),
        ("country in ['a', null]", "`null` at character 18 is no literal"),
        ("count > 9223372036854775808", "is beyond int64"),
        ("amount > 1e999", "is beyond float64"),
        (r'country == "\ud800"', "is not UTF-8"),
        (r'country == "\d"', "invalid escape sequence"),
        ("not " * 40 + "is_test", "is nested deeper than 32"),
        ("(" * 900 + "is_test" + ")" * 900, "too many nested parentheses"),
        ("x" * 2001, "got 2001 characters"),
        ("count > 3\x00", "null"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("contry == 'DE'", r"'contry' is no column known here; did you mean 'country'\?"),
        ("contry is null", r"did you mean 'country'\?"),
        ("country > 3", "`country > 3` compares string with int64"),
        ("count == 'x'", "compares int64 with string"),
        ("count == true", "compares int64 with bool"),
        ("is_test == 1", "compares bool with int64"),
        ("is_test < is_new", "orders booleans"),
        ("country == count", "compares string with int64"),
        ("count", "'count' is int64, no condition by itself"),
        ("not country", "'country' is string, no condition by itself"),
        ("count == 1.5", "an int64 never equals 1.5"),
        ("count in [1, 1.5]", "an int64 never equals 1.5"),
        ("count < 1e30", r"1e\+30 is beyond int64"),
        ("amount == 9007199254740993", "9007199254740993 is no float64; the nearest is 9007199254740992.0"),
        ("country in ['a', 3]", "compares string with int64"),
        ("born == 'x'", r"compares date32\[day\] with string; only string, int64, float64, bool can be compared"),
    ],
)
def test_a_condition_that_does_not_fit_the_columns_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text).check(TYPES | {"born": "date32[day]"})


def test_nan_is_unequal_to_everything_and_neither_above_nor_below() -> None:
    rows = pa.RecordBatch.from_arrays(
        [pa.array([float("nan")] * 2), pa.array([1.0, 2.0]), pa.array([1, 2], pa.int64())], ["x", "y", "n"]
    )
    for text in ("x == x", "x == 1", "x < y", "x >= y", "x > n", "n > x", "n <= x", "n == x", "x in [1.0]"):
        assert parse(text).mask(rows).to_pylist() == [False, False], text
    for text in ("x != x", "x != 1", "x != n", "n != x", "not x < y", "x is not null"):
        assert parse(text).mask(rows).to_pylist() == [True, True], text


def test_narrow_columns_of_lookup_files_compare_as_their_wide_type() -> None:
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array(np.array([1, 300], np.int16)),
            pa.array(["a", None], pa.large_string()),
            pa.array([0.5, 1.5], pa.float32()),
        ],
        ["n", "s", "f"],
    )
    assert parse('n < 300 and s == "a" and f > 0.25').mask(rows).to_pylist() == [True, False]


class _Group(BaseModel):
    where: Where | None = None


def test_a_declaration_holds_a_condition_and_writes_its_text() -> None:
    group = _Group.model_validate({"where": "3 < count"})
    assert group.model_dump(mode="json") == {"where": "count > 3"}
    assert _Group.model_validate(group.model_dump(mode="json")) == group
    with pytest.raises(ValueError, match=r"got 3; a condition is text"):
        _Group.model_validate({"where": 3})
    assert _Group.model_json_schema()["properties"]["where"]["anyOf"][0]["type"] == "string"
