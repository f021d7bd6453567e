"""The Kafka source: connector options of a topic that is read as raw bytes, and its timestamps."""

from collections.abc import Mapping

from flink_jobs.config import Environment
from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import plan_stages


def source_options(
    topic: str,
    pipeline: Pipeline,
    environment: Environment,
    *,
    align: bool = False,
    offsets: Mapping[int, int] | None = None,
) -> dict[str, str]:
    """Return the connector options of the source table of one topic.

    Parameters
    ----------
    align : with those of `alignment`
    offsets : partition -> first offset, for a job that starts from a state snapshot; default: as the environment says
    """
    kafka = environment.kafka
    start = {"scan.startup.mode": kafka.start}
    if offsets:
        parts = ";".join(f"partition:{partition},offset:{offset}" for partition, offset in sorted(offsets.items()))
        start = {"scan.startup.mode": "specific-offsets", "scan.startup.specific-offsets": parts}
    options = {
        "connector": "kafka",
        "topic": topic,
        "properties.bootstrap.servers": kafka.bootstrap_servers,
        "properties.group.id": environment.job_name(pipeline.name),
        "properties.isolation.level": "read_committed",
        **start,
        "key.format": "raw",
        "key.fields": "k",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }
    aligned = alignment(pipeline) if align else {}
    return options | aligned | {f"properties.{name}": value for name, value in kafka.properties.items()}


def alignment(pipeline: Pipeline) -> dict[str, str]:
    """Return the options that keep the partitions of all topics of a job together while it reads a backlog.

    Each partition has its events in order, but a stage behind the first, or a join, sees several at once: read at
    different paces, the slower ones would all be late there. So the faster ones are paused; one that has nothing to
    read holds nobody up. It takes effect a fraction of a second late, and behind what is fetched already: that must be
    little of the skew.
    """
    if pipeline.time.drift_ms == 0 or (len(plan_stages(pipeline)) == 1 and not pipeline.enrichments):
        return {}
    return {
        "scan.watermark.alignment.group": "headrace",
        "scan.watermark.alignment.max-drift": f"{pipeline.time.drift_ms} ms",
        # Three of these pass before a partition is paused: `pipeline.watermark-alignment.buffer-size` of the cluster.
        "scan.watermark.alignment.update-interval": "20 ms",
        "scan.watermark.emit.strategy": "on-event",
        # Until an empty partition is idle there is no alignment at all, and the clock of idleness stands still while
        # the source is held back: on a busy machine 100 ms of it were seconds.
        "scan.watermark.idle-timeout": "10 ms",
        # What was fetched of a partition is read in one go; Kafka's default is 1 MiB.
        "properties.max.partition.fetch.bytes": "65536",
    }


def watermark(topic: str, pipeline: Pipeline) -> str:
    """Return the SQL, behind the columns of a table, that says what `alignment` goes by; nothing without it."""
    if not alignment(pipeline):
        return ""
    # A time from the future must not hold its partition until then.
    if pipeline.time.partition_clock == "kafka":
        return ", WATERMARK FOR ts AS LEAST(ts, CURRENT_TIMESTAMP)"
    times = {pipeline.source.topic: pipeline.contract.time} | {
        enrichment.topic: enrichment.contract.time for enrichment in pipeline.enrichments
    }
    # What is no event has no time, and no say.
    value = f"TRY_CAST(JSON_VALUE(CAST(v AS STRING), '$.{times[topic]}') AS BIGINT)"
    return f", et AS TO_TIMESTAMP_LTZ({value}, 3), WATERMARK FOR et AS LEAST(et, CURRENT_TIMESTAMP)"


def epoch_ms(timestamp: str) -> str:
    """Return epoch milliseconds of a TIMESTAMP_LTZ(3), both as SQL; Flink refuses to cast one to a number."""
    # TIMESTAMPDIFF gives an int, which seconds leave in 2038: whole hours first, then the seconds within the hour.
    hours = f"CAST(TIMESTAMPDIFF(HOUR, TO_TIMESTAMP_LTZ(0, 3), {timestamp}) AS BIGINT)"
    seconds = f"{hours} * 3600 + TIMESTAMPDIFF(SECOND, TO_TIMESTAMP_LTZ({hours} * 3600, 0), {timestamp})"
    return f"({seconds}) * 1000 + EXTRACT(MILLISECOND FROM {timestamp})"
