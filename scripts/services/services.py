"""Bring a set of services up or down, and say how it is.

Every function may be called at any time, by several programs at once, and leaves alone what is already as asked.
"""

import fcntl
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from scripts.services.ports import LOOPBACK, known_ports, remembered_ports
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
    #: empty before the first start
    address: str
    pids: tuple[int, ...]


def up(home: Path | None = None, names: Sequence[str] = ALL, console: Console | None = None) -> Endpoints:
    """Start the named services that are not running, wait until each is ready, and say where they are.

    When it is interrupted, it stops those that it has started, and leaves alone those that ran before.

    Parameters
    ----------
    home : folder of this set of services; None means `$HEADRACE_HOME` or `build/local`.
    names : some of `ALL`.
    console : where progress is shown; None shows none.

    Raises
    ------
    ServiceError : something is not installed, a port is taken, or a service did not become ready.
    KeyboardInterrupt : SIGINT (Ctrl-C) or SIGTERM came, and nothing of this start is left.
    """
    place = home_at(home)
    place.create()
    with _alone(place), _cancelled_by_signal() as cancelled:
        ports = remembered_ports(place.ports_file, _PORTS)
        services = _named(place, names, ports)
        ours = [service for service in services if not lifecycle.is_running(place, service)]
        with service_lines(console, names) as report:
            with ThreadPoolExecutor(max_workers=len(ALL)) as pool:
                # Every one is awaited before the first error is raised, so that no start goes on in the background.
                starts = [pool.submit(lifecycle.start, place, one, report, cancelled) for one in services]
            if cancelled.is_set():
                _stop(place, ours, report)
        if cancelled.is_set():
            if console is not None:
                stopped = ", ".join(service.name for service in ours) or "nothing, all were up before"
                console.print(f"interrupted; stopped again: {stopped}", highlight=False)
            raise KeyboardInterrupt
        for start in starts:
            start.result()
        found = _endpoints(place, ports)
        endpoints_file.save(place, found)
    return found


def down(home: Path | None = None, console: Console | None = None, names: Sequence[str] = ALL) -> None:
    """Stop the named services of a home and every process that they started; what they stored stays."""
    place = home_at(home)
    if not place.run.exists():
        return
    with _alone(place), service_lines(console, names) as report:
        _stop(place, _named(place, names, remembered_ports(place.ports_file, _PORTS)), report)


def status(home: Path | None = None) -> tuple[ServiceStatus, ...]:
    """Say how each service of a home is; writes nothing, and waits for nobody."""
    place = home_at(home)
    ports = known_ports(place.ports_file)
    if not ports.keys() >= set(_PORTS):
        return tuple(ServiceStatus(name, "down", "", ()) for name in ALL)
    addresses = _endpoints(place, ports)
    found = []
    for service in _named(place, ALL, ports):
        pids = [processes.running_pid(place.pid_file(command.name)) for command in service.commands()]
        running = tuple(pid for pid in pids if pid is not None)
        ready = len(running) == len(pids) and service.waiting_for() is None
        state = "up" if ready else "starting" if len(running) == len(pids) else "down"
        found.append(ServiceStatus(service.name, state, getattr(addresses, service.name), running))
    return tuple(found)


def endpoints(home: Path | None = None) -> Endpoints:
    """Return where the services of a home are; ServiceError when they were never started."""
    return endpoints_file.load(home_at(home))


def _stop(home: Home, services: Sequence[Service], report: Callable[[str, str], None]) -> None:
    with ThreadPoolExecutor(max_workers=len(ALL)) as pool:
        for stop in [pool.submit(lifecycle.stop, home, service, report) for service in services]:
            stop.result()


def _named(home: Home, names: Sequence[str], ports: Mapping[str, int]) -> list[Service]:
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


def _endpoints(home: Home, ports: Mapping[str, int]) -> Endpoints:
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


@contextmanager
def _cancelled_by_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set, in place of an exception that would leave starts behind."""
    cancelled = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield cancelled  # only the main thread may change what signals do, and they come to it
        return
    before = {number: signal.signal(number, lambda *_: cancelled.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancelled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
