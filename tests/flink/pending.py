"""Stopping a job while records wait in its micro-batches."""

import time

from scripts.flights.replay import replay
from scripts.flights.stream import Events
from tests.flink.scoring import Scoring

LINGER_MS = 5_000
"""Long enough to stop a job while records wait."""


def stop_with_pending(setting: Scoring, job: str, read_before: int, more: Events) -> str:
    """Send records and stop the job while they wait in micro-batches; return the savepoint.

    Parameters
    ----------
    read_before : departures that the job has read since it started
    """
    time.sleep((LINGER_MS - time.time() * 1000 % LINGER_MS) / 1000)  # windows of processing time start at the epoch
    replay(more, setting.kafka, as_fast_as_possible=True)
    while setting.cluster.records_read(job, "events") < read_before + departing(setting, more):
        time.sleep(0.05)
    savepoint = setting.cluster.stop(job)
    out = setting.outputs().ends
    sent = sum(len(records) for records in setting.inputs().values())
    assert len(out) < sent, "every record had come out already: the savepoint held none"
    return savepoint


def departing(setting: Scoring, some: Events) -> int:
    return sum(topic == setting.pipeline.source.topic for topic in some.topics)
