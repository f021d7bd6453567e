"""Small questions to a server on this machine, asked without proxies and answered within seconds."""

import http.client
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from scripts.services.errors import ServiceError
from scripts.services.ports import LOOPBACK

_TIMEOUT_S = 5.0


def listens(port: int) -> bool:
    """Say whether something accepts connections on the port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_TIMEOUT_S):
            return True
    except OSError:
        return False


def get(port: int, path: str) -> bytes | None:
    """Return the body of a 200 answer to GET, or None for any other outcome."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read() if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def get_json(port: int, path: str) -> dict[str, Any]:
    """Return the JSON object behind a path, or an empty one when there is none."""
    try:
        content = json.loads(get(port, path) or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def java() -> str:
    """Return the path of the Java that Flink and Kafka run on.

    Raises
    ------
    ServiceError : there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"in JAVA_HOME={home}" if home else "on PATH"
        msg = f"java: none found {where}; install it with: make setup (Debian package openjdk-17-jre-headless)"
        raise ServiceError(msg)
    return found


def require_jars(folder: Path) -> None:
    """Raise when a folder of jars was not fetched yet."""
    if not any(folder.glob("*.jar")):
        msg = f"{folder}: holds no jars; fetch them with: make setup"
        raise ServiceError(msg)
