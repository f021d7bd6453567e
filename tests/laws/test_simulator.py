"""The path of the job under a simulated cluster: whatever happens in whatever order, every input ends once, exactly.

`HEADRACE_SIMULATE_S` says for how long fresh seeds are tried; a seed that fails is printed, and fails again.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.run import run_for, simulate
from tests.simulator.tasks import Barrier, Task, _MapState

SECONDS = float(os.environ.get("HEADRACE_SIMULATE_S", "40"))


def test_no_order_of_events_and_no_fault_shows_in_what_is_committed(tmp_path: Path) -> None:
    met = run_for(SECONDS, tmp_path, random.SystemRandom().randrange(10**9))
    assert min(met[what] for what in ("runs", "crash", "stop", "rescale")) >= 3
    assert met["predictions"] > 10 * met["runs"]


def test_a_seed_gives_the_same_run_again(tmp_path: Path) -> None:
    assert simulate(7, tmp_path) == simulate(7, tmp_path)


def _unaligned(take: Callable[..., Any]) -> Callable[..., Any]:
    def broken(self: Task, channel: int) -> Any:
        if isinstance(self.inputs[channel][0], Barrier):
            self._blocked.clear()  # the other channels are read on
            self._passed = getattr(self, "_passed", 0) + 1  # type: ignore[attr-defined]
            barrier = self.inputs[channel].popleft()
            return barrier if self._passed % len(self.inputs) == 0 else None  # type: ignore[attr-defined]
        return take(self, channel)

    return broken


def _forgetful(put: Callable[..., Any]) -> Callable[..., Any]:
    def broken(self: _MapState, key: Any, data: bytes) -> None:
        if len(data) % 7:
            put(self, key, data)

    return broken


@pytest.mark.parametrize(("owner", "name", "breaks"), [(Task, "take", _unaligned), (_MapState, "put", _forgetful)])
def test_a_broken_engine_is_found(
    owner: type, name: str, breaks: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, breaks(getattr(owner, name)))
    with pytest.raises(AssertionError, match=r"python -m tests\.simulator\.run --seed"):
        run_for(30.0, tmp_path, 1)
