"""Ingest behind the decoder: rules, lookups and derived columns; a row that fails leaves alone."""

import itertools
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import EVENTS, FIELDS, RATE_JOIN, payment, random_payments, rate, raw_batch, small_pipeline
from udfs.core.errors import DefinitionError
from udfs.core.rows.batches import Piece
from udfs.core.rows.ingest import Ingest

DAY_MS = 86_400_000
STAMP_MS = 10**12
BOUNDED: dict[str, Any] = {
    "id": "id",
    "time": "at_ms",
    "fields": FIELDS
    | {
        "amount": {"type": "float64", "nullable": True, "min": -10.5, "max": 10.5},
        "units": {"type": "int64", "nullable": True, "min": -0.5, "max": 9.5},
    },
}
SHOPS = {"name": "shops", "file": "shops.csv", "key": "shop", "take": {"city": "city", "floor_m2": "area"}}


def ingest(folder: Path, **changes: Any) -> Ingest:
    return Ingest.of_source(small_pipeline(**changes), folder)


def passed(ingest_: Ingest, *fields: dict[str, Any]) -> Piece:
    sent = [payment(i, one.pop("at_ms", 1_000 + i), "u", **one) for i, one in enumerate(map(dict, fields))]
    return ingest_.process(raw_batch(EVENTS, sent, timestamp_ms=STAMP_MS))


def reasons(piece: Piece) -> list[tuple[str, str, int]]:
    return [(one["stage"], one["reason"], one["offset"]) for one in piece.letters.to_pylist()]


@pytest.mark.parametrize(
    ("field", "value", "is_good"),
    [
        ("amount", -10.5, True),
        ("amount", -10.500001, False),
        ("amount", 10.5, True),
        ("amount", 10.500001, False),
        ("amount", 1.7e308, False),
        ("amount", None, True),
        ("units", -1, False),
        ("units", 0, True),
        ("units", 9, True),
        ("units", 10, False),
        ("units", 2**53 + 1, False),
        ("units", 2**63 - 1, False),
        ("units", -(2**63), False),
        ("units", None, True),
    ],
)
def test_bounds_are_allowed_themselves_and_nulls_pass(field: str, value: Any, is_good: bool, tmp_path: Path) -> None:
    piece = passed(ingest(tmp_path, contract=BOUNDED), {}, {field: value}, {})
    assert reasons(piece) == ([] if is_good else [("validate", "out_of_range", 1)])
    assert piece.rows["_offset"].to_pylist() == ([0, 1, 2] if is_good else [0, 2])


def test_a_bound_beyond_int64_bounds_nothing(tmp_path: Path) -> None:
    fields = FIELDS | {"units": {"type": "int64", "min": -1e300, "max": 1e300}}
    contract = BOUNDED | {"fields": fields}
    piece = passed(ingest(tmp_path, contract=contract), {"units": 2**63 - 1}, {"units": -(2**63)})
    assert reasons(piece) == []


@pytest.mark.parametrize("limit", [2**53, 2**53 + 1, 2**60 + 1, 2**63 - 2, -(2**53) - 1, -(2**63) + 1])
def test_a_whole_bound_of_int64_is_exact_also_where_float64_is_not(limit: int, tmp_path: Path) -> None:
    fields = FIELDS | {"units": {"type": "int64", "min": limit, "max": limit}}
    pipeline = small_pipeline(contract=BOUNDED | {"fields": fields}).with_topic_prefix("")  # written out and read again
    piece = passed(Ingest.of_source(pipeline, tmp_path), {"units": limit - 1}, {"units": limit}, {"units": limit + 1})
    assert piece.rows["_offset"].to_pylist() == [1]
    assert piece.letters["detail"].to_pylist() == [
        f"units: got {limit - 1}; below min {limit}",
        f"units: got {limit + 1}; above max {limit}",
    ]


def test_the_message_of_a_bound_names_field_value_and_limit(tmp_path: Path) -> None:
    piece = passed(ingest(tmp_path, contract=BOUNDED), {"units": 10}, {"amount": -11.0})
    assert piece.letters["detail"].to_pylist() == ["units: got 10; above max 9.5", "amount: got -11.0; below min -10.5"]


@pytest.mark.parametrize(
    ("at_ms", "reason"),
    [
        (STAMP_MS + DAY_MS, None),
        (STAMP_MS + DAY_MS + 1, "future"),
        (2**63 - 1, "future"),
        (-62_135_596_800_000, None),
        (-62_135_596_800_001, "out_of_range"),
        (-(2**63), "out_of_range"),
        (-1, None),
    ],
)
def test_event_time_is_neither_nonsense_nor_beyond_the_tolerance(
    at_ms: int, reason: str | None, tmp_path: Path
) -> None:
    piece = passed(ingest(tmp_path), {"at_ms": at_ms})
    assert reasons(piece) == ([("validate", reason, 0)] if reason else [])


@pytest.mark.parametrize("name", ["", "a\x00b", "a\nb", "\x1e", "\x1f", "a\x7f"])
def test_an_id_that_is_empty_or_has_control_characters_is_a_reject(name: str, tmp_path: Path) -> None:
    assert reasons(passed(ingest(tmp_path), {"id": name}, {"id": "ü 🛫\u2028"})) == [("validate", "invalid_id", 0)]


def test_a_row_that_breaks_several_rules_is_one_reject_for_the_first(tmp_path: Path) -> None:
    row = {"id": "", "units": 99, "amount": 99.0, "at_ms": STAMP_MS * 2}
    assert reasons(passed(ingest(tmp_path, contract=BOUNDED), row)) == [("validate", "invalid_id", 0)]


def test_a_reject_of_a_rule_has_its_bytes_and_key(tmp_path: Path) -> None:
    sent = [payment(0, 1, None, units=99), payment(1, 2, "ü", units=99)]
    batch = raw_batch(EVENTS, sent)
    letters = ingest(tmp_path, contract=BOUNDED).process(batch).letters
    assert letters["key"].to_pylist() == [None, "ü".encode()]
    assert letters["value"].to_pylist() == list(batch.values)


def test_rows_of_an_enrichment_are_judged_by_their_own_contract() -> None:
    pipeline = small_pipeline(enrichments=[RATE_JOIN])
    topic = pipeline.enrichments[0].topic
    sent = [rate("s", 1_000, 0.5), rate("s", STAMP_MS + DAY_MS + 1, 0.5), rate(None, 2_000, None)]
    piece = Ingest.of_enrichment(pipeline.enrichments[0], DAY_MS).process(raw_batch(topic, sent, timestamp_ms=STAMP_MS))
    assert reasons(piece) == [("validate", "future", 1)]
    assert piece.rows["seen_ms"].to_pylist() == [1_000, 2_000]


@given(st.integers(0, 2**32), st.lists(st.integers(0, 40), max_size=6))
def test_no_cut_changes_what_passes_and_what_leaves(seed: int, cuts: list[int]) -> None:
    sent = random_payments(seed, 40, start_ms=STAMP_MS + DAY_MS - 5_000)
    whole = ingest(Path(), contract=BOUNDED)
    rows, letters = [], []
    ends = sorted({0, *cuts, len(sent)})
    for start, end in itertools.pairwise(ends):
        piece = whole.process(raw_batch(EVENTS, sent[start:end], start, STAMP_MS))
        rows += piece.rows.to_pylist()
        letters += piece.letters.to_pylist()
    expected = whole.process(raw_batch(EVENTS, sent, timestamp_ms=STAMP_MS))
    assert rows == expected.rows.to_pylist()
    assert letters == expected.letters.to_pylist()
    assert len(rows) + len(letters) == 40


def write_shops(folder: Path, text: str = "shop,city,area\n007,Ulm,1.5\nNA,Bern,\n1e3,Rom,2\n") -> None:
    (folder / "shops.csv").write_text(text, encoding="utf-8")


def test_a_lookup_takes_keys_as_text_and_a_miss_gives_nulls(tmp_path: Path) -> None:
    write_shops(tmp_path)
    shops = ["007", "7", None, "1e3", "1000.0", "NA", ""]
    piece = passed(ingest(tmp_path, lookups=[SHOPS]), *({"shop": shop} for shop in shops))
    assert piece.rows["city"].to_pylist() == ["Ulm", None, None, "Rom", None, "Bern", None]
    assert piece.rows["floor_m2"].to_pylist() == [1.5, None, None, 2.0, None, None, None]


def test_a_lookup_of_numbered_keys_in_parquet_meets_their_text(tmp_path: Path) -> None:
    table = pa.table({"no": pa.array([7, None], pa.int64()), "city": ["Ulm", "nowhere"], "area": [1, 2]})
    pa.parquet.write_table(table, tmp_path / "shops.parquet")
    lookup = SHOPS | {"file": "shops.parquet", "file_key": "no"}
    piece = passed(ingest(tmp_path, lookups=[lookup]), {"shop": "7"}, {"shop": None}, {"shop": "007"})
    assert piece.rows["city"].to_pylist() == ["Ulm", None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shop,city,area\na,Ulm,1\nb,Bern,2\na,Rom,3\n", "'shops' needs each 'shop' once; some stand several times"),
        ("shop,city,aera\na,Ulm,1\n", "takes column 'area', which is not in the file; did you mean 'aera'?"),
        ("shoop,city,area\na,Ulm,1\n", "takes column 'shop', which is not in the file; did you mean 'shoop'?"),
        ("shop,city,area\na,Ulm\n", "lookup 'shops' cannot be read as .csv: "),
        ("", "lookup 'shops' cannot be read as .csv: "),
    ],
)  # fmt: skip
def test_a_lookup_file_that_does_not_serve_is_refused(text: str, message: str, tmp_path: Path) -> None:
    write_shops(tmp_path, text)
    with pytest.raises(DefinitionError, match=rf"^{re.escape(str(tmp_path / 'shops.csv'))}: .*{re.escape(message)}"):
        ingest(tmp_path, lookups=[SHOPS])


def test_a_missing_lookup_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").touch()
    expected = re.escape(f"{tmp_path / 'shops.csv'}: file of lookup 'shops' is missing; did you mean 'shop.csv'?")
    with pytest.raises(DefinitionError, match=expected):
        ingest(tmp_path, lookups=[SHOPS])


FUNCTIONS = """
import pyarrow as pa
import pyarrow.compute as pc

LIMIT = 3

def total(batch):
    if 13 in batch["units"].to_pylist():
        raise ZeroDivisionError("thirteen is unlucky")
    return {"total": pc.multiply(batch["amount"], batch["units"]), "is_big": pc.greater(batch["units"], LIMIT)}

def chunked(batch):
    return {"total": pa.chunked_array([batch["amount"]]), "is_big": [True] * batch.num_rows}

def short(batch):
    return {"total": batch["amount"].slice(0, 0), "is_big": pc.greater(batch["units"], 0)}

def other(batch):
    return {"totals": batch["amount"], "is_big": pc.greater(batch["units"], 0)}

def text(batch):
    return {"total": batch["id"], "is_big": pc.greater(batch["units"], 0)}

def nothing(batch):
    return None
"""


def deriving(folder: Path, name: str) -> Ingest:
    (folder / "functions.py").write_text(FUNCTIONS, encoding="utf-8")
    derive = {"function": f"functions.py:{name}", "outputs": {"total": "float64", "is_big": "bool"}}
    return ingest(folder, derive=derive)


def test_derived_columns_have_their_declared_names_and_types(tmp_path: Path) -> None:
    piece = passed(deriving(tmp_path, "total"), {"amount": 1.5, "units": 4}, {"amount": 2.0}, {"units": 1})
    assert piece.rows.schema.field("total").type == pa.float64()
    assert piece.rows["total"].to_pylist() == [6.0, None, None]
    assert piece.rows["is_big"].to_pylist() == [True, None, False]
    assert reasons(passed(deriving(tmp_path, "chunked"), {"amount": 1.0}, {"amount": 2.0})) == []


def test_a_row_for_which_the_function_raises_leaves_alone(tmp_path: Path) -> None:
    rows = [{"amount": 2.0, "units": units} for units in (1, 13, 5, 13)]
    piece = passed(deriving(tmp_path, "total"), *rows)
    assert reasons(piece) == [("derive", "derive_failed", 1), ("derive", "derive_failed", 3)]
    assert set(piece.letters["detail"].to_pylist()) == {"ZeroDivisionError: thirteen is unlucky"}
    assert piece.rows["_offset"].to_pylist() == [0, 2]
    assert piece.rows["total"].to_pylist() == [2.0, 10.0]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("short", "ValueError: derive column 'total' has 0 values for 1 rows"),
        ("other", "ValueError: derive function gave columns ['is_big', 'totals']; declared are ['is_big', 'total']"),
        ("text", "ArrowInvalid: Failed to parse string: 'p0' as a scalar of type double"),
        ("nothing", "TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_a_function_that_does_not_give_what_is_declared_rejects_its_rows(
    name: str, detail: str, count: int, tmp_path: Path
) -> None:
    piece = passed(deriving(tmp_path, name), *({"amount": 1.0, "units": 1} for _ in range(count)))
    assert reasons(piece) == [("derive", "derive_failed", i) for i in range(count)]
    assert piece.letters["detail"][0].as_py() == detail
    assert piece.rows.num_rows == 0
    assert {"total", "is_big"} <= set(piece.rows.schema.names)


def test_derived_columns_are_there_for_an_empty_batch(tmp_path: Path) -> None:
    assert {"total", "is_big"} <= set(passed(deriving(tmp_path, "total")).rows.schema.names)


@pytest.mark.parametrize(
    ("function", "text", "message"),
    [
        ("functions.py:totl", FUNCTIONS, "functions.py: has no function 'totl'; did you mean 'total'?"),
        ("functions.py:LIMIT", FUNCTIONS, "functions.py: has no function 'LIMIT'"),
        ("function.py:total", FUNCTIONS, "file of derive function 'total' is missing; did you mean 'functions.py'?"),
        (
            "functions.py:f",
            "import no_such_module\n",
            "importing it raised ModuleNotFoundError: No module named 'no_su",
        ),
        ("functions.py:f", "def f(:\n", "importing it raised SyntaxError: "),
    ],
)
def test_a_function_that_is_not_there_is_refused(function: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text(text, encoding="utf-8")
    with pytest.raises(DefinitionError, match=re.escape(message)):
        ingest(tmp_path, derive={"function": function, "outputs": {"total": "float64"}})
