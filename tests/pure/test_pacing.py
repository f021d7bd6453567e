"""A replay sends each event when it is due, in order, and ends when a record is not acknowledged."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.flights.replay import ReplayError, due_times_s, replay, send
from scripts.flights.stream import Events


@dataclass
class FakeFuture:
    exception: Exception | None = None
    is_done: bool = False

    def failed(self) -> bool:
        return self.is_done and self.exception is not None


@dataclass
class FakeProducer:
    """Acknowledges on flush; a value of `bad` is refused, one of `lost` never answered."""

    clock: "FakeClock"
    sent: list[tuple[float, str, bytes | None, bytes | None]] = field(default_factory=list)
    futures: list[tuple[bytes | None, FakeFuture]] = field(default_factory=list)

    def send(self, topic: str, value: bytes | None, key: bytes | None) -> FakeFuture:
        self.sent.append((round(self.clock.now_s, 3), topic, value, key))
        future = FakeFuture(OSError("full") if value == b"bad" else None)
        self.futures.append((value, future))
        return future

    def flush(self, timeout: float) -> None:
        assert timeout > 0
        for value, future in self.futures:
            future.is_done = value != b"lost"


@dataclass
class FakeClock:
    now_s: float = 100.0

    def read(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        assert duration_s > 0
        self.now_s += duration_s


def stream(*values: bytes, step_ms: int = 1_000) -> Events:
    return Events(["t"] * len(values), [b"k"] * len(values), values, np.arange(len(values)) * step_ms + 5_000)


def run(events: Events, due_s: NDArray[np.float64] | None) -> tuple[FakeProducer, int]:
    clock, counts = FakeClock(), list[int]()
    producer = FakeProducer(clock)
    send(events, due_s, producer, on_acknowledged=counts.append, clock=clock.read, sleep=clock.sleep)
    return producer, sum(counts)


@pytest.mark.parametrize(
    ("speed_up", "rate_eps", "fast", "want_s"),
    [
        (2.0, None, False, [100.0, 100.5, 101.0]),
        (None, 4.0, False, [100.0, 100.25, 100.5]),
        (None, None, True, [100.0, 100.0, 100.0]),
    ],
)
def test_each_event_is_sent_when_it_is_due(
    speed_up: float | None, rate_eps: float | None, fast: bool, want_s: list[float]
) -> None:
    events = stream(b"a", b"b", b"c")
    producer, acknowledged = run(events, due_times_s(events.times_ms, speed_up, rate_eps, as_fast_as_possible=fast))
    assert producer.sent == [(at_s, "t", value, b"k") for at_s, value in zip(want_s, (b"a", b"b", b"c"), strict=True)]
    assert acknowledged == 3


def test_nothing_to_send_is_fine() -> None:
    events = stream()
    for pace in ((3.0, None, False), (None, 3.0, False), (None, None, True)):
        due_s = due_times_s(events.times_ms, pace[0], pace[1], as_fast_as_possible=pace[2])
        assert run(events, due_s) == (FakeProducer(FakeClock()), 0)


def test_a_refused_record_ends_the_replay() -> None:
    with pytest.raises(ReplayError, match=r"not acknowledged: OSError\('full'\)"):
        run(stream(b"a", b"bad", b"c"), None)


def test_a_record_without_an_answer_ends_the_replay() -> None:
    with pytest.raises(ReplayError, match="2 of 3 records were neither acknowledged nor refused"):
        run(stream(b"a", b"lost", b"c"), None)


def test_the_pace_must_be_one_and_above_nothing() -> None:
    events = stream(b"a")
    with pytest.raises(ReplayError, match="give exactly one of"):
        replay(events, "nowhere:1", speed_up=1.0, rate_eps=1.0)
    with pytest.raises(ReplayError, match="give exactly one of"):
        replay(events, "nowhere:1")
    with pytest.raises(ReplayError, match=r"above 0 and finite; got 0\.0"):
        replay(events, "nowhere:1", rate_eps=0.0)
    with pytest.raises(ReplayError, match="did you mean 'event_time'"):
        replay(events, "nowhere:1", rate_eps=1.0, stream_order="event_tim")  # type: ignore[arg-type]
