"""Flink's settings for a small cluster on one machine, built on the conf folder of the wheel.

All of Flink's own ports are on 127.0.0.1. While a Python job runs, Beam's ports between the TaskManager and its Python
workers listen on every interface, and no setting of Flink 2.3 changes that: on a shared network, keep a firewall.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from scripts.services.errors import ServiceError
from scripts.services.home import Home
from scripts.services.ports import LOOPBACK

SLOTS = 4
_JAVA_OPTIONS = "env.java.opts.all"


def wheel_folder() -> Path:
    """Return the folder of the installed `pyflink`, which brings Flink itself; it is not imported.

    Raises
    ------
    ServiceError : this Python has none.
    """
    spec = find_spec("pyflink")
    if spec is None or not spec.submodule_search_locations:
        msg = f"flink: {sys.executable} has no pyflink; install it with: make setup"
        raise ServiceError(msg)
    return Path(spec.submodule_search_locations[0])


def write_conf(home: Home, *, wheel: Path, rest_port: int, rpc_port: int) -> Path:
    """Write a conf folder for the cluster and for clients that submit to it.

    Parameters
    ----------
    home : where the folder goes, and where checkpoints and logs will be.
    wheel : folder of the installed `pyflink` package.
    rest_port, rpc_port : where the JobManager listens.

    Returns
    -------
    the folder, for `FLINK_CONF_DIR`.
    """
    folder = conf_dir(home)
    folder.mkdir(parents=True, exist_ok=True)
    for source in (wheel / "conf").glob("log*"):
        (folder / source.name).write_bytes(source.read_bytes())
    shipped = yaml.safe_load((wheel / "conf" / "config.yaml").read_text())
    settings = {_JAVA_OPTIONS: shipped["env"]["java"]["opts"]["all"], **_settings(home, rest_port, rpc_port)}
    # Flat keys, since Flink's start scripts read some of them with sed.
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, width=10_000, sort_keys=False))
    return folder


def conf_dir(home: Home) -> Path:
    """Return the conf folder of a home."""
    return home.conf / "flink"


def lib_dir(home: Home) -> Path:
    """Return the jar folder of a home."""
    return home.data / "flink" / "lib"


def checkpoints(home: Home) -> str:
    """Return the checkpoint folder of a home, as a URI."""
    return (home.data / "flink" / "checkpoints").as_uri()


def savepoints(home: Home) -> str:
    """Return the savepoint folder of a home, as a URI."""
    return (home.data / "flink" / "savepoints").as_uri()


def link_jars(folder: Path, *sources: Path) -> None:
    """Fill a folder with links to jars, so that the wheel itself stays as installed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for jar in sources:
        (folder / jar.name).symlink_to(jar)


def path_with_python() -> str:
    """Return a PATH on which the Python of this environment comes first."""
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))


def _settings(home: Home, rest_port: int, rpc_port: int) -> dict[str, Any]:
    scratch = home.data / "flink" / "tmp"
    return {
        "jobmanager.bind-host": LOOPBACK,
        "jobmanager.rpc.address": LOOPBACK,
        "jobmanager.rpc.port": rpc_port,
        "jobmanager.memory.process.size": "1600m",
        "jobmanager.memory.jvm-metaspace.size": "512m",
        "taskmanager.bind-host": LOOPBACK,
        "taskmanager.host": LOOPBACK,
        "taskmanager.numberOfTaskSlots": SLOTS,
        # Every submission to a session cluster leaks classes: room for dozens of them.
        "taskmanager.memory.jvm-metaspace.size": "1g",
        "taskmanager.memory.process.size": "4608m",
        "taskmanager.memory.managed.fraction": "0.45",
        "rest.address": LOOPBACK,
        "rest.bind-address": LOOPBACK,
        "rest.port": rest_port,
        "parallelism.default": 1,
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "state.backend.type": "rocksdb",
        "state.backend.rocksdb.log.dir": str(home.data / "flink" / "rocksdb-log"),
        "execution.checkpointing.incremental": True,
        "execution.checkpointing.dir": checkpoints(home),
        "execution.checkpointing.savepoint-dir": savepoints(home),
        "execution.checkpointing.num-retained": 2,
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "500 ms",
        "restart-strategy.exponential-delay.max-backoff": "10 s",
        "restart-strategy.exponential-delay.backoff-multiplier": "2.0",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "1 min",
        # A dead TaskManager is noticed within half a minute, a busy one on few cores is not mistaken for dead.
        "heartbeat.interval": "3 s",
        "heartbeat.timeout": "30 s",
        "io.tmp.dirs": str(scratch),
        "web.tmpdir": str(scratch),
        "env.log.dir": str(home.logs),
        "env.pid.dir": str(home.run),
    }
