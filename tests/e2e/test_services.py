"""The four services for real, in a home of their own: each is used once, then nothing of them is left."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from redis import Redis

from scripts.services import proc, services
from scripts.services.endpoints import Endpoints

pytestmark = pytest.mark.timeout(420)

LONG_AGO_MS = 1_356_998_400_000  # 2013-01-01, when the flights of the demo departed


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("services")
    yield place
    services.down(place)


@pytest.fixture(scope="module")
def own(home: Path) -> Endpoints:
    return services.up(home)


def get(url: str) -> bytes:
    body: bytes = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10).read()
    return body


def overview(own: Endpoints) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(get(f"{own.flink}/overview"))
    return content


def taskmanagers(own: Endpoints) -> set[str]:
    return {found["id"] for found in json.loads(get(f"{own.flink}/taskmanagers"))["taskmanagers"]}


def pids(home: Path) -> set[int]:
    return {pid for service in services.status(home) for pid in service.pids}


def mentions(home: Path) -> list[str]:
    """Command lines of all live processes that name the home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(home) in line and proc.find(int(entry.name)):
            found.append(line)
    return found


def test_kafka_keeps_a_record_of_long_ago(own: Endpoints) -> None:
    admin = KafkaAdminClient(bootstrap_servers=own.kafka)
    admin.create_topics([NewTopic("t", num_partitions=1, replication_factor=1)])
    producer = KafkaProducer(bootstrap_servers=own.kafka)
    producer.send("t", key=b"k", value=b"v", timestamp_ms=LONG_AGO_MS).get(timeout=30)
    producer.close()
    consumer = KafkaConsumer(
        "t", bootstrap_servers=own.kafka, auto_offset_reset="earliest", group_id="g", consumer_timeout_ms=30_000
    )
    record = next(consumer)
    consumer.close()
    admin.close()
    assert (record.key, record.value, record.timestamp) == (b"k", b"v", LONG_AGO_MS)


def test_redis_answers_and_writes_its_log(own: Endpoints) -> None:
    client = Redis.from_url(own.redis)
    assert client.ping()
    assert client.config_get("appendonly") == {"appendonly": "yes"}
    client.close()


def test_mlflow_is_healthy(own: Endpoints) -> None:
    assert get(f"{own.mlflow}/health") == b"OK"
    assert get(f"{own.mlflow}/version") == b"3.17.2"


def test_flink_offers_its_slots(own: Endpoints) -> None:
    assert overview(own)["slots-available"] == 4


def test_clients_find_settings_and_jars_where_the_endpoints_say(own: Endpoints) -> None:
    assert "--add-opens=java.base/java.lang" in (Path(own.flink_conf_dir) / "config.yaml").read_text()
    jars = {jar.name.partition("-2.")[0] for jar in Path(own.flink_lib_dir).glob("*.jar")}
    assert {"flink-dist", "flink-python"} <= jars


def test_a_taskmanager_that_dies_is_started_again(home: Path, own: Endpoints) -> None:
    before = taskmanagers(own)
    [supervisor] = [service.pids[1] for service in services.status(home) if service.name == "flink"]
    for member in proc.session_members(supervisor):
        if member.pid != supervisor:
            os.kill(member.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 90
    # The dead one stays listed until it misses its heartbeats.
    while len(taskmanagers(own)) != 1 or taskmanagers(own) == before or overview(own)["slots-available"] != 4:
        assert time.monotonic() < deadline_s, taskmanagers(own)
        time.sleep(0.2)
    assert "ended with exit code 137; it starts again" in (home / "logs" / "taskmanager.log").read_text()


def test_a_second_up_changes_nothing(home: Path, own: Endpoints) -> None:
    before = pids(home)
    assert services.up(home) == own
    assert pids(home) == before
    assert services.endpoints(home) == own


def test_data_outlives_a_restart_and_down_leaves_no_process(home: Path, own: Endpoints) -> None:
    Redis.from_url(own.redis).set("kept", "yes")
    sessions = pids(home)
    services.down(home)
    assert [proc.session_members(session) for session in sessions] == [[] for _ in sessions]
    assert mentions(home) == []
    assert {service.state for service in services.status(home)} == {"down"}

    services.up(home, ["kafka", "redis"])
    assert Redis.from_url(own.redis).get("kept") == b"yes"
    admin = KafkaAdminClient(bootstrap_servers=own.kafka)
    assert "t" in admin.list_topics()
    admin.close()
    services.down(home)
    assert mentions(home) == []
