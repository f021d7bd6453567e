"""Redis: one server with an append-only file, so that a restart keeps what was written."""

import shutil
from dataclasses import dataclass
from typing import ClassVar

from redis import Redis as Client
from redis import RedisError

from scripts.services.errors import ServiceError
from scripts.services.home import Home
from scripts.services.ports import LOOPBACK
from scripts.services.processes import Command


@dataclass(frozen=True, slots=True)
class Redis:
    """One Redis server."""

    home: Home
    port: int

    name: ClassVar[str] = "redis"
    ready_timeout_s: ClassVar[float] = 30.0
    grace_s: ClassVar[float] = 10.0

    @property
    def ports(self) -> tuple[int, ...]:
        """Ports that must be free before the start."""
        return (self.port,)

    def check(self) -> None:
        """Raise when the server is not installed."""
        if shutil.which("redis-server") is None:
            msg = "redis: no redis-server on PATH; install it with: make setup (Debian package redis-server)"
            raise ServiceError(msg)

    def prepare(self) -> None:
        """Write the settings and make the data folder."""
        folder = self.home.data / self.name
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": LOOPBACK,
            "port": self.port,
            "dir": f'"{folder}"',
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',  # the append-only file is the only copy: no snapshots beside it
            "maxmemory-policy": "noeviction",
        }
        text = "".join(f"{key} {value}\n" for key, value in settings.items())
        (self.home.conf / "redis.conf").write_text(text)

    def commands(self) -> tuple[Command, ...]:
        """Return the programs to run."""
        return (Command(self.name, ("redis-server", str(self.home.conf / "redis.conf"))),)

    def waiting_for(self) -> str | None:
        """Return what is still missing, or None when the server answers."""
        client = Client(host=LOOPBACK, port=self.port, socket_timeout=2.0)
        try:
            client.ping()
        except RedisError:
            return f"an answer to PING on port {self.port}"
        finally:
            client.close()
        return None
