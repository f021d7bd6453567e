"""A Redis server for one test: killed, restarted and flushed without harm to any other."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@contextmanager
def redis_server(port: int, *options: str, password: str = "") -> Iterator[Redis]:
    """Run a server without persistence; gives a client whose answers are text."""
    program = shutil.which("redis-server")
    assert program is not None, "redis-server is not on PATH; install it with: make setup"
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--requirepass", password, *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = Redis(port=port, password=password or None, decode_responses=True)
    try:
        for _ in range(200):
            try:
                client.ping()
                break
            except RedisConnectionError:
                time.sleep(0.05)
        yield client
    finally:
        client.close()
        server.kill()
        server.wait()


@contextmanager
def redis_cluster(folder: Path, nodes: int = 3) -> Iterator[list[Redis]]:
    """Run servers as one cluster without replicas, with their notes in `folder`; gives a client of each."""
    with ExitStack() as stack:
        clients: list[Any] = []
        for node in range(nodes):
            port, bus = free_port(), free_port()
            file = str(folder / f"nodes-{node}.conf")
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-config-file", file)
            clients.append(stack.enter_context(redis_server(port, *options)))
            first, end = 16_384 * node // nodes, 16_384 * (node + 1) // nodes
            clients[-1].execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            if node:
                clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        until_s = time.monotonic() + 30.0
        while not all("cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")) for client in clients):
            assert time.monotonic() < until_s, "the nodes did not become a cluster"
            time.sleep(0.1)
        yield clients
