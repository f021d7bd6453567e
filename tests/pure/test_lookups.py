"""What a key gives that the file of a lookup does not have: nulls, defaults of the right types, or a reject."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.samples import EVENTS, RATE_JOIN, declaration, payment, raw_batch, small_pipeline
from udfs.core.declare.declarations import Lookup
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import validate
from udfs.core.errors import DefinitionError
from udfs.core.plan.checking import check_pipeline
from udfs.core.rows.batches import Piece
from udfs.core.rows.ingest import Ingest

SHOPS: dict[str, Any] = {
    "name": "shops",
    "file": "shops.csv",
    "key": "shop",
    "take": {"city": "city", "floor_m2": "area", "floors": "floors", "is_open": "is_open"},
}
DEFAULTS: dict[str, Any] = {"city": "nowhere", "floor_m2": 1.5, "floors": -1, "is_open": False}
TABLE = pa.table(
    {"shop": ["s0", "s1"], "city": ["Ulm", None], "area": [10.5, None], "floors": [2, None], "is_open": [True, None]}
)
KEYS = ["s1", "s9", None, "s0"]


def write(folder: Path, kind: str, table: pa.Table = TABLE) -> str:
    if kind == "parquet":
        pa.parquet.write_table(table, folder / "shops.parquet")
    else:
        pa.csv.write_csv(table, folder / "shops.csv")
    return f"shops.{kind}"


def looked_up(folder: Path, *lookups: dict[str, Any], keys: list[str | None] | None = None) -> Piece:
    ingest = Ingest.of_source(small_pipeline(lookups=list(lookups)), folder)
    sent = [payment(i, 1_000 + i, "u", shop=shop) for i, shop in enumerate(KEYS if keys is None else keys)]
    return ingest.process(raw_batch(EVENTS, sent))


def columns(piece: Piece) -> list[tuple[Any, ...]]:
    return list(zip(*(piece.rows[name].to_pylist() for name in DEFAULTS), strict=True))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_miss_gives_nulls_unless_it_is_said_otherwise(kind: str, tmp_path: Path) -> None:
    for on_miss in ({}, {"on_miss": "null"}, {"on_miss": None}):
        piece = looked_up(tmp_path, SHOPS | on_miss | {"file": write(tmp_path, kind)})
        nothing = (None, None, None, None)
        # CSV has no null of text: an empty field is the empty text.
        known = ("" if kind == "csv" else None, None, None, None)
        assert columns(piece) == [known, nothing, nothing, ("Ulm", 10.5, 2, True)]
        assert piece.letters.num_rows == 0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_default_stands_for_a_miss_and_a_null_key_but_not_for_a_null_of_the_file(kind: str, tmp_path: Path) -> None:
    piece = looked_up(tmp_path, SHOPS | {"file": write(tmp_path, kind), "on_miss": "default", "default": DEFAULTS})
    missing = ("nowhere", 1.5, -1, False)
    known = ("" if kind == "csv" else None, None, None, None)
    assert columns(piece) == [known, missing, missing, ("Ulm", 10.5, 2, True)]
    assert piece.letters.num_rows == 0


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_miss_or_a_null_key_is_rejected_with_its_reason_and_bytes(kind: str, tmp_path: Path) -> None:
    file = write(tmp_path, kind)
    piece = looked_up(tmp_path, SHOPS | {"file": file, "on_miss": "reject"})
    assert piece.rows["_offset"].to_pylist() == [0, 3]
    assert columns(piece)[1] == ("Ulm", 10.5, 2, True)
    letters = piece.letters.to_pylist()
    assert [(one["kind"], one["stage"], one["reason"], one["offset"], one["detail"]) for one in letters] == [
        ("rejects", "lookup", "lookup_miss", 1, f"shop: got 's9', which is not in {file} of 'shops'"),
        ("rejects", "lookup", "lookup_miss", 2, f"shop: got None, which is not in {file} of 'shops'"),
    ]
    assert b'"s9"' in letters[0]["value"]


def test_each_lookup_has_its_own_way_and_a_row_is_rejected_once(tmp_path: Path) -> None:
    write(tmp_path, "csv")
    strict = {"name": "strict", "file": "shops.csv", "key": "shop", "file_key": "shop", "on_miss": "reject"}
    piece = looked_up(
        tmp_path,
        SHOPS | {"on_miss": "default", "default": DEFAULTS},
        strict | {"take": {"a": "floors"}},
        strict | {"take": {"b": "floors"}, "key": "id"},
        keys=["s0", "s9"],
    )
    assert piece.rows.num_rows == 0
    assert piece.rows.schema.names[-6:] == [*DEFAULTS, "a", "b"]
    assert sorted((one["offset"], one["detail"][:12]) for one in piece.letters.to_pylist()) == [
        (0, "id: got 'p0'"),
        (1, "shop: got 's"),
    ]


@pytest.fixture(scope="session")
def shops_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shops")
    write(folder, "parquet")
    return folder


@given(
    keys=st.lists(st.sampled_from([*KEYS, "", "s0 "])),
    cuts=st.sets(st.integers(1, 9)),
    on_miss=st.sampled_from(["reject", "default"]),
)
def test_batches_may_be_cut_anywhere(keys: list[str | None], cuts: set[int], on_miss: str, shops_folder: Path) -> None:
    lookup = (
        SHOPS | {"file": "shops.parquet", "on_miss": on_miss} | ({"default": DEFAULTS} if on_miss == "default" else {})
    )
    ingest = Ingest.of_source(small_pipeline(lookups=[lookup]), shops_folder)
    sent = [payment(i, 1_000 + i, "u", shop=shop) for i, shop in enumerate(keys)]
    known = {"s0": ("Ulm", 10.5, 2, True), "s1": (None, None, None, None)}
    missing = tuple(DEFAULTS.values()) if on_miss == "default" else "a letter"
    ends = [*sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    got: dict[int, Any] = {}
    for start, end in zip([0, *ends], ends, strict=False):
        piece = ingest.process(raw_batch(EVENTS, sent[start:end], start))
        got |= dict(zip(piece.rows["_offset"].to_pylist(), columns(piece), strict=True))
        got |= dict.fromkeys(piece.letters["offset"].to_pylist(), "a letter")
    assert [got[i] for i in range(len(sent))] == [known.get(key or "", missing) for key in keys]


@pytest.mark.parametrize(
    ("default", "said"),
    [
        ({"city": 3}, "default of 'city' of lookup 'shops' is 3, but the file's column holds string"),
        ({"city": True}, "default of 'city' of lookup 'shops' is True, but the file's column holds string"),
        ({"floors": 1.5}, "default of 'floors' of lookup 'shops' is 1.5, but the file's column holds int64"),
        ({"floors": True}, "default of 'floors' of lookup 'shops' is True, but the file's column holds int64"),
        ({"floors": 2**63}, "is 9223372036854775808, but the file's column holds int64"),
        ({"floor_m2": "1"}, "default of 'floor_m2' of lookup 'shops' is '1', but the file's column holds double"),
        ({"floor_m2": 2**53 + 1}, "is 9007199254740993, but the file's column holds double"),
        ({"is_open": 1}, "default of 'is_open' of lookup 'shops' is 1, but the file's column holds bool"),
    ],
)
def test_a_default_of_another_type_than_the_file_holds_is_refused(
    default: dict[str, Any], said: str, tmp_path: Path
) -> None:
    lookup = SHOPS | {"file": write(tmp_path, "parquet"), "on_miss": "default", "default": DEFAULTS | default}
    with pytest.raises(DefinitionError, match=rf"^{re.escape(str(tmp_path / 'shops.parquet'))}: .*{re.escape(said)}"):
        looked_up(tmp_path, lookup)


def test_a_default_may_be_null_and_a_whole_number_where_the_file_has_fractions(tmp_path: Path) -> None:
    defaults = DEFAULTS | {"city": None, "floor_m2": 3}
    piece = looked_up(tmp_path, SHOPS | {"file": write(tmp_path, "parquet"), "on_miss": "default", "default": defaults})
    assert columns(piece)[1] == (None, 3.0, -1, False)


def test_a_default_beyond_the_width_of_the_column_is_refused(tmp_path: Path) -> None:
    narrow = TABLE.set_column(3, "floors", pa.array([2, None], pa.int8()))
    lookup = SHOPS | {"file": write(tmp_path, "parquet", narrow), "on_miss": "default"}
    with pytest.raises(DefinitionError, match="is 300, but the file's column holds int8"):
        looked_up(tmp_path, lookup | {"default": DEFAULTS | {"floors": 300}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"on_miss": "default"}, "on_miss: got 'default' and no default; `default` goes with `on_miss: default`"),
        ({"default": DEFAULTS}, "on_miss: got 'null' and a default; "),
        ({"on_miss": "reject", "default": DEFAULTS}, "on_miss: got 'reject' and a default; "),
        ({"on_miss": "rejct"}, "lookups[0].on_miss: got 'rejct'; did you mean 'reject'?"),
        (
            {"on_miss": "default", "default": DEFAULTS | {"citi": "x"}},
            "default: got 'citi', which is no column of take; did you mean 'city'?",
        ),
        (
            {"on_miss": "default", "default": {"city": "x"}},
            "default: floor_m2, floors, is_open missing; say null where there is none",
        ),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(said)):
        validate(Path("pipeline.yaml"), declaration(lookups=[SHOPS | changes]), Pipeline)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], {"a": 1}])
def test_a_default_is_text_a_finite_number_a_boolean_or_null(value: Any) -> None:
    with pytest.raises(ValidationError, match="default"):
        Lookup.model_validate(SHOPS | {"on_miss": "default", "default": DEFAULTS | {"city": value}})


def test_a_declaration_is_the_same_after_it_was_written() -> None:
    lookup = Lookup.model_validate(SHOPS | {"on_miss": "default", "default": DEFAULTS})
    assert Lookup.model_validate_json(lookup.model_dump_json(by_alias=True)) == lookup
    assert lookup.default == DEFAULTS
    assert isinstance((lookup.default or {})["is_open"], bool)


@pytest.mark.parametrize(
    ("group", "place"),
    [
        ({"of": "city", "take": ["max"]}, "features[1].of"),
        ({"of": "amount", "take": ["sum", {"argmax": "city"}]}, "features[1].take.argmax"),
        ({"of": "amount", "take": [{"argmin": "city"}]}, "features[1].take.argmin"),
    ],
)
def test_a_text_column_of_a_file_where_a_number_is_needed_is_refused(
    group: dict[str, Any], place: str, tmp_path: Path
) -> None:
    first = {"entity": "user", "of": "amount", "take": [{"argmax": "floors"}], "over": ["4s"], "slide": "1s"}
    second = {"entity": "user", "over": ["4s"], "slide": "1s"} | group
    declared = declaration(lookups=[SHOPS | {"file": write(tmp_path, "parquet")}], features=[first, second])
    (tmp_path / "pipeline.yaml").write_text(json.dumps(declared), encoding="utf-8")
    with pytest.raises(DefinitionError) as refused:
        check_pipeline(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'shops.parquet'}: column ")
    assert f"holds string; lookup 'shops' takes it as 'city', and {place} needs a number" in str(refused.value)


def test_a_field_of_another_stream_may_have_the_name_of_a_text_column_of_a_file(tmp_path: Path) -> None:
    own = RATE_JOIN["contract"]
    rates = RATE_JOIN | {"contract": own | {"fields": own["fields"] | {"city": "float64"}}}
    read = {"entity": "shop", "from": "rates", "of": "city", "take": ["max"], "over": ["4s"], "slide": "1s", "as": "r"}
    lookups = [SHOPS | {"file": write(tmp_path, "parquet"), "take": {"city": "city"}}]
    declared = declaration(lookups=lookups, enrichments=[rates], features=[read])
    (tmp_path / "pipeline.yaml").write_text(json.dumps(declared), encoding="utf-8")
    assert check_pipeline(tmp_path).columns == ("r_max_4s",)
