"""The state of a job leaves its savepoint, goes to other lanes and starts another job; no output tells."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from flink_jobs.savepoint import SavepointError, read_savepoint, refuse_savepoint
from flink_jobs.state_export import export
from scripts.flights.replay import replay
from scripts.flights.stream import Events, merge
from scripts.kafka.batches import raw_batch
from scripts.kafka.consume import Record
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.flights import PATIENT, departures, flights_folder, weather
from tests.flink.names import fresh_prefix
from tests.flink.pending import LINGER_MS, departing, stop_with_pending
from tests.flink.scoring import Outputs, Scoring, assert_each_once, scoring
from udfs.core.declare.declarations import Latency
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError
from udfs.core.offline.parity import Observed, Origin, ParityReport, check_parity
from udfs.core.plan.features import plan_stages
from udfs.core.state.carry import carry
from udfs.core.state.header import StateHeader
from udfs.core.state.snapshot import SnapshotReader, write_snapshot

OLD_LANES, NEW_LANES = 2, 4


@dataclass(frozen=True)
class Stopped:
    """A job that was stopped while records waited in its micro-batches."""

    setting: Scoring
    savepoint: str
    #: what had come out by then
    outputs: Outputs
    #: records sent by then, and those left
    sent: int
    rest: Events


@pytest.fixture(scope="module")
def stopped(cluster: Cluster, services: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    folder, prefix = tmp_path_factory.mktemp("state"), fresh_prefix("state")
    setting = scoring(
        cluster, services, flights_folder(folder / "flights"), prefix, folder,
        partitions=2, lanes=OLD_LANES, time=PATIENT, latency=Latency.model_validate({"linger": f"{LINGER_MS}ms"}),
    )  # fmt: skip
    events = merge(weather(prefix), departures(prefix, each=1)[0])
    first, second, third = (events.take(part) for part in np.array_split(np.arange(len(events)), 3))
    job = setting.start()
    replay(first, setting.kafka, as_fast_as_possible=True)
    setting.await_outputs(len(first))
    savepoint = stop_with_pending(setting, job, departing(setting, first), second)
    return Stopped(setting, savepoint, setting.outputs(), len(first) + len(second), third)


def changed(pipeline: Pipeline, size: str) -> Pipeline:
    """Return the pipeline with another window in its first group of features."""
    declared = pipeline.model_dump(mode="json", by_alias=True)
    declared["features"][0]["over"] = [size]
    return Pipeline.model_validate(declared)


def test_a_savepoint_says_what_wrote_it_and_where_its_sources_stand(stopped: Stopped) -> None:
    setting = stopped.setting
    found = read_savepoint(stopped.savepoint)
    assert found.header == StateHeader.of(setting.pipeline, setting.folder)
    assert (found.lanes, found.max_parallelism) == (OLD_LANES, 128)
    assert set(found.featurize.values()) == {stage.entity for stage in plan_stages(setting.pipeline)}
    assert found.tables == ("enrichment_weather", "events")
    ends = {topic: {one.partition: one.offset + 1 for one in records} for topic, records in setting.inputs().items()}
    assert found.offsets == ends


def test_a_savepoint_of_other_features_or_lanes_is_refused_with_the_plan(cluster: Cluster, stopped: Stopped) -> None:
    pipeline, folder = stopped.setting.pipeline, stopped.setting.folder
    flink = cluster.environment({"execution.state-recovery.path": stopped.savepoint})
    refuse_savepoint(flink, StateHeader.of(pipeline, folder))
    window = "5d"
    with pytest.raises(StateFormatError, match=r"start empty \(only 3d of 5d are held\)"):
        refuse_savepoint(flink, StateHeader.of(changed(pipeline, window), folder))
    with pytest.raises(StateFormatError, match="it has 2 lanes, the pipeline 4"):
        refuse_savepoint(flink, StateHeader.of(pipeline.model_copy(update={"lanes": 4}), folder))
    refuse_savepoint(cluster.environment({}), StateHeader.of(changed(pipeline, window), folder))


def test_what_is_no_savepoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SavepointError, match=r"there is no savepoint to read: FileNotFoundException"):
        read_savepoint((tmp_path / "nothing").as_uri())


def test_a_job_goes_on_with_twice_the_lanes_from_the_exported_state(
    cluster: Cluster, stopped: Stopped, tmp_path: Path
) -> None:
    setting = stopped.setting
    manifest = export(cluster.environment({}), stopped.savepoint, tmp_path / "exported")
    waiting = {
        Origin(topic, partition, offset)
        for topic, partitions in manifest.pending.items()
        for partition, offsets in partitions.items()
        for offset in offsets
    }
    assert len(waiting) == stopped.sent - len(stopped.outputs.ends) > 100
    assert not waiting & set(stopped.outputs.ends)

    wider = replace(setting, pipeline=setting.pipeline.model_copy(update={"lanes": NEW_LANES}))
    header = StateHeader.of(wider.pipeline, wider.folder)
    carried = carry(SnapshotReader(str(tmp_path / "exported")).whole(), header)
    write_snapshot(tmp_path / "carried", carried)
    job = wider.start(parallelism=2, bootstrap=tmp_path / "carried")
    wider.await_outputs(stopped.sent)
    savepoint = cluster.stop(job)

    # Every lane has begun, also those without a record, so that the job goes on without the snapshot.
    again = export(cluster.environment({}), savepoint, tmp_path / "again")
    for log, summary in write_snapshot(tmp_path / "same", carried).logs.items():
        assert all(now >= was for now, was in zip(again.logs[log].next_seq, summary.next_seq, strict=True))
    job = wider.start(parallelism=2, savepoint=savepoint)
    replay(stopped.rest, wider.kafka, as_fast_as_possible=True)
    wider.await_outputs(stopped.sent + len(stopped.rest))
    assert cluster.failures(job) == []
    cluster.stop(job)

    inputs, outputs = wider.inputs(), wider.outputs()
    assert_each_once(inputs, outputs)
    report = uninterrupted(setting, inputs, outputs, before=set(stopped.outputs.ends))
    assert report.rows == len(outputs.predictions) > 1_000
    assert (report.mismatches, report.missing, report.examples) == (0, 0, [])


def uninterrupted(
    setting: Scoring, inputs: dict[str, list[Record]], outputs: Outputs, before: set[Origin]
) -> ParityReport:
    """Compare with a run of one lane that never stops, in which each key sees its records in the same order.

    Parameters
    ----------
    before : records that came out before the lanes were changed
    """
    places: dict[str, list[tuple[bool, int, int, Origin]]] = {}
    for origin, seen in outputs.observed.items():
        for entity, (lane, seq) in seen.order.items():
            places.setdefault(entity, []).append((origin not in before, lane, seq, origin))
    order: dict[Origin, dict[str, tuple[int, int]]] = {origin: {} for origin in outputs.observed}
    for entity, found in places.items():
        for number, (*_, origin) in enumerate(sorted(found)):
            order[origin][entity] = (0, number)
    observed = {origin: Observed(order[origin], seen.features) for origin, seen in outputs.observed.items()}
    one_lane = setting.pipeline.model_copy(update={"lanes": 1})
    batches = [raw_batch(topic, records) for topic, records in inputs.items()]
    return check_parity(one_lane, setting.folder, batches, observed)
