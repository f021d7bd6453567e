"""The books of a drill: what is missing, doubled or invented is counted; versions that go back and forth are seen."""

from pathlib import Path

import numpy as np
import pytest

from scripts.drill.accounting import Committed, balance, first_after, follows, longest_gap, runs
from scripts.drill.send import read_ids


def test_the_books_tell_missing_doubled_and_invented_apart() -> None:
    sent = np.arange(10)
    assert balance(sent, sent[::-1]).is_exact
    books = balance(sent, np.array([0, 1, 2, 2, 2, 3, 4, 5, 6, 77]))
    assert (books.missing, books.duplicates, books.invented) == (3, 2, 1)
    assert not books.is_exact


@pytest.mark.parametrize(
    ("found", "is_right"),
    [
        ([1, 2, 3], True),
        ([1, 2, 4, 2, 3], True),  # 4 was rolled back after it had predicted
        ([1, 2], False),
        ([1, 3], False),
        ([1, 2, 1, 2, 3], False),
        ([1, 2, 3, 1], False),
        ([2, 3], False),
        ([1, 2, 4, 3], False),
        ([], False),
    ],
)
def test_versions_change_once_per_redeploy(found: list[int], is_right: bool) -> None:
    redeploys = [(2, 1, True), (4, 2, False), (3, 2, True)]
    assert follows(found, redeploys, 1) is is_right


def test_runs_name_each_change() -> None:
    assert runs(np.array([1, 1, 2, 1, 1])) == [1, 2, 1]
    assert runs(np.array([], np.int64)) == []


def test_the_gap_is_between_neighbours_in_the_topic() -> None:
    assert longest_gap(np.array([10, 20, 520, 530])) == (500, 20)
    assert longest_gap(np.array([10])) == (0, -1)


def test_a_promotion_is_timed_to_the_first_prediction_of_its_version() -> None:
    committed = Committed(np.arange(4), np.array([1, 1, 2, 2]), np.array([100, 200, 900, 950]))
    assert first_after(committed, {2: 400, 3: 500}) == {2: 500, 3: None}


def test_the_ledger_of_the_sender_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(b"p00000000007\np12345678901\np00000000000\n")
    assert read_ids(tmp_path / "sent").tolist() == [7, 12_345_678_901, 0]
