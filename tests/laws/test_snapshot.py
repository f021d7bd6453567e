"""State snapshots on disk: what is written is read back, what was spoiled or is another version is refused."""

import json
from functools import cache
from pathlib import Path

import msgspec
import pytest

from tests.laned import LanedJob
from tests.samples import FLIGHTS, random_payments, raw_batch, small_pipeline
from udfs.core.errors import StateFormatError
from udfs.core.rows.batches import RawBatch
from udfs.core.state.header import StateHeader
from udfs.core.state.snapshot import Snapshot, SnapshotReader, pending_of_lane, position, write_snapshot

OFFSETS = {"shop.payments": {0: 40, 1: 7}}


@cache
def sample() -> Snapshot:
    pipeline = small_pipeline(lanes=2)
    found = LanedJob(pipeline).feed(random_payments(1, 40)).snapshot()
    waiting = raw_batch("shop.payments", random_payments(2, 6), first_offset=31)
    return Snapshot(found.header, "export", found.logs, OFFSETS, [waiting])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_snapshot(tmp_path / "state", sample())
    return tmp_path / "state"


def test_what_is_written_is_read_back(folder: Path) -> None:
    written, reader = sample(), SnapshotReader(str(folder))
    found = reader.whole()
    assert found == written
    assert position(found) == (OFFSETS, {"shop.payments": {0: list(range(31, 37))}})
    manifest = reader.manifest
    assert (manifest.lanes, manifest.created_by) == (2, "export")
    assert manifest.header.definition() == small_pipeline(lanes=2)
    assert manifest.header.logs == ("log-user", "log-shop")
    assert (
        manifest.size_bytes
        == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        - (folder / "manifest.json").stat().st_size
    )
    reader.check()


def test_a_place_may_be_a_uri(folder: Path) -> None:
    assert SnapshotReader(folder.as_uri()).whole() == sample()


def test_members_of_the_definition_keep_their_order() -> None:
    """The order of `take` decides how rows of a join lie in memory."""
    header = StateHeader.of(small_pipeline(), FLIGHTS)
    assert StateHeader.decode(header.encode()) == header
    assert list(StateHeader.decode(header.encode()).pipeline["contract"]["fields"]) == list(
        header.pipeline["contract"]["fields"]
    )


def test_a_folder_that_exists_is_not_written_over(folder: Path) -> None:
    with pytest.raises(StateFormatError, match="exists already"):
        write_snapshot(folder, sample())


def test_a_snapshot_that_fails_leaves_nothing(tmp_path: Path) -> None:
    broken = Snapshot(sample().header, "export", {("log-user", 0): [b"no segment"]})
    with pytest.raises(StateFormatError, match="is no segment"):
        write_snapshot(tmp_path / "state", broken)
    assert list(tmp_path.iterdir()) == []


def test_every_spoiled_byte_of_a_file_is_found(folder: Path) -> None:
    for file in [*folder.glob("logs/*"), folder / "pending"]:
        whole = file.read_bytes()
        for spoiled in (whole[:-1], whole + b"\0", whole[:9] + bytes([whole[9] ^ 1]) + whole[10:], b""):
            file.write_bytes(spoiled)
            with pytest.raises(StateFormatError, match=f"{file.name}: not the file that was written"):
                SnapshotReader(str(folder)).check()
        file.write_bytes(whole)
    SnapshotReader(str(folder)).check()


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "pending").unlink()
    with pytest.raises(StateFormatError, match="no state snapshot, or not all of it"):
        SnapshotReader(str(folder)).check()
    with pytest.raises(StateFormatError, match="no state snapshot"):
        SnapshotReader(str(folder / "nothing"))
    with pytest.raises(StateFormatError, match="is no place that can be read"):
        SnapshotReader("nowhere://bucket/x")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": "1"}', '{"version": 1}'])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(StateFormatError, match="do not say what the state is of"):
        SnapshotReader(str(folder))


def test_another_version_is_refused(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 2}))
    with pytest.raises(StateFormatError, match="version 2; this code reads 1"):
        SnapshotReader(str(folder))
    with pytest.raises(StateFormatError, match="version 3; this code reads 1"):
        StateHeader.decode(msgspec.json.encode({"version": 3}))


def test_a_definition_that_is_none_any_more_is_refused() -> None:
    header = StateHeader.of(small_pipeline(), FLIGHTS)
    other = StateHeader(header.pipeline | {"features": []}, "x", [], has_ids=False)
    with pytest.raises(StateFormatError, match="the definition of the job that wrote the state is not valid here"):
        other.definition()


def test_every_pending_record_comes_to_the_lane_of_its_key_in_order() -> None:
    batch = RawBatch("t", [b"0", b"1", b"2", b"3"], [b"a", b"b", None, b"a"], [0, 0, 1, 0], [5, 6, 7, 8], [1, 2, 3, 4])
    lanes = [list(pending_of_lane([batch], lane, 2)) for lane in range(2)]
    assert [[one.offsets for one in found] for found in lanes] == [[[6, 7]], [[5, 8]]]
    assert lanes[1] == [RawBatch("t", [b"0", b"3"], [b"a", b"a"], [0, 0], [5, 8], [1, 4])]
