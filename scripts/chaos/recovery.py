"""Recovery: how long after a fault the job writes again at the rate at which events come."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from scripts.chaos.settings import ChaosError

SAMPLE_S, WINDOW_S, FULL = 0.1, 1.0, 0.9
Sample = tuple[float, int]


def recovered_after_s(samples: Sequence[Sample], fault_s: float, rate: float) -> float | None:
    """Return seconds from a fault to the first second, behind the gap that it made, at 90 % of the rate; None: not yet.

    Parameters
    ----------
    samples : (time, records written so far), in order
    fault_s : on the same clock
    rate : records per second that come in

    Examples
    --------
    >>> down = [(second / 10, 100 * second // 10) for second in range(20)] + [(5.0, 190), (5.1, 190)]
    >>> up = [(5.1 + second / 10, 190 + 30 * second) for second in range(1, 15)]
    >>> recovered_after_s(down + up, 2.0, 100.0)
    4.0
    """
    gap = False
    window: deque[Sample] = deque()
    for at_s, count in samples:
        window.append((at_s, count))
        while len(window) > 1 and at_s - window[1][0] >= WINDOW_S:
            window.popleft()
        if at_s - window[0][0] < WINDOW_S or at_s <= fault_s:
            continue
        speed = (count - window[0][1]) / (at_s - window[0][0])
        if not gap:
            gap = window[0][0] >= fault_s - WINDOW_S and speed < FULL * rate / 2
        elif speed >= FULL * rate:
            return round(at_s - fault_s, 1)
    return None


class Sampler:
    """Samples how much has been written, in a thread of its own; a broker that is away gives no sample."""

    def __init__(self, progress: Callable[[], int]) -> None:
        self._progress = progress
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            try:
                self.samples.append((time.monotonic(), self._progress()))
            except ChaosError:
                continue
