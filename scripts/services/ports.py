"""Ports on 127.0.0.1, chosen once per home and remembered in a JSON file.

They lie below the range that Linux hands to outgoing connections, so that a port stays free while its service is down.
"""

import json
import socket
import zlib
from collections.abc import Iterable
from pathlib import Path

from scripts.services.errors import ServiceError

LOOPBACK = "127.0.0.1"
_FIRST, _LAST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Say whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it a port counts as taken for a minute after its last connection closed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def remembered_ports(file: Path, names: Iterable[str]) -> dict[str, int]:
    """Read the port of each name, choosing and writing down those that are not there yet; one program at a time may.

    Parameters
    ----------
    file : JSON object of name to port; need not exist.
    names : what needs a port.

    Returns
    -------
    dict of name to port, all different.

    Raises
    ------
    ServiceError : the file is not such an object, or no port is free.
    """
    ports = known_ports(file)
    missing = [name for name in names if name not in ports]
    if missing:
        start = zlib.crc32(str(file.resolve()).encode())
        candidates = (_FIRST + (start + step) % (_LAST - _FIRST) for step in range(_LAST - _FIRST))
        free = (port for port in candidates if port not in ports.values() and is_free(port))
        for name in missing:
            port = next(free, None)
            if port is None:
                msg = f"no free port for {name} between {_FIRST} and {_LAST}; stop a program that listens there"
                raise ServiceError(msg)
            ports[name] = port
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(ports, indent=2) + "\n")
        draft.replace(file)  # who reads without the lock sees all or nothing
    return {name: ports[name] for name in names}


def require_free(service: str, port: int, file: Path) -> None:
    """Raise when another program listens on a port that a service is about to use."""
    if not is_free(port):
        msg = (
            f"{service}: port {port} is taken by another program (see it with: ss -ltnp 'sport = :{port}'); "
            f"stop that program, or remove {file} so that other ports are chosen, and start again"
        )
        raise ServiceError(msg)


def known_ports(file: Path) -> dict[str, int]:
    """Return the ports that were chosen, by name; none before the first start.

    Raises
    ------
    ServiceError : the file is not a JSON object of name to port.
    """
    if not file.exists():
        return {}
    try:
        ports = json.loads(file.read_text())
    except ValueError:
        ports = None
    if not isinstance(ports, dict) or not all(isinstance(port, int) for port in ports.values()):
        msg = f"{file}: expected a JSON object of name to port; got something else; remove the file and start again"
        raise ServiceError(msg)
    return ports
