"""Deadlines: one thread that ends model runs whose time is over, however many are under way."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime as ort

_QUIET = 4


class DeadlineError(Exception):
    """A run was ended, since its time was over."""


class Deadlines:
    """Gives runs options with which ONNX Runtime ends them, at the next operator, once a fixed time is over.

    A run that comes to its end all the same counts: what it found is as good, and there already.

    Parameters
    ----------
    limit_ms : how long a run may take, wall clock; None: as long as it likes, and there is no thread
    """

    def __init__(self, limit_ms: int | None) -> None:
        self._limit_s = None if limit_ms is None else limit_ms / 1000
        # All wait for equally long, so the first in line is due first.
        self._line: deque[tuple[float, ort.RunOptions, threading.Event]] = deque()
        self._begun = threading.Event()
        self._is_closed = False
        if limit_ms is not None:
            threading.Thread(target=self._watch, daemon=True, name="deadlines").start()

    @contextmanager
    def limited(self) -> Iterator[ort.RunOptions]:
        """Yield the options of one or more runs that have the time together.

        Raises
        ------
        DeadlineError : the time was over, and a run ended for it.
        """
        options = ort.RunOptions()
        options.log_severity_level = _QUIET
        if self._limit_s is None:
            yield options
            return
        is_done = threading.Event()
        due_s = time.monotonic() + self._limit_s
        self._line.append((due_s, options, is_done))
        self._begun.set()
        try:
            yield options
        except Exception as error:
            if options.terminate:
                msg = f"took longer than {self._limit_s * 1000:.0f} ms"
                raise DeadlineError(msg) from error
            raise
        finally:
            is_done.set()

    def close(self) -> None:
        """End the thread, once no run waits for it."""
        self._is_closed = True
        self._begun.set()

    def _watch(self) -> None:
        while self._line or not self._is_closed:
            if not self._line:
                self._begun.clear()
                if not self._line and not self._is_closed:  # either may have come just before
                    self._begun.wait()
                continue
            due_s, options, is_done = self._line.popleft()
            if not is_done.wait(max(due_s - time.monotonic(), 0)):
                options.terminate = True
