"""Tasks of a small Flink: the real operators over keyed state in memory, channels between them, aligned barriers.

What it keeps of Flink is what exactness rests on: order within a channel and none between channels, state per key and
key group, a snapshot of a task once each of its channels has brought the barrier, and processing-time timers.
"""

from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from udfs.core.rows.lanes import key_group
from udfs.featurize import Featurize

MAX_PARALLELISM = 128


class Barrier(NamedTuple):
    """What a snapshot sends through all channels."""

    checkpoint: int


class Message(NamedTuple):
    """A row on its way, with the key that it is partitioned by."""

    key: int
    value: Any


Channel = deque[Message | Barrier]


def owner(key: int, parallelism: int) -> int:
    """Return the subtask of a key, as Flink does."""
    return key_group(key, MAX_PARALLELISM) * parallelism // MAX_PARALLELISM


@dataclass
class KeyState:
    """All state of one key of one operator."""

    maps: dict[str, dict[Any, bytes]] = field(default_factory=dict)
    values: dict[str, bytes] = field(default_factory=dict)
    timers: set[int] = field(default_factory=set)


class _MapState:
    def __init__(self, task: "Task", name: str) -> None:
        self._task, self._name = task, name

    @property
    def _of_key(self) -> dict[Any, bytes]:
        return self._task.current.maps.setdefault(self._name, {})

    def put(self, key: Any, data: bytes) -> None:
        self._of_key[key] = bytes(data)

    def get(self, key: Any) -> bytes | None:
        return self._of_key.get(key)

    def remove(self, key: Any) -> None:
        self._of_key.pop(key, None)

    def keys(self) -> Iterator[Any]:
        return iter(list(self._of_key))

    def items(self) -> Iterator[tuple[Any, bytes]]:
        return iter(list(self._of_key.items()))


class _ValueState:
    def __init__(self, task: "Task", name: str) -> None:
        self._task, self._name = task, name

    def value(self) -> bytes | None:
        return self._task.current.values.get(self._name)

    def update(self, data: bytes) -> None:
        self._task.current.values[self._name] = data


class Task:
    """One subtask of a featurize operator; also the runtime context and the timer service that the operator sees."""

    def __init__(self, operator: Featurize, states: dict[int, KeyState], channels: int) -> None:
        self.states, self.inputs = states, [Channel() for _ in range(channels)]
        self.now_ms = 0
        self._key = 0
        self._blocked: set[int] = set()
        self._operator = operator
        operator.open(self)

    # What the operator asks of Flink.
    def get_map_state(self, descriptor: Any) -> _MapState:
        return _MapState(self, descriptor.get_name())

    def get_state(self, descriptor: Any) -> _ValueState:
        return _ValueState(self, descriptor.get_name())

    def get_metrics_group(self) -> "Task":
        return self

    def gauge(self, name: str, value: Any) -> None:
        """Nobody reads the metrics."""

    def get_current_key(self) -> int:
        return self._key

    def timer_service(self) -> "Task":
        return self

    def current_processing_time(self) -> int:
        return self.now_ms

    def register_processing_time_timer(self, at_ms: int) -> None:
        self.current.timers.add(at_ms)

    @property
    def current(self) -> KeyState:
        """State of the key that is at work."""
        return self.states.setdefault(self._key, KeyState())

    # What the cluster asks of the task.
    def ready(self) -> list[int]:
        """Return the channels that may be read from."""
        return [i for i, channel in enumerate(self.inputs) if channel and i not in self._blocked]

    def take(self, channel: int) -> list[Message] | Barrier | None:
        """Read one element: what comes of it, or the barrier once it has come through every channel."""
        element = self.inputs[channel].popleft()
        if isinstance(element, Barrier):
            self._blocked.add(channel)
            if len(self._blocked) < len(self.inputs):
                return None
            self._blocked.clear()
            return element
        self._key = element.key
        return [Message(*row) for row in self._operator.process_element(element.value, self)]

    def fire(self, now_ms: int) -> list[Message]:
        """Move the clock, and run the timers that are due."""
        self.now_ms, sent = now_ms, []
        for key in list(self.states):
            for at_ms in sorted(at for at in self.states[key].timers if at <= now_ms):
                self._key = key
                self.current.timers.discard(at_ms)
                sent += [Message(*row) for row in self._operator.on_timer(at_ms, self)]
        return sent

    def snapshot(self) -> dict[int, KeyState]:
        return deepcopy(self.states)
