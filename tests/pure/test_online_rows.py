"""Reading online rows: keys that cannot collide, typed values, age, drained windows, and schemas that change."""

import json
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from udfs.core.online.rows import FeatureRow, SchemaBook
from udfs.core.online.schema import Column, Expiry, OnlineSchema, OnlineStoreError, key_text, row_key
from udfs.core.online.tables import row_texts, type_name
from udfs.core.rows.entities import add_entity

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
HOURLY, DAILY = Expiry(HOUR_MS, MINUTE_MS), Expiry(24 * HOUR_MS, MINUTE_MS)
SCHEMA = OnlineSchema(
    "f" * 16,
    {
        "user": (
            Column("count_1h", "float64", HOURLY, 0.0),
            Column("mean_1d", "float64", DAILY),
            Column("top_1h", "list<string>", HOURLY, []),
        ),
        "shop": (Column("rate", "float64", Expiry(10 * MINUTE_MS)),),
    },
)
NEWER = OnlineSchema("e" * 16, {"user": (Column("last", "string", DAILY),)})
AT_MS = 1_700_000_000_000 // MINUTE_MS * MINUTE_MS
EMPTY: dict[str, Any] = {"count_1h": 0.0, "mean_1d": None, "top_1h": []}


def row(values: str, schema: OnlineSchema = SCHEMA, at_ms: int = AT_MS) -> bytes:
    return f'[{at_ms},5,0,7,"{schema.version}",{values}]'.encode()


def current(schema: OnlineSchema = SCHEMA) -> bytes:
    return f'[5,"{schema.version}"]'.encode()


def read(
    entity: str, texts: list[bytes | None], schemas: tuple[OnlineSchema, ...] = (SCHEMA,), now_ms: int = AT_MS
) -> list[FeatureRow]:
    """Read rows as the clients do; the last of the schemas is current."""
    book = SchemaBook("p")
    answers = book.answers(entity, [f"k{i}" for i in range(len(texts))], [current(schemas[-1]), *texts])
    documents: dict[str, bytes | None] = {one.version: one.encode() for one in schemas}
    book.learn({version: documents.get(version) for version in book.unknown(answers)})
    assert book.unknown(answers) == []
    return book.rows(answers, now_ms)


def test_values_have_their_types_and_the_row_its_age() -> None:
    values: dict[str, Any] = {"count_1h": 3.0, "mean_1d": 0.1 + 0.2, "top_1h": ["a", "b"]}
    assert read("user", [row('[3.0,0.30000000000000004,["a","b"]]')], now_ms=AT_MS + 5) == [
        FeatureRow("user", "k0", values, AT_MS, 5, frozenset(), "f" * 16)
    ]


@pytest.mark.parametrize(
    ("after_ms", "drained"),
    [
        (-HOUR_MS, set()),  # ahead of the clock
        (HOUR_MS + MINUTE_MS - 1, set()),
        (HOUR_MS + MINUTE_MS, {"count_1h", "top_1h"}),
        (24 * HOUR_MS + MINUTE_MS, {"count_1h", "top_1h", "mean_1d"}),
    ],
)
def test_a_window_without_an_event_has_its_empty_value(after_ms: int, drained: set[str]) -> None:
    (found,) = read("user", [row('[3.0,0.5,["a","b"]]')], now_ms=AT_MS + after_ms)
    values = {"count_1h": 3.0, "mean_1d": 0.5, "top_1h": ["a", "b"]}
    assert found.values == values | {name: EMPTY[name] for name in drained}
    assert found.drained == frozenset(drained)
    assert found.age_ms == after_ms


def test_a_key_without_a_row_has_all_the_empty_values() -> None:
    known, unknown = read("user", [row("[1.0,null,null]"), None])
    assert known.values == {"count_1h": 1.0, "mean_1d": None, "top_1h": None}
    assert unknown.values == EMPTY
    assert (unknown.event_time_ms, unknown.age_ms) == (None, None)
    assert unknown.drained == frozenset(EMPTY)


def test_a_row_is_read_by_the_schema_it_was_written_with() -> None:
    old, new, none = read("user", [row("[1.0,null,null]"), row('[""]', NEWER), None], (SCHEMA, NEWER))
    assert (old.feature_set, set(old.values)) == ("f" * 16, set(EMPTY))
    assert (new.feature_set, new.values) == ("e" * 16, {"last": ""})
    assert (none.feature_set, none.values) == ("e" * 16, {"last": None})


def test_a_version_that_was_not_seen_yet_is_asked_for_once() -> None:
    book = SchemaBook("p")
    answers = book.answers("user", ["u", "v"], [current(), row('[""]', NEWER), None])
    assert set(book.unknown(answers)) == {SCHEMA.version, NEWER.version}
    book.learn({SCHEMA.version: SCHEMA.encode()})
    assert book.unknown(answers) == [NEWER.version]
    assert book.unknown(book.answers("user", ["v"], [current(), None])) == []


LATER = msgspec.json.encode(json.loads(SCHEMA.encode()) | {"format": 2})


@pytest.mark.parametrize(
    ("texts", "documents", "message"),
    [
        ([None, None], {}, r"p:schema: is not there; is the prefix right"),
        ([b"{}", None], {}, r"p:schema: holds no online row"),
        ([current(), b"a text"], {}, r"p:usr:\{k\}: holds no online row of this release; delete it"),
        ([current(), None], {SCHEMA.version: None}, f"p:schema:{SCHEMA.version}: is not there, but rows name it"),
        ([current(), None], {SCHEMA.version: b"[]"}, f"p:schema:{SCHEMA.version}: holds no schema of online rows"),
        ([current(), None], {SCHEMA.version: LATER}, "the schema has format 2; this reader knows 1"),
        ([current(), None], {SCHEMA.version: SCHEMA.encode()}, r"p: has no entity 'usr'; did you mean 'user'\?"),
    ],
)
def test_what_cannot_be_read_says_why(texts: list[Any], documents: dict[str, Any], message: str) -> None:
    book = SchemaBook("p")
    with pytest.raises(OnlineStoreError, match=message):  # noqa: PT012  whichever of the steps of a read it is
        answers = book.answers("usr", ["k"], texts)
        book.learn(documents)
        book.rows(answers, AT_MS)


def test_a_type_of_a_later_release_is_refused() -> None:
    later = OnlineSchema("f" * 16, {"user": (Column("c", "decimal", HOURLY),)})
    with pytest.raises(OnlineStoreError, match=r"type 'decimal' is unknown; this reader is older than the job"):
        read("user", [None], (later,))


SCALARS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.float64(): st.floats(allow_nan=False, allow_infinity=False),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
}


@st.composite
def columns(draw: st.DrawFn) -> tuple[pa.DataType, Any]:
    kind = draw(st.sampled_from(list(SCALARS)))
    shape = draw(st.sampled_from(["scalar", "list", "map"]))
    if shape == "scalar":
        return kind, draw(st.none() | SCALARS[kind])
    inner = st.none() | SCALARS[kind]
    if shape == "list":
        return pa.list_(kind), draw(st.none() | st.lists(inner))
    return pa.map_(pa.string(), kind), draw(st.none() | st.dictionaries(st.text(), inner))


@given(st.lists(columns(), min_size=1, max_size=4))
def test_every_value_comes_back_as_it_was(drawn: list[tuple[pa.DataType, Any]]) -> None:
    names = [f"c{i}" for i in range(len(drawn))]
    arrays = [pa.array([list(one.items()) if isinstance(one, dict) else one], kind) for kind, one in drawn]
    (text,) = row_texts(pa.RecordBatch.from_arrays(arrays, names=names), names)
    described = [Column(name, type_name(kind, name), DAILY) for name, (kind, _) in zip(names, drawn, strict=True)]
    schema = OnlineSchema("f", {"e": tuple(described)})
    (found,) = read("e", [row(text.decode(), schema)], (schema,))
    # Of the same type, and zeros of the same sign.
    assert repr(list(found.values.values())) == repr([value for _, value in drawn])


ODD = st.text(alphabet=st.sampled_from("ab{}%:|\\ \n\0é7B5D2"), max_size=8) | st.text(max_size=8)


@given(st.lists(st.tuples(st.sampled_from(["user", "user_shop", "shop"]), ODD), max_size=30))
def test_no_two_keys_share_a_store_key_and_each_is_its_own_hash_tag(pairs: list[tuple[str, str]]) -> None:
    named = {row_key("p-1", entity, key): (entity, key) for entity, key in pairs}
    assert len(named) == len(set(pairs))
    for name in named:
        tag = name[name.index("{") + 1 : name.index("}")]
        assert tag
        assert name.endswith(f"{{{tag}}}")
        assert key_slot(name.encode()) == key_slot(tag.encode()), "as Redis Cluster places it"


@given(st.tuples(ODD, ODD, ODD))
def test_a_key_of_several_parts_is_that_of_the_job(parts: tuple[str, str, str]) -> None:
    rows = pa.RecordBatch.from_pydict({name: [part] for name, part in zip("xyz", parts, strict=True)})
    assert add_entity(rows, "x_y_z", ("x", "y", "z"))["x_y_z"].to_pylist() == [key_text(parts)]


def test_a_key_without_text_has_a_tag_of_its_own() -> None:
    assert row_key("p", "user", "") != row_key("p", "user", "%")
    assert key_slot(row_key("p", "user", "").encode()) == key_slot(b"%")


def test_an_expiry_is_judged_by_tiles_also_before_1970() -> None:
    expiry = Expiry(10, 5, 2)  # tiles start at ..., -8, -3, 2, ...
    assert [expiry.lapsed(-4, now) for now in (-4, 6, 7)] == [False, False, True]
    assert [expiry.lapsed(-3, now) for now in (11, 12)] == [False, True]
