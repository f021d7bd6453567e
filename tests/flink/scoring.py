"""A scoring job on the MiniCluster: its pipeline, its model, its topics, and everything it writes, by input record."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flink_jobs.bootstrap import bootstrap_from
from flink_jobs.bundle import ship
from flink_jobs.config import Environment
from flink_jobs.environment import flink_options, latency_knobs
from flink_jobs.score import assemble
from scripts.kafka.batches import raw_batch
from scripts.kafka.consume import Record, read_all
from scripts.kafka.topics import Topic, create
from scripts.services.endpoints import Endpoints
from tests.flink.cluster import Cluster
from tests.flink.models import write_model
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.writing import ARMS_FOLDER
from udfs.core.offline.parity import Observed, Origin, ParityReport, check_parity
from udfs.core.plan.features import plan_operators
from udfs.core.state.header import StateHeader

OUTPUT_WAIT_S = 180.0
Order = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Scoring:
    """One pipeline of a test, with topics, store keys and state of its own.

    Parameters
    ----------
    pipeline : the effective definition, topic prefix included
    folder, model : of the pipeline's files and of the champion, those of other arms in `arms/<arm>` within
    scratch : for what is shipped
    """

    cluster: Cluster
    environment: Environment
    pipeline: Pipeline
    folder: Path
    model: Path
    scratch: Path

    def start(self, parallelism: int = 1, savepoint: str | None = None, bootstrap: Path | None = None) -> str:
        """Submit the job and return its id; it starts from a savepoint, from a state snapshot or from nothing."""
        flink = self.environment.flink.model_copy(update={"parallelism": parallelism})
        environment = self.environment.model_copy(update={"flink": flink})
        knobs = latency_knobs(self.pipeline.latency, len(plan_operators(self.pipeline)))
        options = flink_options(self.pipeline, environment, knobs)
        if savepoint is not None:
            options["execution.state-recovery.path"] = savepoint
        execution = self.cluster.environment(options)
        shutil.rmtree(self.scratch, ignore_errors=True)
        header = StateHeader.of(self.pipeline, self.folder)
        start = bootstrap_from(str(bootstrap), header) if bootstrap else None
        arms = {folder.name: folder for folder in (self.model / ARMS_FOLDER).glob("*")}
        ship(execution, self.pipeline, self.folder, self.model, self.scratch, bootstrap, arms)
        assemble(execution, self.pipeline, environment, knobs, start)
        return str(execution.execute_async(environment.job_name(self.pipeline.name)).get_job_id())

    @property
    def kafka(self) -> str:
        return self.environment.kafka.bootstrap_servers

    def inputs(self) -> dict[str, list[Record]]:
        """Return the records of the source and of each enrichment topic."""
        topics = [self.pipeline.source.topic, *(enrichment.topic for enrichment in self.pipeline.enrichments)]
        return {topic: read_all(self.kafka, topic) for topic in topics}

    def outputs(self) -> "Outputs":
        """Return what is committed by now."""
        sinks = self.pipeline.sinks
        return Outputs(
            *(read_all(self.kafka, sink.topic) for sink in (sinks.predictions, sinks.rejects, sinks.late, sinks.order))
        )

    def await_outputs(self, records: int) -> "Outputs":
        """Wait until that many input records of all topics have come out somewhere."""
        deadline_s = time.monotonic() + OUTPUT_WAIT_S
        while len((outputs := self.outputs()).ends) < records:
            assert time.monotonic() < deadline_s, (
                f"{len(outputs.ends)} of {records} came out in {OUTPUT_WAIT_S:.0f} s; logs are in {self.cluster.folder}"
            )
            time.sleep(0.5)
        return outputs

    def parity(self, inputs: Mapping[str, list[Record]], outputs: "Outputs") -> ParityReport:
        """Recompute every prediction from the stamped sequences of its lanes."""
        batches = [raw_batch(topic, records) for topic, records in inputs.items()]
        return check_parity(self.pipeline, self.folder, batches, outputs.observed)


def scoring(
    cluster: Cluster,
    services: Endpoints,
    folder: Path,
    prefix: str,
    scratch: Path,
    *,
    partitions: int = 1,
    **changes: Any,
) -> Scoring:
    """Set up a pipeline folder for a test: model, environment and empty topics.

    Parameters
    ----------
    folder : with `pipeline.yaml`
    prefix : of its topics and store keys
    scratch : empty folder
    partitions : of the source topic
    changes : fields of the definition that are set otherwise
    """
    declared = load_pipeline(folder).model_copy(update=changes)
    pipeline = declared.with_topic_prefix(prefix)
    if pipeline.sinks.online_store is not None:
        store = pipeline.sinks.online_store.model_copy(update={"prefix": prefix.rstrip(".")})
        pipeline = pipeline.model_copy(update={"sinks": pipeline.sinks.model_copy(update={"online_store": store})})
    environment = Environment.model_validate(
        {
            "kafka": {"bootstrap_servers": services.kafka, "topic_prefix": prefix},
            "redis": {"url": services.redis},
            "mlflow": {"tracking_uri": "none: the model is given"},
            "flink": {
                "rest_url": "none: the cluster is given",
                "checkpoint_interval": "1s",
                "checkpoints": (scratch / "checkpoints").as_uri(),
                "savepoints": (scratch / "savepoints").as_uri(),
            },
        }
    )
    sinks = pipeline.sinks
    outputs = [sink.topic for sink in (sinks.predictions, sinks.rejects, sinks.late, sinks.order)]
    create(services.kafka, [Topic(pipeline.source.topic, partitions), *(Topic(name, configs={}) for name in outputs)])
    create(services.kafka, [Topic(enrichment.topic) for enrichment in pipeline.enrichments])
    return Scoring(
        cluster, environment, pipeline, folder, write_model(pipeline, folder, scratch / "model"), scratch / "shipped"
    )


@dataclass(frozen=True)
class Outputs:
    """The committed records of the four output topics."""

    predictions: list[Record]
    rejects: list[Record]
    late: list[Record]
    order: list[Record]

    @cached_property
    def predicted(self) -> dict[Origin, dict[str, Any]]:
        """The prediction of each input record."""
        values = [json.loads(record.value or b"") for record in self.predictions]
        return {_origin(value["origin"]): value for value in values}

    @cached_property
    def ends(self) -> Counter[Origin]:
        """How many times each input record ended in predictions, rejects or late, or an enrichment row was kept.

        A late enrichment row has its note of order, too, and counts once.
        """
        found = Counter(_origin(json.loads(record.value or b"")["origin"]) for record in self.predictions)
        kept = [origin_of(record) for record in self.order]
        late = [origin_of(record) for record in self.late]
        found.update(origin_of(record) for record in self.rejects)
        found.update(kept)
        found.update(origin for origin in late if origin not in set(kept))
        return found

    @cached_property
    def observed(self) -> dict[Origin, Observed]:
        """What the job said of each input record."""
        seen = {
            origin: Observed(_order(value["order"]), value.get("features")) for origin, value in self.predicted.items()
        }
        for record in (*self.rejects, *self.late, *self.order):
            seen[origin_of(record)] = Observed(_order(json.loads(header(record, "order"))), None)
        return seen

    def stamps(self) -> dict[tuple[str, int], list[int]]:
        """Per entity and lane, the sequence numbers of all input records that the stage saw, sorted."""
        found: dict[tuple[str, int], list[int]] = {}
        for seen in self.observed.values():
            for entity, (lane, seq) in seen.order.items():
                if entity.startswith("wait_"):
                    continue
                found.setdefault((entity, lane), []).append(seq)
        return {place: sorted(numbers) for place, numbers in found.items()}


def assert_each_once(inputs: Mapping[str, list[Record]], outputs: Outputs) -> None:
    """Every input record ended exactly once, and nothing else came out."""
    read = {Origin(topic, one.partition, one.offset) for topic, records in inputs.items() for one in records}
    assert {origin for origin in read if outputs.ends[origin] != 1} == set()
    assert set(outputs.ends) == read


def assert_gapless(outputs: Outputs) -> None:
    """In every lane of every stage the sequence numbers are 0, 1, 2, …, each once."""
    for place, numbers in outputs.stamps().items():
        assert numbers == list(range(len(numbers))), place


def assert_exact(setting: Scoring, least: int) -> Outputs:
    """Every record ended once, in a place of its own, and more than `least` predictions are those of an offline run."""
    inputs, outputs = setting.inputs(), setting.outputs()
    assert_each_once(inputs, outputs)
    assert_gapless(outputs)
    report = setting.parity(inputs, outputs)
    assert report.rows == len(outputs.predictions) > least
    assert (report.mismatches, report.missing, report.gaps, report.examples) == (0, 0, 0, [])
    return outputs


def header(record: Record, name: str) -> str:
    """Return one of the headers of a letter."""
    return dict(record.headers)[f"headrace.{name}"].decode()


def origin_of(letter: Record) -> Origin:
    """Return where the record of a letter stood."""
    return Origin(header(letter, "topic"), int(header(letter, "partition")), int(header(letter, "offset")))


def _origin(evidence: dict[str, Any]) -> Origin:
    return Origin(evidence["topic"], evidence["partition"], evidence["offset"])


def _order(stamps: dict[str, list[int]]) -> Order:
    return {entity: (lane, seq) for entity, (lane, seq) in stamps.items()}
