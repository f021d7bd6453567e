"""Circuit breaker: a model that keeps failing is left alone for a while. Counted in batches, so no clock decides."""

import threading

from udfs.core.declare.serving import BreakerPolicy


class Breaker:
    """Closed: the model is asked. Open: it is left alone, for so many batches; then one batch tries it again.

    Examples
    --------
    >>> breaker = Breaker(BreakerPolicy(after=2, batches=1))
    >>> breaker.failed(), breaker.failed()
    (None, None)
    >>> breaker.asks(), breaker.asks()  # one batch is left out, the next one tries
    (False, True)
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._failures = self._left_out = 0
        self._lock = threading.Lock()  # batches are scored by several threads

    @property
    def is_open(self) -> bool:
        """Whether the model is left alone."""
        return self._failures >= self._policy.after

    def asks(self) -> bool:
        """Say whether the next batch goes to the model; call it once per batch."""
        with self._lock:
            if not self.is_open:
                return True
            self._left_out += 1
            if self._left_out <= self._policy.batches:
                return False
            self._left_out = 0
            return True

    def failed(self) -> None:
        """The model failed on a batch as a whole."""
        with self._lock:
            self._failures += 1

    def succeeded(self) -> None:
        """The model scored a batch; single rows may have been rejected."""
        with self._lock:
            self._failures = self._left_out = 0
