"""The archive job on the real services: its Parquet rows are the committed records of the topics, each once.

While records flow the TaskManager is killed; then the job is stopped with a savepoint, and goes on from there.
"""

import datetime as dt
import json
import os
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner

from flink_jobs.cli import app
from flink_jobs.launch import topics_of
from flink_jobs.rest import FlinkRest
from scripts.kafka.consume import Record, read_all
from scripts.kafka.topics import Topic, create, delete
from scripts.services import proc
from scripts.services import services as local
from scripts.services.endpoints import Endpoints
from tests import synthetic
from tests.e2e import archive_records as records
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.offline.archive import KINDS, ArchiveError, ArchiveKind, archive_folder, archived_topics, open_archive

pytestmark = pytest.mark.timeout(600)

ENVIRONMENT = """
kafka: {bootstrap_servers: "${services:kafka}", topic_prefix: "PREFIX"}
mlflow: {tracking_uri: "${services:mlflow}"}
flink:
  rest_url: "${services:flink}"
  checkpoints: "${services:checkpoints}"
  savepoints: "${services:savepoints}"
archive: {root: "ROOT", checkpoint_interval: 1s, parallelism: 2}
"""
KEPT = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
COUNT, PIECES, WAIT_S = 400, 4, 180.0


@dataclass(frozen=True)
class Setting:
    """A pipeline with topics and an archive of its own."""

    services: Endpoints
    home: Path
    folder: Path
    prefix: str

    @property
    def root(self) -> str:
        return (self.folder / "archive").as_uri()

    @property
    def pipeline(self) -> Pipeline:
        return load_pipeline(self.folder)

    @property
    def topics(self) -> dict[ArchiveKind, str]:
        return archived_topics(self.pipeline.with_topic_prefix(self.prefix))

    def headrace(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--environment", str(self.folder / "environment.yaml")])
        assert done.exit_code == 0, done.output
        return done.stdout

    def send(self, part: int, pause_s: float = 0.0) -> None:
        """Send a part of the records of every kind in several transactions, each behind one that is aborted."""
        producer = KafkaProducer(bootstrap_servers=self.services.kafka, transactional_id=f"{self.prefix}{part}")
        producer.init_transactions()
        sent = {kind: records.of_kind(self.pipeline, kind, part * COUNT, COUNT) for kind in KINDS}
        for piece in range(PIECES):
            for finish in (producer.abort_transaction, producer.commit_transaction):
                producer.begin_transaction()
                for kind, topic in self.topics.items():
                    for i, (key, value, headers) in enumerate(sent[kind][piece::PIECES]):
                        time_ms = synthetic.START_MS + part * records.DAY_MS + i
                        producer.send(topic, value, key, headers=list(headers.items()), timestamp_ms=time_ms)
                producer.flush()
                finish()
            time.sleep(pause_s)
        producer.close()

    def committed(self, kind: ArchiveKind) -> list[Record]:
        return read_all(self.services.kafka, self.topics[kind])

    def archived(self, kind: ArchiveKind) -> pa.Table:
        return open_archive(self.root, self.pipeline, kind).to_table()

    def await_rows(self) -> None:
        """Wait until there are as many rows as committed records; all of them, if each came once."""
        wanted = {kind: len(self.committed(kind)) for kind in KINDS}
        until(lambda: self.counts() == wanted, lambda: f"got {self.counts()}; want {wanted}")

    def counts(self) -> dict[ArchiveKind, int]:
        try:
            return {kind: open_archive(self.root, self.pipeline, kind).count_rows() for kind in KINDS}
        except ArchiveError:  # there is no file yet
            return {}

    def expected(self, kind: ArchiveKind, parts: int) -> list[dict[str, object]]:
        if kind == "labels":
            return [records.label_row(record) for record in self.committed(kind)]
        if kind != "predictions":
            return [records.letter_row(record) for record in self.committed(kind)]
        good = [records.predictions(self.pipeline, part * COUNT, COUNT)[0] for part in range(parts)]
        broken = {(key, value): what for one in good for what, (key, value, _) in records.spoilt(one).items()}
        found = self.committed(kind)
        return [records.prediction_row(self.pipeline, one, broken.get((one.key, one.value), "")) for one in found]


def until(holds: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, what()
        time.sleep(0.5)


def kill_task_manager(home: Path) -> None:
    """End it as a machine that is lost; its supervisor starts another one."""
    [supervisor] = [one.pids[1] for one in local.status(home) if one.name == "flink"]
    for member in proc.session_members(supervisor):
        if member.pid != supervisor:
            os.kill(member.pid, signal.SIGKILL)


def over_a_lost_task_manager_and_a_savepoint(setting: Setting) -> None:
    """Archive three parts of the records: one in peace, one while a TaskManager is lost, one across a savepoint."""
    job, rest = f"headrace-{setting.prefix}shop-archive", FlinkRest(setting.services.flink)
    setting.headrace("run", "archive", "--pipeline", str(setting.folder))
    first = rest.find(job).job_id
    setting.send(0)
    setting.await_rows()

    sending = threading.Thread(target=setting.send, args=(1, 2.0))
    sending.start()
    time.sleep(3)
    kill_task_manager(setting.home)
    sending.join()
    until(lambda: rest.health(first).restarts > 0, lambda: "the job never restarted")
    setting.await_rows()

    sending = threading.Thread(target=setting.send, args=(2, 1.0))
    sending.start()
    time.sleep(2)
    savepoint = setting.headrace("stop", job).strip()
    sending.join()
    before = setting.counts()
    setting.headrace("run", "archive", "--pipeline", str(setting.folder), "--from", savepoint)
    assert rest.find(job).job_id != first
    setting.await_rows()
    assert setting.counts()["predictions"] > before["predictions"], "nothing was left to do behind the savepoint"
    time.sleep(3)  # a row that comes twice comes late


@pytest.fixture(scope="module")
def archive(services: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """Return an archive whose job has been through a lot; job, topics and files are gone afterwards."""
    home, folder = Path(services.flink_conf_dir).parents[1], tmp_path_factory.mktemp("archive") / "shop"
    made = Setting(services, home, synthetic.write_pipeline(folder), f"test-archive-{time.time_ns()}.")
    text = ENVIRONMENT.replace("PREFIX", made.prefix).replace("ROOT", made.root)
    (made.folder / "environment.yaml").write_text(text)
    create(services.kafka, [Topic(name, 3, KEPT) for name in made.topics.values()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(home))
        try:
            over_a_lost_task_manager_and_a_savepoint(made)
            yield made
        finally:
            rest = FlinkRest(services.flink)
            for job in rest.jobs():
                if made.prefix in job.name and not job.ended:
                    rest.cancel(job.job_id)
            delete(services.kafka, topics_of(made.pipeline.with_topic_prefix(made.prefix)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_are_the_committed_records_each_once(archive: Setting, kind: ArchiveKind) -> None:
    found = [records.plain(row) for row in archive.archived(kind).to_pylist()]
    assert len(found) > 3 * COUNT
    assert Counter(records.bits(found)) == Counter(records.bits(archive.expected(kind, 3)))


def test_another_tool_reads_the_files_as_they_are(archive: Setting) -> None:
    files = archive_folder(archive.root, "shop", "predictions").removeprefix("file://") + "/*/part-*"
    query = f"""
        SELECT count(*), count(user_amount_mean_1h), min(typeof(day)), count(*) FILTER (value IS NULL)
        FROM read_parquet('{files}', hive_partitioning = true) WHERE day >= DATE '2023-11-15'"""
    table = archive.archived("predictions").filter(pc.field("day") >= dt.date(2023, 11, 15))
    means, values = table["user_amount_mean_1h"], table["value"]
    counted = (table.num_rows, table.num_rows - means.null_count, "DATE", values.null_count)
    with duckdb.connect() as connection:
        assert connection.execute(query).fetchall() == [counted]
    assert 2 * COUNT < counted[1] < counted[0]


def test_no_part_of_the_job_is_python(archive: Setting) -> None:
    job = FlinkRest(archive.services.flink).find(f"headrace-{archive.prefix}shop-archive")
    with urllib.request.urlopen(f"{archive.services.flink}/jobs/{job.job_id}") as answer:
        vertices = [vertex["name"] for vertex in json.load(answer)["vertices"]]
    assert len(vertices) >= len(KINDS)
    assert not [name for name in vertices if "python" in name.lower()]


def test_a_start_that_would_write_every_row_again_is_refused(archive: Setting) -> None:
    arguments = ["run", "archive", "--pipeline", str(archive.folder), "--environment"]
    archive.headrace("stop", f"headrace-{archive.prefix}shop-archive")
    done = CliRunner().invoke(app, [*arguments, str(archive.folder / "environment.yaml")])
    assert done.exit_code == 1
    assert f"{archive.root}/shop: holds rows already" in done.stderr
