"""Compare what a job logged with a backfill of what it read: Kafka or files in, a report out."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flink_jobs.config import Environment
from flink_jobs.kafka_records import KafkaRecords
from flink_jobs.logged import read_archive, read_topics
from models.history import History
from models.inputs import InputError, Records, find_files
from udfs.core.declare.definition import Pipeline
from udfs.core.offline.follow import Follower
from udfs.core.offline.parity import ParityReport, check_parity
from udfs.core.plan.features import feature_set_hash
from udfs.core.rows.batches import RawBatch


@dataclass(frozen=True, slots=True)
class Compared:
    """A report, and what was not compared."""

    report: ParityReport
    #: predictions of other feature sets
    others: int

    @property
    def is_equal(self) -> bool:
        """Something was compared, and nothing differs."""
        return self.report.rows > 0 and self.report.mismatches == 0

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers as plain data."""
        report = self.report
        return {
            "rows": report.rows,
            "mismatches": report.mismatches,
            "missing": report.missing,
            "gaps": report.gaps,
            "other_feature_sets": self.others,
            "features": {name: {"rows": one.rows, **asdict(one)} for name, one in report.features.items()},
            "examples": report.examples,
        }


def compare_logged(
    pipeline: Pipeline, folder: Path, environment: Environment, history: Path | None, *, archive: bool
) -> Compared:
    """Read what a job read and logged, and compare.

    Parameters
    ----------
    pipeline, folder : the definition, without topic prefix, and the folder its files are relative to
    environment : where the topics are
    history : what the job read, see `models.history`; None: its topics
    archive : read what it logged from the archive of the environment, not from its topics

    Raises
    ------
    HeadraceError : topics, history or archive cannot be read, or the archive is not configured.
    """
    kafka, feature_set = environment.kafka, feature_set_hash(pipeline, folder)
    # The outputs first: whatever they speak of stands in the inputs by then.
    if not archive:
        read = read_topics(pipeline, kafka, feature_set)
    elif environment.archive is None:
        msg = "--archive: the environment file has no archive.root; say where the archive job writes"
        raise InputError(msg)
    else:
        read = read_archive(pipeline, environment.archive.root, kafka.topic_prefix, feature_set)
    topics = [*(one.topic for one in pipeline.enrichments), pipeline.source.topic]
    records: Records = KafkaRecords(kafka, topics) if history is None else History(find_files(history), topics)
    return Compared(check_parity(pipeline, folder, _raw(records), read.logged), read.others)


def of_follower(follower: Follower) -> Compared:
    """Return what a follower found as a report; a row counts in every stage that it differs in."""
    rows = max(one.rows for one in follower.features.values())
    report = ParityReport(rows, follower.mismatches, features=follower.features, examples=follower.examples)
    return Compared(report, follower.others)


def _raw(records: Records) -> Iterator[RawBatch]:
    for chunk in records:
        for part in chunk:
            assert isinstance(part.batch, RawBatch)  # noqa: S101  as topics and histories hold them
            yield part.batch
