"""One Flink MiniCluster for all tests of the ring: Python worker processes, RocksDB, one TaskManager of four slots.

It lives in the JVM of PyFlink's gateway, whose class path has the Kafka connector, as a cluster's `lib` folder does.
"""

import json
import os
import signal
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyflink
from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.util.java_utils import to_jarray

from scripts.services.flink_conf import link_jars
from scripts.services.home import JARS, REPOSITORY

SLOTS = 4
WAIT_S = 120.0


class Cluster:
    """A running MiniCluster.

    Parameters
    ----------
    folder : empty folder for logs, state and temporary files
    """

    def __init__(self, folder: Path) -> None:
        lib, logs, scratch = folder / "lib", folder / "logs", folder / "tmp"
        logs.mkdir(parents=True)
        scratch.mkdir()
        wheel = Path(pyflink.__file__).parent
        link_jars(lib, *(wheel / "lib").glob("*.jar"), *(JARS / "flink").glob("*.jar"))
        os.environ |= {
            "FLINK_HOME": str(wheel),  # without it, PyFlink puts its own lib folder over ours
            "FLINK_LIB_DIR": str(lib),
            "FLINK_LOG_DIR": str(logs),
            # Jobs of seconds do not live long enough to earn back what the second compiler costs.
            "JVM_ARGS": "-Xmx2g -XX:TieredStopAtLevel=1",
        }
        self._gateway = get_gateway()
        self._jvm = self._gateway.jvm
        self.folder = folder
        settings = {
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "io.tmp.dirs": str(scratch),
            "taskmanager.memory.managed.size": "768m",
            "taskmanager.memory.network.max": "256m",
            "state.backend.type": "rocksdb",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": "20",
            "restart-strategy.fixed-delay.delay": "200 ms",
            "heartbeat.interval": "1 s",
            "heartbeat.timeout": "30 s",
            "metrics.fetcher.update-interval": "100",
        }
        configuration = self._jvm.org.apache.flink.configuration.Configuration()
        for name, value in settings.items():
            configuration.setString(name, value)
        minicluster = self._jvm.org.apache.flink.runtime.minicluster
        builder = minicluster.MiniClusterConfiguration.Builder().setConfiguration(configuration)
        built = builder.setNumTaskManagers(1).setNumSlotsPerTaskManager(SLOTS).withRandomPorts().build()
        self._minicluster = minicluster.MiniCluster(built)
        self._minicluster.start()
        self._rest = self._minicluster.getRestAddress().get()

    def close(self) -> None:
        """Stop the cluster and its JVM."""
        self._minicluster.closeAsync().get()
        self._gateway.shutdown()

    def environment(self, options: dict[str, str]) -> StreamExecutionEnvironment:
        """Return an environment whose jobs run here."""
        # Jobs bring their own Python; what the cluster is told of it is not looked at.
        python = {"python.executable": sys.executable, "python.pythonpath": str(REPOSITORY)}
        configuration = Configuration()
        for name, value in (options | python).items():
            configuration.set_string(name, value)
        return StreamExecutionEnvironment(
            self._jvm.org.apache.flink.streaming.api.environment.StreamExecutionEnvironment.createRemoteEnvironment(
                self._rest.getHost(),
                self._rest.getPort(),
                configuration._j_configuration,
                to_jarray(self._jvm.String, []),
            )
        )

    def kill_task_manager(self) -> None:
        """End the TaskManager with all its tasks and workers, as a machine that is lost, and start another one."""
        # First the workers: the state of a closed task crashes this JVM when a worker still asks for it.
        for worker in self.python_workers():
            os.kill(worker, signal.SIGKILL)
        self._minicluster.terminateTaskManager(0).get()
        self._minicluster.startTaskManager()

    def python_workers(self) -> list[int]:
        """Return the pids of the Python worker processes of all jobs."""
        parents, workers = {}, []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
                if b"pyflink.fn_execution.beam.beam_boot\0" in stat.with_name("cmdline").read_bytes():
                    workers.append(int(stat.parent.name))
            except OSError:  # it ended meanwhile
                continue
        mine = self._jvm.java.lang.ProcessHandle.current().pid()
        return [pid for pid in workers if _descends(pid, mine, parents)]

    def await_running(self, job: str) -> None:
        """Wait until every task of a job runs, or has nothing more to do."""
        self._until(lambda: self._tasks(job) <= {"RUNNING", "FINISHED"}, f"job {job} to run")

    def await_restart(self, job: str, count: int) -> None:
        """Wait until a job has restarted that many times and runs."""
        self._until(lambda: self.restarts(job) >= count, f"restart {count} of job {job}")
        self.await_running(job)

    def restarts(self, job: str) -> int:
        """Return how often a job was restarted."""
        found = {one["id"]: one["value"] for one in self._get(f"/jobs/{job}/metrics?get=numRestarts")}
        return int(found.get("numRestarts", 0))

    def failures(self, job: str) -> list[str]:
        """Return what made tasks of a job fail so far."""
        return [entry["stacktrace"] for entry in self._get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]]

    def records_read(self, job: str, table: str) -> int:
        """Return how many records the source operator of a table has handed on."""
        for vertex in self._get(f"/jobs/{job}")["vertices"]:
            if f".{table} -" in vertex["name"]:
                return int(vertex["metrics"]["write-records"])
        msg = f"job {job} reads no table {table}"
        raise LookupError(msg)

    def await_gauge(self, job: str, name: str, least: float) -> None:
        """Wait until a gauge shows that much; the cluster asks its tasks every ten seconds only."""
        self._until(lambda: self.gauge(job, name) >= least, f"{name} of job {job} to reach {least}")

    def gauge(self, job: str, name: str) -> float:
        """Return a gauge of a job's own operators, summed over them and their subtasks."""
        total = 0.0
        for vertex in self._get(f"/jobs/{job}")["vertices"]:
            path = f"/jobs/{job}/vertices/{vertex['id']}/subtasks/metrics"
            for one in self._get(path):
                if one["id"].endswith(f".{name}"):
                    for found in self._get(f"{path}?get={urllib.parse.quote(one['id'])}"):
                        total += found["sum"]
        return total

    def stop(self, job: str) -> str:
        """Stop a job with a savepoint, once all its tasks run, and return the savepoint's path."""
        self.await_running(job)
        target = (self.folder / "savepoints").as_uri()
        trigger = self._get(f"/jobs/{job}/stop", {"drain": False, "targetDirectory": target})["request-id"]
        path = f"/jobs/{job}/savepoints/{trigger}"
        self._until(lambda: self._get(path)["status"]["id"] == "COMPLETED", f"the savepoint of job {job}")
        operation = self._get(path)["operation"]
        assert "location" in operation, operation["failure-cause"]["stack-trace"].partition("\n")[0]
        self._until(lambda: self._get(f"/jobs/{job}")["state"] == "FINISHED", f"job {job} to finish")
        return str(operation["location"])

    def cancel(self, job: str) -> None:
        """Cancel a job, if it runs still."""
        if self._get(f"/jobs/{job}")["state"] in {"FINISHED", "FAILED", "CANCELED"}:
            return
        self._get(f"/jobs/{job}", {}, method="PATCH")
        self._until(lambda: self._get(f"/jobs/{job}")["state"] == "CANCELED", f"job {job} to be cancelled")

    def cancel_all(self) -> None:
        """Cancel every job that runs still."""
        for one in self._get("/jobs")["jobs"]:
            self.cancel(one["id"])

    def _tasks(self, job: str) -> set[str]:
        return {vertex["status"] for vertex in self._get(f"/jobs/{job}")["vertices"]}

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline_s, f"waited {WAIT_S:.0f} s for {what}; logs are in {self.folder}"
            time.sleep(0.1)

    def _get(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        address = f"http://{self._rest.getHost()}:{self._rest.getPort()}{path}"
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False
