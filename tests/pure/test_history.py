from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.history import HistoryError, read_history, write_history, write_pieces

TOPICS = ["a", "a", "x", "a", "b", "b", "x", "a"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    values = [None, *(b"%d" % i for i in range(1, 8))]
    write_history(tmp_path / "new" / "h.parquet", TOPICS, [None] * 8, values, range(8))
    return tmp_path / "new" / "h.parquet"


def test_order_is_kept_and_batches_end_where_the_topic_changes(path: Path) -> None:
    found = [(batch.topic, list(batch.timestamps_ms), list(batch.offsets)) for batch in read_history(path, ["a", "b"])]
    assert found == [("a", [0, 1, 3], [0, 1, 2]), ("b", [4, 5], [0, 1]), ("a", [7], [3])]


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 8])
def test_records_do_not_depend_on_how_many_rows_are_read_at_a_time(path: Path, batch_rows: int) -> None:
    batches = list(read_history(path, ["a", "b", "x"], batch_rows))
    assert [topic for batch in batches for topic in [batch.topic] * len(batch.values)] == TOPICS
    assert [value for batch in batches for value in batch.values] == [None, *(b"%d" % i for i in range(1, 8))]
    assert max(len(batch.values) for batch in batches) <= batch_rows
    assert not [batch for batch in batches if not batch.values]


def test_a_topic_that_is_not_there_gives_nothing(path: Path) -> None:
    assert list(read_history(path, ["c"])) == []


def test_an_empty_history_is_one(tmp_path: Path) -> None:
    write_history(tmp_path / "h.parquet", [], [], [], [])
    assert list(read_history(tmp_path / "h.parquet", ["a"])) == []


def test_a_missing_file_is_named_with_the_nearest_one(path: Path) -> None:
    with pytest.raises(
        HistoryError,
        match=r"hh\.parquet: no such history; did you mean 'h\.parquet'\?; write one with: headrace history",
    ):
        next(read_history(path.with_name("hh.parquet"), ["a"]))


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
        next(read_history(tmp_path / "t.parquet", ["a"]))
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(HistoryError, match="cannot be read as a history"):
        next(read_history(tmp_path / "text.parquet", ["a"]))
