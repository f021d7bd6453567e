from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.history import History, HistoryError, write_history, write_pieces
from udfs.core.rows.batches import RawBatch

TOPICS = ["a", "a", "x", "a", "b", "b", "x", "a"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    values = [None, *(b"%d" % i for i in range(1, 8))]
    write_history(tmp_path / "new" / "h.parquet", TOPICS, [None] * 8, values, range(8))
    return tmp_path / "new" / "h.parquet"


def parts(path: Path, topics: list[str], chunk_rows: int = 100) -> list[tuple[str, list[int], list[int]]]:
    """Return per part its topic, the offsets of its records, and their places in the chunk."""
    found = []
    for chunk in History([path], topics, chunk_rows):
        for part in chunk:
            assert isinstance(part.batch, RawBatch)
            found.append((part.batch.topic, list(part.batch.offsets), part.positions.tolist()))
    return found


def test_a_chunk_has_a_part_per_topic_whose_places_say_the_order(path: Path) -> None:
    assert parts(path, ["b", "a"]) == [("b", [0, 1], [4, 5]), ("a", [0, 1, 2, 3], [0, 1, 3, 7])]


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 8])
def test_records_do_not_depend_on_how_many_rows_are_read_at_a_time(path: Path, chunk_rows: int) -> None:
    history = History([path, path], ["a", "b", "x"], chunk_rows)
    found: list[tuple[str, bytes | None]] = []
    for chunk in history:
        records = [
            (place, part.batch.topic, value)
            for part in chunk
            if isinstance(part.batch, RawBatch)
            for place, value in zip(part.positions.tolist(), part.batch.values, strict=True)
        ]
        assert len(records) <= chunk_rows
        found += [(topic, value) for _, topic, value in sorted(records)]
    values = [None, *(b"%d" % i for i in range(1, 8))]
    assert found == list(zip(TOPICS, values, strict=True)) * 2
    assert history.read == history.rows == 16


def test_a_topic_that_is_not_there_gives_nothing(path: Path) -> None:
    assert parts(path, ["c"]) == []


def test_an_empty_history_is_one(tmp_path: Path) -> None:
    write_history(tmp_path / "h.parquet", [], [], [], [])
    assert parts(tmp_path / "h.parquet", ["a"]) == []


def test_a_missing_file_is_named_with_the_nearest_one(path: Path) -> None:
    with pytest.raises(
        HistoryError,
        match=r"hh\.parquet: no such history; did you mean 'h\.parquet'\?; write one with: headrace history",
    ):
        History([path.with_name("hh.parquet")], ["a"])


def test_a_history_that_fails_half_way_leaves_the_older_one(path: Path) -> None:
    def broken() -> Iterator[pa.Table]:
        yield pq.read_table(path)
        raise HistoryError

    before = path.read_bytes()
    with pytest.raises(HistoryError):
        write_pieces(path, broken())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["h.parquet"]


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"topic": ["a"], "key": ["text"]}), tmp_path / "t.parquet")
    with pytest.raises(HistoryError, match="is no history: column 'key' is string; expected binary"):
        History([tmp_path / "t.parquet"], ["a"])
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(HistoryError, match="cannot be read as a history"):
        History([tmp_path / "text.parquet"], ["a"])
