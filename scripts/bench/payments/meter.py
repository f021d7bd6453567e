"""CPU time of processes by what they are, and the progress of a topic, sampled while a program works."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from scripts.services.home import Home
from scripts.services.processes import running_pid
from udfs.core.errors import HeadraceError

SAMPLE_S, STALL_S = 0.1, 120.0


class BenchError(HeadraceError):
    """A benchmark cannot be run, or what came out is not what should."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What had been done at a time."""

    at_s: float
    events: int
    #: group -> CPU seconds
    cpu_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Cost:
    """What an event costs, between two points of one run; start-up and warm-up lie before the first."""

    events: int
    rate_eps: float
    #: group -> CPU microseconds per event
    cpu_us: dict[str, float]

    @property
    def job_us(self) -> float:
        """CPU microseconds of the program itself, the broker's left out."""
        return sum(cost for group, cost in self.cpu_us.items() if group != "broker")

    @property
    def per_cpu_s(self) -> float:
        """Events per CPU second of the program itself."""
        return 1e6 / self.job_us


class Meter:
    """Reads the CPU time of the services of a home, and of one more program.

    A worker that ends takes its time along into that of its group: a group never goes back.
    """

    def __init__(self, home: Home, program: int | None = None) -> None:
        self._home, self._program = home, program
        self._seen: dict[tuple[str, int], float] = {}

    def __call__(self) -> dict[str, float]:
        """Return CPU seconds of `jvm` and `python` of the cluster, or of `program`, and of `broker`."""
        roots = {"broker": self._pid("kafka")}
        if self._program is None:
            roots |= {"jobmanager": self._pid("jobmanager"), "taskmanager": self._pid("taskmanager")}
        else:
            roots["program"] = self._program
        for name, pid in roots.items():
            self._read(name, pid)
        groups = dict.fromkeys(("broker", "program") if self._program else ("broker", "jvm", "python"), 0.0)
        for (group, _), spent_s in self._seen.items():
            groups[group] += spent_s
        return groups

    def _read(self, name: str, pid: int) -> None:
        try:
            root = psutil.Process(pid)
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess as error:
            msg = f"{name} (pid {pid}) is gone; see the logs of {self._home.root}"
            raise BenchError(msg) from error
        for process in family:
            try:
                times, is_java = process.cpu_times(), process.name() == "java"
            except psutil.NoSuchProcess:
                continue
            group = name if name in ("broker", "program") else ("jvm" if is_java else "python")
            self._seen[group, process.pid] = times.user + times.system

    def _pid(self, process: str) -> int:
        pid = running_pid(self._home.pid_file(process))
        if pid is None:
            msg = f"{process} does not run in {self._home.root}; start it: headrace services up"
            raise BenchError(msg)
        return pid


def follow(meter: Meter, progress: Callable[[], int], count: int, is_alive: Callable[[], object]) -> list[Sample]:
    """Sample until `count` events are done.

    Raises
    ------
    BenchError : nothing moves for two minutes.
    """
    samples, moved_s = [Sample(time.monotonic(), 0, meter())], time.monotonic()
    while samples[-1].events < count:
        time.sleep(SAMPLE_S)
        is_alive()
        now_s = time.monotonic()
        samples.append(Sample(now_s, min(progress(), count), meter()))
        if samples[-1].events > samples[-2].events:
            moved_s = now_s
        elif now_s - moved_s > STALL_S:
            msg = f"{samples[-1].events:,} of {count:,} events came out, and none for {STALL_S:.0f} s"
            raise BenchError(msg)
    return samples


def cost(samples: list[Sample], first_share: float) -> Cost:
    """Return the cost of the events behind the first share of them."""
    count = samples[-1].events
    start = next(one for one in samples if one.events >= first_share * count)
    end = samples[-1]
    events = end.events - start.events
    if events == 0:
        msg = f"{count:,} events were done in one step: too few to measure; ask for more of them"
        raise BenchError(msg)
    cpu_us = {group: 1e6 * (spent_s - start.cpu_s[group]) / events for group, spent_s in end.cpu_s.items()}
    return Cost(events, events / (end.at_s - start.at_s), cpu_us)
