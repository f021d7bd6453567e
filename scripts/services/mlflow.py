"""MLflow: tracking and registry over SQLite, with artifacts served by the same server."""

import importlib.util
import sys
from dataclasses import dataclass
from typing import ClassVar

from scripts.services import probe
from scripts.services.errors import ServiceError
from scripts.services.home import Home
from scripts.services.ports import LOOPBACK
from scripts.services.processes import Command


@dataclass(frozen=True, slots=True)
class Mlflow:
    """One MLflow server."""

    home: Home
    port: int

    name: ClassVar[str] = "mlflow"
    #: A fresh database takes its migrations about 15 s, more while other services start.
    ready_timeout_s: ClassVar[float] = 180.0
    grace_s: ClassVar[float] = 10.0

    @property
    def ports(self) -> tuple[int, ...]:
        """Ports that must be free before the start."""
        return (self.port,)

    def check(self) -> None:
        """Raise when only the client is installed."""
        # mlflow-skinny has the package too, but not the web server underneath.
        if not all(importlib.util.find_spec(module) for module in ("mlflow", "flask", "uvicorn")):
            msg = f"mlflow: {sys.executable} has no MLflow server; install it with: make setup (extra headrace[server])"
            raise ServiceError(msg)

    def prepare(self) -> None:
        """Make the data folder."""
        (self.home.data / self.name / "artifacts").mkdir(parents=True, exist_ok=True)

    def commands(self) -> tuple[Command, ...]:
        """Return the programs to run."""
        folder = self.home.data / self.name
        argv = (
            *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(self.port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
            *("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")),
        )
        env = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a third of the memory, and no job of ours runs there
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        }
        return (Command(self.name, argv, env),)

    def waiting_for(self) -> str | None:
        """Return what is still missing, or None when the server answers."""
        healthy = probe.get(self.port, "/health") == b"OK"
        return None if healthy else f"OK from /health on port {self.port}"
