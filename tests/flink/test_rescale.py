"""Rescaling 1 -> 2 -> 4 -> 1 by savepoints, with most keys paged out of memory: no bit of an output tells."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from flink_jobs.state_export import export
from scripts.flights.replay import replay
from scripts.flights.stream import merge
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.flights import PATIENT, departures, flights_folder, weather
from tests.flink.scoring import Outputs, Scoring, assert_exact, scoring
from udfs.core.cells.segments import Segment
from udfs.core.offline.parity import Origin
from udfs.core.plan.features import plan_stages
from udfs.core.stage.held import is_entry
from udfs.core.state.header import log_name
from udfs.core.state.snapshot import SnapshotReader

PARALLELISM = (1, 2, 4, 1)
LANE_MEMORY_MB = 0.001
"""A thousand bytes: three or four keys."""


def test_a_job_is_rescaled_1_2_4_1_and_its_state_exported_with_what_is_paged_out(
    cluster: Cluster, services: Endpoints, prefix: str, tmp_path: Path
) -> None:
    roomy = scoring(
        cluster, services, flights_folder(tmp_path / "flights"), prefix, tmp_path, partitions=2, lanes=4, time=PATIENT
    )
    flink = roomy.environment.flink.model_copy(update={"lane_memory_mb": LANE_MEMORY_MB})
    setting = replace(roomy, environment=roomy.environment.model_copy(update={"flink": flink}))
    sent = merge(weather(prefix), departures(prefix, each=1)[0])
    parts = np.array_split(np.arange(len(sent)), len(PARALLELISM))
    savepoint, out = None, 0
    for parallelism, part in zip(PARALLELISM, parts, strict=True):
        job = setting.start(parallelism=parallelism, savepoint=savepoint)
        replay(sent.take(part), setting.kafka, as_fast_as_possible=True)
        out += part.size
        setting.await_outputs(out)
        cluster.await_gauge(job, "paged_keys", least=len(PARALLELISM))
        assert cluster.failures(job) == []
        savepoint = cluster.stop(job)

    outputs = assert_exact(setting, least=1_000)
    assert savepoint is not None
    export(cluster.environment({}), savepoint, tmp_path / "exported")
    held, seen = exported_keys(tmp_path / "exported", setting), scored_keys(setting, outputs)
    assert seen.keys() == held.keys()
    assert [entity for entity, keys in seen.items() if not keys <= held[entity]] == []


def exported_keys(folder: Path, setting: Scoring) -> dict[str, set[str]]:
    """Return the keys per entity that a state snapshot holds windows of."""
    reader, found = SnapshotReader(str(folder)), dict[str, set[str]]()
    for stage in plan_stages(setting.pipeline):
        keys = found.setdefault(stage.entity, set())
        for lane in range(setting.pipeline.lanes):
            logs = reader.segments(log_name(stage.entity), lane)
            segments = [Segment.decode(data) for data in logs if not is_entry(data)]
            keys.update(key for segment in segments if segment.store == 0 for key in segment.keys)
    return found


def scored_keys(setting: Scoring, outputs: Outputs) -> dict[str, set[str]]:
    """Return the keys per entity of the events that were scored."""
    topic, found = setting.pipeline.source.topic, dict[str, set[str]]()
    for record in setting.inputs()[topic]:
        if Origin(topic, record.partition, record.offset) in outputs.predicted:
            row = json.loads(record.value or b"")
            for stage in plan_stages(setting.pipeline):
                if row[stage.entity] is not None:
                    found.setdefault(stage.entity, set()).add(row[stage.entity])
    return found
