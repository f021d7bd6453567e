"""The durable form of state: what is written is read back, what is not ours is refused, as are older versions."""

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.samples import Passage, small_pipeline
from udfs.core.cells.segments import VERSION, Segment, TrackSegment, pack, unpack
from udfs.core.errors import StateFormatError

GOLDEN = Path(__file__).parents[1] / "golden" / f"segment_v{VERSION}.bin"


def known() -> Segment:
    """Two keys and three tracks, with every kind of number that state holds, and sketches; a null is a NaN."""
    return Segment(
        store=1,
        bucket=-3,
        bucket_ms=90_000,
        next_seq=2**40 + 7,
        clock_ms=1_383_652_800_000,
        keys=["", "N14228 ü 🛫"],
        newest_ms=pack(np.array([-1, 1_383_652_800_000]), "<i8"),
        born_seq=pack(np.array([0, 2**40]), "<i8"),
        tracks=[
            TrackSegment(
                layout="tiles of 1m: count(), spread(dep_delay_min)",
                tiles=pack(np.array([23_060_879, 23_060_880, -1]), "<i8"),
                owners=pack(np.array([1, 1, 0]), "<i4"),
                irs=pack(np.array([[2, 2, -1.5, 0.5], [1, 1, 0.1, 0.0], [0, 0, 0.0, -0.0]]), "<f8"),
            ),
            TrackSegment(
                layout="tiles of 5m: min(dep_delay_min)",
                tiles=pack(np.array([4_612_176]), "<i8"),
                owners=pack(np.array([1]), "<i4"),
                irs=pack(np.array([[np.nan]]), "<f8"),
            ),
            TrackSegment(
                layout="tiles: distinct.Distinct(carrier), ends.Last:1(dest)",
                tiles=pack(np.array([0, 0]), "<i8"),
                owners=pack(np.array([0, 1]), "<i4"),
                irs=b"",
                sketches=[[b"s", b"\x90"], [b"s12345678", b"\x91\x92\x05\xa3JFK"]],
            ),
        ],
    )


def write_golden() -> None:
    """Write the golden file of the present version, once, when a version is new:

    python -c "from tests.pure.test_segments import write_golden; write_golden()"

    A file that is there stays as it is: what it holds was written by jobs that run.
    """
    with GOLDEN.open("xb") as file:
        file.write(known().encode())


def test_what_is_encoded_is_decoded() -> None:
    assert Segment.decode(known().encode()) == known()


def test_the_golden_file_is_read_as_ever_and_written_to_the_same_bytes() -> None:
    data = GOLDEN.read_bytes()
    segment = Segment.decode(data)
    assert segment == known()
    assert segment.encode() == data
    irs = unpack(segment.tracks[0].irs, "<f8", 4)
    assert irs.shape == (3, 4)
    assert irs[1].tolist() == [1.0, 1.0, 0.1, 0.0]
    assert np.signbit(irs[2]).tolist() == [False, False, False, True]
    assert np.isnan(unpack(segment.tracks[1].irs, "<f8")).tolist() == [True]
    assert unpack(segment.newest_ms, "<i8").tolist() == [-1, 1_383_652_800_000]
    assert unpack(segment.tracks[0].owners, "<i4").tolist() == [1, 1, 0]
    assert segment.tracks[2].sketches == [[b"s", b"\x90"], [b"s12345678", b"\x91\x92\x05\xa3JFK"]]


def test_every_version_that_there_was_has_its_file() -> None:
    assert sorted(file.name for file in GOLDEN.parent.glob("segment_*")) == [
        f"segment_v{version}.bin" for version in range(1, VERSION + 1)
    ]


@pytest.mark.parametrize("version", range(1, VERSION))
def test_an_older_version_is_refused_with_what_to_do(version: int) -> None:
    data = GOLDEN.with_name(f"segment_v{version}.bin").read_bytes()
    with pytest.raises(StateFormatError, match=f"^stored state has version {version}; this code reads {VERSION}; rest"):
        Segment.decode(data)


def test_a_later_version_is_refused_even_if_its_form_is_unknown() -> None:
    later = VERSION + 1
    message = f"^stored state has version {later}; this code reads {VERSION}; restore with the code that wrote it$"
    unknown = msgspec.msgpack.encode({"version": later, "x": 1})
    for other in (msgspec.structs.replace(known(), version=later).encode(), unknown):
        with pytest.raises(StateFormatError, match=message):
            Segment.decode(other)


def test_a_lane_does_not_start_from_state_of_an_older_version() -> None:
    data = GOLDEN.with_name("segment_v1.bin").read_bytes()
    with pytest.raises(StateFormatError, match="stored state has version 1; this code reads 2"):
        Passage(small_pipeline(), "user", {0: data})


GARBAGE = {
    "nothing": b"",
    "text": b"not a segment",
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00",
    "an array": b"\x93\x01\x02\x03",
    "no version": msgspec.msgpack.encode({"store": 0}),
    "a version that is text": msgspec.msgpack.encode({"version": "1"}),
    "a version and nothing else": msgspec.msgpack.encode({"version": VERSION}),
    "two segments": known().encode() * 2,
    "a key that is no UTF-8": known().encode().replace("ü".encode(), b"\xff\xff"),
    "deeply nested": b"\x82\xa1x" + b"\x91" * 100_000 + b"\x00\xa7version\x01",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_segment_is_refused_with_its_size(data: bytes) -> None:
    with pytest.raises(StateFormatError, match=rf"stored state of {len(data)} bytes is no segment"):
        Segment.decode(data)


def test_a_segment_cut_short_anywhere_is_refused() -> None:
    data = known().encode()
    for size in range(len(data)):
        with pytest.raises(StateFormatError):
            Segment.decode(data[:size])


def test_a_spoiled_segment_raises_nothing_else() -> None:
    chance = random.Random(1)
    refused = 0
    for _ in range(500):
        data = bytearray(known().encode())
        data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            Segment.decode(bytes(data))
        except StateFormatError:
            refused += 1
    assert 50 < refused < 500


def test_arrays_are_little_endian_whatever_they_were() -> None:
    assert pack(np.array([1, 256], ">i2"), "<i8") == b"\x01" + b"\0" * 7 + b"\0\x01" + b"\0" * 6
    strided = np.arange(12, dtype=np.float64).reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(unpack(pack(strided, "<f8"), "<f8", 2), strided)
