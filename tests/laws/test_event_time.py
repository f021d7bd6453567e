"""Files of columns in the order of event time, whatever order they have on disk."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.event_time import Table, TimeOrder
from udfs.core.declare.contract import Contract
from udfs.core.rows.batches import Piece
from udfs.core.rows.columns import ColumnError

CONTRACT = Contract.model_validate({"time": "at_ms", "fields": {"at_ms": "int64", "n": "int64", "x": "float64?"}})


def write(path: Path, rows: Sequence[tuple[int, int]], group: int = 1000) -> Path:
    columns = {"at_ms": [at for at, _ in rows], "n": [n for _, n in rows], "x": [None] * len(rows)}
    pq.write_table(
        pa.table({name: pa.array(column, pa.int64()) for name, column in columns.items()}), path, row_group_size=group
    )
    return path


def in_order(tables: list[Table], scratch: Path, **settings: int) -> list[tuple[str, int, int]]:
    """Return (topic, time, n) of every row, in the order of the chunks' positions."""
    found = []
    for chunk in TimeOrder(tables, scratch, **settings):
        rows: list[tuple[int, str, int, int]] = []
        for part in chunk:
            assert isinstance(part.batch, Piece)
            assert part.batch.letters.num_rows == 0
            columns = (part.batch.rows[name].to_pylist() for name in ("at_ms", "n"))
            rows += zip(part.positions.tolist(), [part.batch.topic] * len(part.positions), *columns, strict=True)
        rows.sort()
        assert [row[0] for row in rows] == list(range(len(rows)))
        assert len(rows) <= settings.get("chunk_rows", len(rows))
        found += [row[1:] for row in rows]
    return found


@given(seed=st.integers(0, 10**6), chunk=st.integers(1, 60), waiting=st.sampled_from([0, 10_000]))
def test_every_row_comes_in_the_order_of_time_then_table_then_file_then_row(
    seed: int, chunk: int, waiting: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With 0 rows that may wait, everything goes through scratch files."""
    chance, folder = random.Random(seed), tmp_path_factory.mktemp("order")
    wanted, tables = [], []
    for rank, topic in enumerate(("b", "a")):
        paths = []
        for file in range(2):
            rows = [
                (chance.randrange(20) * 1_000 + file * chance.choice([0, 15_000]), n)
                for n in range(chance.randrange(40))
            ]
            wanted += [(at, rank, file, n, topic) for at, n in rows]
            paths.append(write(folder / f"{topic}{file}", rows, chance.randrange(1, 15)))
        tables.append(Table(topic, CONTRACT, tuple(paths), "at_ms"))
    scratch = folder / "scratch"
    scratch.mkdir()
    found = in_order(tables, scratch, chunk_rows=chunk, most_waiting_rows=waiting)
    assert found == [(topic, at, n) for at, _, _, n, topic in sorted(wanted)]
    assert list(scratch.iterdir()) == []


def test_rows_of_clustered_files_do_not_wait_for_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "t", [(at, at) for at in range(1_000)], group=10)
    chunks = iter(TimeOrder([Table("t", CONTRACT, (path,), "at_ms")], tmp_path, chunk_rows=50))
    first = next(chunks)
    assert isinstance(first[0].batch, Piece)
    assert first[0].batch.rows["n"].to_pylist() == list(range(50))


def test_another_column_orders_if_it_is_asked_for(tmp_path: Path) -> None:
    table = pa.table({"at_ms": [1, 2, 3], "n": [1, 2, 3], "x": [0.5] * 3, "_timestamp_ms": [9, 7, 8]})
    pq.write_table(table, tmp_path / "t")
    found = in_order([Table("t", CONTRACT, (tmp_path / "t",), "_timestamp_ms")], tmp_path)
    assert [n for _, _, n in found] == [2, 3, 1]


def test_what_the_contract_refuses_comes_as_letters(tmp_path: Path) -> None:
    table = pa.table({"at_ms": [1, None, 3], "n": [1, 2, None], "x": [float("nan"), 1.0, 2.0]})
    pq.write_table(table, tmp_path / "t")
    letters: list[dict[str, Any]] = []
    for chunk in TimeOrder([Table("t", CONTRACT, (tmp_path / "t",), "at_ms")], tmp_path):
        for part in chunk:
            assert isinstance(part.batch, Piece)
            assert part.batch.rows.num_rows == 0
            letters += part.batch.letters.to_pylist()
    assert sorted((letter["offset"], letter["reason"], letter["detail"]) for letter in letters) == [
        (0, "not_finite", "x: got NaN or Infinity"),
        (1, "null_field", "at_ms: got null"),
        (2, "null_field", "n: got null"),
    ]


def test_a_file_without_a_column_is_named_before_anything_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"at_m": [1], "n": [1], "x": [1.0]}), tmp_path / "t.parquet")
    with pytest.raises(ColumnError, match=r"t\.parquet: has no column 'at_ms'; did you mean 'at_m'\?"):
        TimeOrder([Table("t", CONTRACT, (tmp_path / "t.parquet",), "at_ms")], tmp_path)
