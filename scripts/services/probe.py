"""Small questions to a server on this machine, asked without proxies and answered within seconds."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from scripts.services.errors import ServiceError
from scripts.services.ports import LOOPBACK

JAVA_WANTED = 17
_TIMEOUT_S = 5.0
_JAVA_TIMEOUT_S = 30.0


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
    ServiceError : there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"in JAVA_HOME={home}" if home else "on PATH"
        msg = f"java: none found {where}; install it with: make setup (Debian package openjdk-17-jre-headless)"
        raise ServiceError(msg)
    version = _java_version(found)
    if version < JAVA_WANTED:
        got = f"version {version}" if version else "one that does not say its version"
        msg = (
            f"java: {found} is {got}; Flink and Kafka need Java {JAVA_WANTED} or newer; install one with: make setup,"
            " or point JAVA_HOME at one"
        )
        raise ServiceError(msg)
    return found


@cache
def _java_version(java: str) -> int:
    """Return the major version of a Java, 0 if it does not say; `1.8.0` is 8."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=_JAVA_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r' version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found[1]) if found else 0


def require_jars(folder: Path) -> None:
    """Raise when a folder of jars was not fetched yet."""
    if not any(folder.glob("*.jar")):
        msg = f"{folder}: holds no jars; fetch them with: make setup"
        raise ServiceError(msg)
