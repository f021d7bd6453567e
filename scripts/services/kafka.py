"""Kafka: one KRaft node that is broker and controller, and that keeps every record whatever its timestamp."""

import base64
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from scripts.services import probe
from scripts.services.errors import ServiceError
from scripts.services.home import JARS, Home
from scripts.services.ports import LOOPBACK
from scripts.services.processes import Command

_LONG_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Kafka:
    """One Kafka broker."""

    home: Home
    port: int
    controller_port: int

    name: ClassVar[str] = "kafka"
    ready_timeout_s: ClassVar[float] = 90.0
    grace_s: ClassVar[float] = 20.0

    @property
    def ports(self) -> tuple[int, ...]:
        """Ports that must be free before the start."""
        return (self.port, self.controller_port)

    @property
    def _folder(self) -> Path:
        return self.home.data / self.name

    @property
    def _settings_file(self) -> Path:
        return self.home.conf / "kafka.properties"

    def check(self) -> None:
        """Raise when Java or the broker's jars are missing."""
        probe.java()
        probe.require_jars(JARS / self.name)

    def prepare(self) -> None:
        """Write the settings, and format the data folder once."""
        self._settings_file.write_text("".join(f"{key}={value}\n" for key, value in self.settings().items()))
        if (self._folder / "meta.properties").exists():
            return
        # A leading '-' would read as an option; the first bits of a cluster id mean nothing.
        cluster_id = "H" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        tool = ("kafka.tools.StorageTool", "format", "--standalone", "-t", cluster_id, "-c", str(self._settings_file))
        done = subprocess.run(self._java(*tool, heap_mb=256), capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            said = done.stderr.strip()[-800:]
            msg = f"kafka: formatting {self._folder} failed with exit code {done.returncode}; Kafka said: {said}"
            raise ServiceError(msg)

    def commands(self) -> tuple[Command, ...]:
        """Return the programs to run."""
        return (Command(self.name, self._java("kafka.Kafka", str(self._settings_file), heap_mb=768)),)

    def waiting_for(self) -> str | None:
        """Return what is still missing, or None when the broker answers."""
        # The client logs every refused connection, so it is asked only once something listens.
        if not probe.listens(self.port):
            return f"a broker on port {self.port}"
        try:
            client = KafkaAdminClient(bootstrap_servers=f"{LOOPBACK}:{self.port}", request_timeout_ms=5_000)
            try:
                client.list_topics()
            finally:
                client.close()
        except KafkaError as error:
            return f"a list of topics on port {self.port} ({type(error).__name__})"
        return None

    def settings(self) -> dict[str, str | int]:
        """Return the broker's settings by their Kafka names."""
        broker, controller = f"{LOOPBACK}:{self.port}", f"{LOOPBACK}:{self.controller_port}"
        listeners = f"PLAINTEXT://{broker},CONTROLLER://{controller}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": controller,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listeners": listeners,
            "advertised.listeners": listeners,
            "log.dirs": str(self._folder),
            "auto.create.topics.enable": "false",
            # Replayed events carry times of years ago, or ahead of now: neither refused nor expired.
            "log.retention.hours": -1,
            "log.retention.bytes": -1,
            "log.message.timestamp.before.max.ms": _LONG_MAX,
            "log.message.timestamp.after.max.ms": _LONG_MAX,
            # One node: every internal topic has one replica, and few partitions so that the first use is quick.
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
            "log.cleaner.dedupe.buffer.size": 32 * 1024 * 1024,  # the default takes a sixth of this heap
        }

    def _java(self, *arguments: str, heap_mb: int) -> tuple[str, ...]:
        log = "-Dorg.slf4j.simpleLogger"
        options = (f"-Xmx{heap_mb}m", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")
        clock = (
            f"{log}.showDateTime=true",
            f"{log}.dateTimeFormat=yyyy-MM-dd HH:mm:ss,SSS",
            f"{log}.showThreadName=false",
        )
        return (probe.java(), *options, *clock, "-cp", str(JARS / self.name / "*"), *arguments)
