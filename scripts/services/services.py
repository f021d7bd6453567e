"""Bring a set of services up or down, and say how it is.

Every function may be called at any time, by several programs at once, and leaves alone what is already as asked.
"""

import fcntl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from scripts.services import endpoints as endpoints_file
from scripts.services import flink_conf, lifecycle, processes
from scripts.services.endpoints import Endpoints
from scripts.services.errors import ServiceError
from scripts.services.flink import Flink
from scripts.services.home import Home, home_at
from scripts.services.kafka import Kafka
from scripts.services.mlflow import Mlflow
from scripts.services.ports import LOOPBACK, remembered_ports
from scripts.services.progress import service_lines
from scripts.services.redis import Redis
from scripts.services.service import Service

ALL = ("kafka", "redis", "mlflow", "flink")
_PORTS = ("kafka", "kafka_controller", "redis", "mlflow", "flink", "flink_rpc")


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How one service is."""

    name: str
    #: `up`: ready; `starting`: runs and is not ready; `down`: a process of it is missing.
    state: str
    address: str
    pids: tuple[int, ...]


def up(home: Path | None = None, names: Sequence[str] = ALL, console: Console | None = None) -> Endpoints:
    """Start the named services that are not running, wait until each is ready, and say where they are.

    Parameters
    ----------
    home : folder of this set of services; None means `$HEADRACE_HOME` or `build/local`.
    names : some of `ALL`.
    console : where progress is shown; None shows none.

    Raises
    ------
    ServiceError : something is not installed, a port is taken, or a service did not become ready.
    """
    place = home_at(home)
    place.create()
    services = _named(place, names)
    with _alone(place), service_lines(console, names) as report:
        with ThreadPoolExecutor(max_workers=len(ALL)) as pool:
            # Every one is awaited before the first error is raised, so that no start goes on in the background.
            starts = [pool.submit(lifecycle.start, place, service, report) for service in services]
        for start in starts:
            start.result()
        found = _endpoints(place)
        endpoints_file.save(place, found)
    return found


def down(home: Path | None = None, console: Console | None = None, names: Sequence[str] = ALL) -> None:
    """Stop the named services of a home and every process that they started; what they stored stays."""
    place = home_at(home)
    if not place.run.exists():
        return
    with _alone(place), service_lines(console, names) as report, ThreadPoolExecutor(max_workers=len(ALL)) as pool:
        for stop in [pool.submit(lifecycle.stop, place, service, report) for service in _named(place, names)]:
            stop.result()


def status(home: Path | None = None) -> tuple[ServiceStatus, ...]:
    """Say how each service of a home is."""
    place = home_at(home)
    addresses = _endpoints(place)
    found = []
    for service in _named(place, ALL):
        pids = [processes.running_pid(place.pid_file(command.name)) for command in service.commands()]
        running = tuple(pid for pid in pids if pid is not None)
        ready = len(running) == len(pids) and service.waiting_for() is None
        state = "up" if ready else "starting" if len(running) == len(pids) else "down"
        found.append(ServiceStatus(service.name, state, getattr(addresses, service.name), running))
    return tuple(found)


def endpoints(home: Path | None = None) -> Endpoints:
    """Return where the services of a home are; ServiceError when they were never started."""
    return endpoints_file.load(home_at(home))


def _named(home: Home, names: Sequence[str]) -> list[Service]:
    ports = remembered_ports(home.ports_file, _PORTS)
    services: dict[str, Service] = {
        "kafka": Kafka(home, ports["kafka"], ports["kafka_controller"]),
        "redis": Redis(home, ports["redis"]),
        "mlflow": Mlflow(home, ports["mlflow"]),
        "flink": Flink(home, ports["flink"], ports["flink_rpc"]),
    }
    unknown = [name for name in names if name not in services]
    if unknown:
        msg = f"no service is named {unknown[0]!r}; did you mean one of {', '.join(ALL)}?"
        raise ServiceError(msg)
    return [services[name] for name in names]


def _endpoints(home: Home) -> Endpoints:
    ports = remembered_ports(home.ports_file, _PORTS)
    return Endpoints(
        kafka=f"{LOOPBACK}:{ports['kafka']}",
        redis=f"redis://{LOOPBACK}:{ports['redis']}/0",
        mlflow=f"http://{LOOPBACK}:{ports['mlflow']}",
        flink=f"http://{LOOPBACK}:{ports['flink']}",
        flink_conf_dir=str(flink_conf.conf_dir(home)),
        flink_lib_dir=str(flink_conf.lib_dir(home)),
        checkpoints=flink_conf.checkpoints(home),
        savepoints=flink_conf.savepoints(home),
    )


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Let one program at a time change a home."""
    with (home.run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
