"""`headrace deploy`: a promotion replaces the model of a running job; nothing is lost, doubled or left unsaid."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner

from flink_jobs.deploy.attempts import Attempt, Step
from flink_jobs.deploy.cluster import Cluster
from flink_jobs.deploy.commands import app as commands
from flink_jobs.deploy.controller import Controller
from flink_jobs.deploy.target import Target
from flink_jobs.deploy.watch import look
from flink_jobs.launch import topics_of
from flink_jobs.rest import FlinkRest
from models.lifecycle import train_and_register
from models.promotion import set_alias
from models.tracking import connect
from scripts.kafka.consume import Record, read_all, read_until
from scripts.kafka.topics import Topic, create, delete
from scripts.services.endpoints import Endpoints
from tests import synthetic
from tests.e2e.test_launch import ENVIRONMENT, TEST_UNTIL, TRAIN_UNTIL
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.files import ONNX_FILE, sha256

DEPLOY = """
deploy: {folder: ledgers, cooldown: 1ms, poll_interval: 200ms, healthy_within: 60s}
"""
ROOT = Path(__file__).parents[2]
RATE_PER_S = 200


class Traffic:
    """Sends orders until it is stopped; knows their ids."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.ids: list[str] = []
        self._stop, self._bootstrap, self._topic = threading.Event(), bootstrap, topic
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def _run(self) -> None:
        producer = KafkaProducer(bootstrap_servers=self._bootstrap, acks="all")
        while not self._stop.is_set():
            for _ in range(RATE_PER_S // 20):
                number = len(self.ids)
                order_id, user = f"n{number}", f"u{number % 6}"
                order = {"order_id": order_id, "at_ms": synthetic.START_MS + number * 1000, "user": user}
                value = json.dumps({**order, "amount": 20.0 + number % 7, "discount": None})
                producer.send(self._topic, key=user.encode(), value=value.encode())
                self.ids.append(order_id)
            self._stop.wait(0.05)
        producer.flush()
        producer.close()


class Shop:
    """A pipeline with two model versions, whose alias points at the first."""

    def __init__(self, services: Endpoints, folder: Path, prefix: str) -> None:
        self.services, self.folder, self.prefix = services, folder, prefix
        self.name, self.environment = prefix.rstrip("."), folder / "environment.yaml"
        self.traffic = Traffic(services.kafka, f"{prefix}orders")
        self.versions = [self.train(), self.train()]
        self.promote(self.versions[0])

    def controller(self, report: Callable[[str], None] = print) -> Controller:
        return Controller(Target(self.folder, self.environment), report)

    def deploy(self, command: str, *arguments: str) -> str:
        """Call `headrace deploy`."""
        common = ("--pipeline", str(self.folder), "--environment", str(self.environment))
        done = CliRunner().invoke(commands, [command, *common, *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def promote(self, version: str) -> None:
        set_alias(self.name, version, "champion", self.services.mlflow)

    def running(self) -> str:
        [job] = self.live()
        return str(Cluster(self.services.flink).version(job))

    def other(self) -> str:
        """The one of the two good versions that does not run."""
        return next(version for version in self.versions if version != self.running())

    def live(self) -> list[str]:
        jobs = FlinkRest(self.services.flink).jobs()
        return [job.job_id for job in jobs if self.prefix in job.name and not job.ended]

    def predictions(self) -> list[Record]:
        return read_all(self.services.kafka, f"{self.prefix}p")

    def assert_answered(self) -> list[Record]:
        """Every order sent so far has one committed prediction."""
        sent = list(self.traffic.ids)

        def are_there(read: Sequence[Record]) -> bool:
            return len(read) >= len(sent) and {_id(one) for one in read} >= set(sent)

        found = read_until(self.services.kafka, f"{self.prefix}p", are_there, timeout_s=120)
        ids = [_id(one) for one in found]
        assert len(ids) == len(set(ids)), "an order was answered twice"
        return found

    def assert_runs_only(self, version: str) -> None:
        """One job runs, it is of that version, and so is the newest of its answers; nothing is lost or doubled."""
        assert (len(self.live()), self.running()) == (1, version)
        found = self.assert_answered()
        assert _version(max(found, key=lambda one: one.offset)) == version

    def train(self) -> str:
        """Register one more version."""
        records = self.folder / "history.parquet"
        return train_and_register(
            self.folder, records, TRAIN_UNTIL, TEST_UNTIL, self.services.mlflow, None, synthetic.QUICK
        ).registered.version


@pytest.fixture(scope="module")
def shop(services: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A pipeline that runs its first version under traffic; its jobs, topics and model are gone afterwards."""
    prefix = f"test-deploy-{time.time_ns()}."
    place = synthetic.write_pipeline(tmp_path_factory.mktemp("deploy") / "shop")
    file = place / "pipeline.yaml"
    file.write_text(file.read_text().replace("shop-refund", prefix.rstrip(".")))
    (place / "environment.yaml").write_text(ENVIRONMENT.replace("PREFIX", prefix) + DEPLOY)
    synthetic.write_orders(place / "history.parquet")
    topics = topics_of(load_pipeline(place).with_topic_prefix(prefix))
    create(services.kafka, [Topic(topic) for topic in topics])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HEADRACE_HOME", str(Path(services.flink_conf_dir).parents[1]))
        made = Shop(services, place, prefix)
        try:
            with (one := made.controller()).alone():
                assert result_of(one.deploy(made.versions[0], "the first one")) == "deployed"
            made.traffic.start()
            yield made
        finally:
            made.traffic.stop()
            rest = FlinkRest(services.flink)
            for job in rest.jobs():
                if prefix in job.name and not job.ended:
                    rest.cancel(job.job_id)
            delete(services.kafka, topics)
            with connect(services.mlflow) as client:
                client.delete_registered_model(prefix.rstrip("."))


@pytest.mark.timeout(600)
def test_a_promotion_replaces_the_model_and_every_order_is_answered_once(shop: Shop) -> None:
    version = shop.other()
    shop.promote(version)
    with (one := shop.controller()).alone():
        assert result_of(look(one)) == "deployed"
        assert look(one) == "it runs"
    assert [step for line in one.ledger.verify() if (step := line.fields.get("step")) and line.event == "intent"][
        -5:
    ] == ["check", "prepare", "stop", "start", "watch"]
    shop.assert_runs_only(version)


@pytest.mark.timeout(600)
def test_a_model_whose_file_was_changed_is_refused_and_the_job_never_stops(shop: Shop) -> None:
    [job], bad = shop.live(), shop.train()
    file = _registered_file(shop, bad)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    shop.promote(bad)
    with (one := shop.controller()).alone():
        attempt = look(one)
        assert result_of(attempt) == "refused"
        assert isinstance(attempt, Attempt)
        assert attempt.results["check"]["refusal"] == "digest"
        assert "only a person" in str(look(one))
    assert shop.live() == [job]
    assert FlinkRest(shop.services.flink).health(job).restarts == 0
    shop.assert_answered()
    assert bad not in {_version(record) for record in shop.predictions()}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("checkpoints", [0, 1])
def test_a_new_job_that_dies_is_rolled_back_to_where_it_committed(shop: Shop, checkpoints: int) -> None:
    version, cluster = shop.running(), Cluster(shop.services.flink)

    def kill_the_new_job(said: str) -> None:
        if said.startswith("start "):
            [job] = shop.live()
            while cluster.progress(job).completed < checkpoints:
                time.sleep(0.1)
            cluster.cancel(job)

    with (one := shop.controller(kill_the_new_job)).alone():
        attempt = one.deploy(shop.other(), "forced")
    assert result_of(attempt) == "rolled_back"
    halted, committed = attempt.results["halt"], cluster.progress(attempt.job_id(Step.START))
    wanted = committed.checkpoint if committed.completed else attempt.results["stop"]["savepoint"]
    assert halted["savepoint"] == wanted
    assert committed.completed >= checkpoints
    shop.assert_runs_only(version)


@pytest.mark.timeout(600)
def test_a_new_job_that_runs_and_is_not_healthy_is_stopped_with_a_savepoint(shop: Shop) -> None:
    version = shop.running()
    with (one := shop.controller()).alone():
        one.rules = one.rules.model_copy(update={"max_restarts": -1})
        attempt = one.deploy(shop.other(), "forced")
    assert result_of(attempt) == "rolled_back"
    halted = Cluster(shop.services.flink).progress(attempt.job_id(Step.START))
    assert attempt.results["halt"]["savepoint"] == halted.savepoint
    shop.assert_runs_only(version)


DIES = """
import os, signal, sys
from pathlib import Path
from flink_jobs.deploy.attempts import Attempt, Step
from flink_jobs.deploy.cluster import Cluster
from flink_jobs.deploy.controller import Controller
from flink_jobs.deploy.target import Target
from flink_jobs.deploy.watch import look

class Dies(Controller):
    def note(self, event, **fields):
        line = super().note(event, **fields)
        if f"{event} {fields.get('step', '')}".strip() == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        return line

one = Dies(Target(Path(sys.argv[1]), Path(sys.argv[1]) / "environment.yaml"))
with one.alone():
    look(one)
"""
UNTOUCHED = ("begun", "result check", "result prepare")


STEPS = ("result stop", "result start", "result prepare", "intent stop", "intent start", "result watch")
#: half a minute each, and not reliable yet beside other tests: they run when asked for
when_asked = pytest.mark.skipif(not os.environ.get("HEADRACE_ALL_KILLS"), reason="set HEADRACE_ALL_KILLS=1")


@when_asked
@pytest.mark.timeout(600)
@pytest.mark.parametrize("at", STEPS)
def test_a_controller_killed_at_a_step_leaves_one_job_of_the_right_version_after_the_next(shop: Shop, at: str) -> None:
    version = shop.other()
    shop.promote(version)
    done = subprocess.run([sys.executable, "-c", DIES, str(shop.folder), at], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    with (one := shop.controller()).alone():
        assert result_of(look(one)) == ("abandoned" if at in UNTOUCHED else "deployed")
        if at in UNTOUCHED:
            assert result_of(look(one)) == "deployed"
        assert look(one) == "it runs"
    one.ledger.verify()
    shop.assert_runs_only(version)


@when_asked
@pytest.mark.timeout(600)
def test_the_commands_pause_show_verify_and_roll_back(shop: Shop) -> None:
    version, other = shop.running(), shop.other()
    shop.promote(other)
    shop.deploy("pause")
    with (one := shop.controller()).alone():
        assert "paused" in str(look(one))
    found = json.loads(shop.deploy("status", "--json"))
    assert (found["version"], found["alias_version"], found["is_paused"]) == (version, other, True)
    assert found["ledger_head"] in shop.deploy("verify", "--head", found["ledger_head"])
    shop.deploy("apply")
    shop.assert_runs_only(other)
    shop.deploy("rollback")
    shop.assert_runs_only(version)
    shop.deploy("resume")
    with one.alone():
        assert "only a person" in str(look(one))
    assert "rollback from version" in shop.deploy("history", "--lines")


def result_of(attempt: Attempt | str) -> str:
    assert isinstance(attempt, Attempt), attempt
    assert attempt.ended is not None
    return str(attempt.ended["result"])


def _registered_file(shop: Shop, version: str) -> Path:
    """The file of the newest version, where MLflow keeps it."""
    artifacts = Path(shop.services.flink_conf_dir).parents[1] / "data" / "mlflow" / "artifacts"
    found = [one for one in artifacts.glob(f"**/{ONNX_FILE}") if "baseline" not in one.parts]
    newest = max(found, key=lambda one: one.stat().st_mtime_ns)
    with connect(shop.services.mlflow) as client:
        noted = client.get_model_version(shop.name, version).tags["sha256"]
    assert sha256(newest.read_bytes()) == noted
    return newest


def _id(record: Record) -> str:
    return (record.key or b"").decode()


def _version(record: Record) -> str:
    return str(json.loads(record.value or b"")["model"]["version"])
