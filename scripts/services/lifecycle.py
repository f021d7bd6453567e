"""Start one service and wait for it, or stop it; `report(name, text)` hears of every step."""

import threading
import time
from collections.abc import Callable

from scripts.services import processes
from scripts.services.errors import ServiceError
from scripts.services.home import Home
from scripts.services.ports import require_free
from scripts.services.processes import Command
from scripts.services.service import Service

_LOG_LINES = 15


def is_running(home: Home, service: Service) -> bool:
    """Say whether every process of a service is there, ready or not."""
    return all(processes.running_pid(home.pid_file(command.name)) for command in service.commands())


def start(home: Home, service: Service, report: Callable[[str, str], None], cancelled: threading.Event) -> None:
    """Start what is not running of a service, and return once it is ready.

    Parameters
    ----------
    cancelled : once it is set, the start ends as soon as it can; what it has started still runs

    Raises
    ------
    ServiceError : something is not installed, a port is taken, the service ended or stayed silent, or was cancelled.
    """
    service.check()
    commands = service.commands()
    if not is_running(home, service):
        stop(home, service, lambda _name, _text: None)  # half of a service is none
        for port in service.ports:
            require_free(service.name, port, home.ports_file)
        report(service.name, "preparing")
        service.prepare()
        for command in commands:
            _go_on(service, cancelled)
            processes.start(command, log=home.log_file(command.name), pid_file=home.pid_file(command.name))
    _await_ready(home, service, report, cancelled)
    report(service.name, "up")


def _go_on(service: Service, cancelled: threading.Event, wait_s: float = 0.0) -> None:
    if cancelled.wait(wait_s):
        msg = f"{service.name}: its start was cancelled"
        raise ServiceError(msg)


def _await_ready(home: Home, service: Service, report: Callable[[str, str], None], cancelled: threading.Event) -> None:
    deadline_s = time.monotonic() + service.ready_timeout_s
    while (missing := service.waiting_for()) is not None:
        report(service.name, f"waiting for {missing}")
        for command in service.commands():
            if processes.running_pid(home.pid_file(command.name)) is None:
                msg = f"{service.name}: {command.name} ended while it started; {_last_lines(home, command)}"
                raise ServiceError(msg)
        if time.monotonic() > deadline_s:
            logs = "\n".join(_last_lines(home, command) for command in service.commands())
            msg = f"{service.name}: not ready after {service.ready_timeout_s:g} s, still waiting for {missing}; {logs}"
            raise ServiceError(msg)
        _go_on(service, cancelled, wait_s=0.2)


def stop(home: Home, service: Service, report: Callable[[str, str], None]) -> None:
    """End every process of a service."""
    report(service.name, "stopping")
    for command in reversed(service.commands()):
        processes.stop(home.pid_file(command.name), grace_s=service.grace_s)
    report(service.name, "down")


def _last_lines(home: Home, command: Command) -> str:
    log = home.log_file(command.name)
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
    return f"the last lines of {log}:\n" + "\n".join(f"    {line}" for line in lines)
