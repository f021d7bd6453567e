"""The Kafka source: connector options of a topic that is read as raw bytes."""

from flink_jobs.config import Environment
from udfs.core.definition import Pipeline


def source_options(topic: str, pipeline: Pipeline, environment: Environment) -> dict[str, str]:
    """Return the connector options of the source table of one topic."""
    kafka = environment.kafka
    return {
        "connector": "kafka",
        "topic": topic,
        "properties.bootstrap.servers": kafka.bootstrap_servers,
        "properties.group.id": environment.job_name(pipeline.name),
        "properties.isolation.level": "read_committed",
        "scan.startup.mode": kafka.start,
        "key.format": "raw",
        "key.fields": "k",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    } | {f"properties.{name}": value for name, value in kafka.properties.items()}
