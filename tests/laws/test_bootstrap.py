"""Starting a job from a state snapshot: what fits travels with the job, what does not is refused before submission."""

from dataclasses import replace
from pathlib import Path

import pytest

from flink_jobs import bootstrap
from flink_jobs.bootstrap import bootstrap_from
from flink_jobs.config import Environment
from flink_jobs.sources import source_options
from tests.laned import LanedJob
from tests.samples import FLIGHTS, random_payments, small_pipeline
from udfs.core.errors import StateFormatError
from udfs.core.state.header import StateHeader
from udfs.core.state.snapshot import write_snapshot

OFFSETS = {"shop.payments": {0: 40, 1: 7}}
PIPELINE = small_pipeline(lanes=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = LanedJob(PIPELINE).feed(random_payments(1, 20)).snapshot()
    write_snapshot(tmp_path / "state", replace(found, offsets=OFFSETS))
    return tmp_path / "state"


def header(**changes: object) -> StateHeader:
    return StateHeader.of(PIPELINE.model_copy(update=changes), FLIGHTS)


def test_a_folder_travels_with_the_job_and_says_where_it_begins_to_read(folder: Path) -> None:
    start = bootstrap_from(str(folder), header())
    assert (start.place, start.is_shipped, start.offsets) == (str(folder), True, OFFSETS)


def test_a_uri_is_read_by_the_workers(folder: Path) -> None:
    assert not bootstrap_from(folder.as_uri(), header()).is_shipped


def test_a_large_folder_does_not_travel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "SHIPPED_BYTES_MAX", 1_000)
    with pytest.raises(StateFormatError, match="bytes of state are too many to travel with the job; copy the folder"):
        bootstrap_from(str(folder), header())
    assert not bootstrap_from(folder.as_uri(), header()).is_shipped


def test_a_state_of_other_lanes_features_or_topics_is_refused(folder: Path) -> None:
    with pytest.raises(StateFormatError, match="it has 2 lanes, the pipeline 3"):
        bootstrap_from(str(folder), header(lanes=3))
    fewer = StateHeader.of(small_pipeline(lanes=2, features=[PIPELINE.features[0]]), FLIGHTS)
    with pytest.raises(StateFormatError, match="does not fit pipeline shop; operator shop is gone"):
        bootstrap_from(str(folder), fewer)
    elsewhere = StateHeader.of(PIPELINE.with_topic_prefix("test."), FLIGHTS)
    with pytest.raises(StateFormatError, match=r"is of the topics shop.payments; the job reads test.shop.payments"):
        bootstrap_from(str(folder), elsewhere)


def test_a_spoiled_state_is_refused(folder: Path) -> None:
    file = next(folder.glob("logs/*"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StateFormatError, match="not the file that was written"):
        bootstrap_from(str(folder), header())


def test_the_source_begins_at_the_offsets_of_the_state() -> None:
    environment = Environment.model_validate(
        {
            "kafka": {"bootstrap_servers": "nowhere:9092", "start": "latest-offset"},
            "mlflow": {"tracking_uri": "http://nowhere"},
            "flink": {"rest_url": "http://nowhere", "checkpoints": "file:///c", "savepoints": "file:///s"},
        }
    )
    options = source_options("shop.payments", PIPELINE, environment, offsets={1: 7, 0: 40})
    assert options["scan.startup.mode"] == "specific-offsets"
    assert options["scan.startup.specific-offsets"] == "partition:0,offset:40;partition:1,offset:7"
    assert source_options("shop.payments", PIPELINE, environment)["scan.startup.mode"] == "latest-offset"
