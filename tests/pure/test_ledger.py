"""The ledger: what was written is read again; what was edited, moved, removed or cut is found, and named."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flink_jobs.deploy.ledger import START, Head, Ledger, LedgerError, Line, check, following

COUNT = 6
LINES: list[Line] = []
for _number in range(COUNT):
    LINES.append(following(LINES[-1] if LINES else None, f"event{_number}", _number, {"who": "ada", "n": _number}))
TEXTS = [line.encode() for line in LINES]
HEAD = Head(COUNT, LINES[-1].sha256)


def test_lines_are_chained_from_the_first_to_the_head(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    written = [ledger.append("begun", number, version=str(number)) for number in range(3)]
    assert ledger.lines() == ledger.verify(written[0].sha256) == tuple(written)
    assert [line.before for line in written] == [START, *(line.sha256 for line in written[:2])]
    assert json.loads((tmp_path / "head.json").read_text()) == {"number": 3, "sha256": written[2].sha256}


@given(st.integers(0, COUNT - 1), st.data())
def test_a_changed_byte_is_found_in_its_line(at: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(TEXTS[at]) - 2))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte not in (TEXTS[at][place], ord("\n"))))
    changed = TEXTS[at][:place] + bytes([other]) + TEXTS[at][place + 1 :]
    with pytest.raises(LedgerError, match=rf"line {at + 1} "):
        check(b"".join([*TEXTS[:at], changed, *TEXTS[at + 1 :]]), HEAD)


@given(st.integers(0, COUNT - 1))
def test_a_missing_line_is_named(at: int) -> None:
    with pytest.raises(LedgerError, match=rf"line {at + 1} is missing"):
        check(b"".join([*TEXTS[:at], *TEXTS[at + 1 :]]), HEAD)


@given(st.permutations(range(COUNT)))
def test_a_line_that_stands_elsewhere_is_named(order: list[int]) -> None:
    content = b"".join(TEXTS[i] for i in order)
    first = next((i for i, at in enumerate(order) if i != at), None)
    if first is None:
        assert check(content, HEAD) == (tuple(LINES), b"")
    else:
        with pytest.raises(LedgerError, match=rf"line {first + 1} is missing or was moved"):
            check(content, HEAD)


@given(st.integers(1, COUNT))
def test_a_cut_tail_is_found_with_the_head_and_only_with_it(cut: int) -> None:
    content = b"".join(TEXTS[:-cut])
    with pytest.raises(LedgerError, match=rf"line {COUNT - cut + 1} is missing: the ledger was cut"):
        check(content, HEAD)
    assert len(check(content, None)[0]) == COUNT - cut


def test_a_tail_that_was_written_anew_is_found() -> None:
    anew = following(LINES[-2], "event5", 5, {"who": "eve", "n": 5})
    with pytest.raises(LedgerError, match=r"line 6 was written anew"):
        check(b"".join([*TEXTS[:-1], anew.encode()]), HEAD)


def test_a_line_that_was_exchanged_with_its_digest_is_found_by_the_next() -> None:
    anew = following(LINES[1], "event2", 2, {"who": "eve", "n": 2})
    with pytest.raises(LedgerError, match=r"line 3 was exchanged"):
        check(b"".join([*TEXTS[:2], anew.encode(), *TEXTS[3:]]), HEAD)


@given(st.integers(1, len(TEXTS[-1]) - 1))
def test_what_a_crash_tore_is_cut_off_with_a_note_and_the_rest_stays(kept: int) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        whole = ledger.append("begun", 1, version="3")
        with ledger.file.open("ab") as file:
            file.write(TEXTS[-1][:kept])
        assert ledger.lines() == (whole,)
        with pytest.raises(LedgerError, match="line 2 is torn"):
            ledger.verify()
        ledger.append("ended", 2, result="deployed")
        assert [line.event for line in ledger.verify()] == ["begun", "repaired", "ended"]
        assert ledger.lines()[1].fields["torn_bytes"] == kept


def test_a_line_whose_head_a_crash_left_behind_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(2):
        ledger.append("paused", number)
    head = (tmp_path / "head.json").read_bytes()
    third = ledger.append("resumed", 3)
    (tmp_path / "head.json").write_bytes(head)
    assert ledger.verify()[-1] == third


def test_the_end_of_a_whole_line_cut_off_is_no_crash(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append("paused", 1)
    ledger.file.write_bytes(ledger.file.read_bytes()[:-5])
    with pytest.raises(LedgerError, match="line 1 is missing"):
        ledger.append("resumed", 2)
    with pytest.raises(LedgerError, match="line 1 is missing"):
        ledger.lines()


def test_a_digest_noted_elsewhere_shows_a_ledger_written_anew(tmp_path: Path) -> None:
    noted = Ledger(tmp_path / "a").append("paused", 1).sha256
    other = Ledger(tmp_path / "b")
    other.append("paused", 2)
    with pytest.raises(LedgerError, match="no line has the digest"):
        other.verify(noted)
