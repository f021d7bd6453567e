"""B4, latency: from the append of an event to the append of its prediction, open loop: python -m scripts.bench.latency

Payments come at an even pace, whatever the job does. Both times are the broker's, so one clock. At least once, a
prediction is seen when it is appended; exactly once, readers of committed records see it at the end of its transaction,
which is measured by such a reader's own clock, on this machine. The first quarter of a run is left out.
"""

import statistics
import threading
import time
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

from scripts.bench.payments.meter import BenchError
from scripts.bench.payments.outputs import committed
from scripts.bench.payments.programs import Bench, Guarantee
from scripts.bench.report import Ratio, report
from scripts.load.cli import send_to
from scripts.load.send import Sender
from scripts.load.settings import Load
from scripts.services import services

PERCENTILES = (50, 90, 99, 100)
SENDER_LINGER_MS = 1.0
Seen = list[tuple[float, int, int]]


class _Origin(msgspec.Struct):
    timestamp_ms: int


class _Prediction(msgspec.Struct):
    event_id: str
    origin: _Origin


def main(
    rate: Annotated[float, typer.Option(help="Payments per second.")] = 2_000.0,
    seconds: Annotated[int, typer.Option(help="How long they come, each round.")] = 120,
    rounds: Annotated[int, typer.Option(help="Of each guarantee.", min=1)] = 3,
    target: Annotated[str, typer.Option(help="latency.target of the pipeline.")] = "50ms",
    interval: Annotated[str, typer.Option(help="Between checkpoints, under exactly once.")] = "1s",
) -> None:
    """Run in turns, print."""
    places = services.up(names=["kafka", "mlflow", "flink"])
    bench = Bench(places, "latency")
    ways = {
        "at least once, appended": Guarantee(exactly_once=False, interval="10s"),
        "exactly once, seen by read_committed": Guarantee(exactly_once=True, interval=interval),
    }
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    said: dict[str, float | str] = {"rate": f"{rate:,.0f} events/s, open loop", "latency.target": target}
    try:
        for number in range(rounds):
            for name in sorted(ways, reverse=number % 2 == 1):
                one = measure(bench, ways[name], rate, int(rate * seconds), target)
                found[name].append(one)
                print(f"{name}: " + ", ".join(f"p{p} {ms:.0f} ms" for p, ms in zip(PERCENTILES, one, strict=True)))
    finally:
        bench.close()
    p99 = {}
    for name, runs in found.items():
        said[f"{name}: guarantee"] = ways[name].text
        for place, percentile in enumerate(PERCENTILES):
            label = "max" if percentile == 100 else f"p{percentile}"
            said[f"{name}: {label}, ms"] = statistics.median(run[place] for run in runs)
        p99[name] = statistics.median(run[2] for run in runs)
        said[f"{name}: spread of p99, ms"] = ", ".join(f"{run[2]:.0f}" for run in runs)
    interval_ms = float(interval.removesuffix("s")) * 1000
    least, most = ways
    report(
        "latency",
        said,
        [
            Ratio("p99 at least once, append to append", p99[least], 60, at_least=False, unit="ms"),
            Ratio("p99 exactly once, append to visible", p99[most], interval_ms + 100, at_least=False, unit="ms"),
        ],
    )


def measure(bench: Bench, way: Guarantee, rate: float, count: int, target: str) -> tuple[float, ...]:
    """Return the percentiles of one run, in milliseconds."""
    source, sink, kafka = bench.topic(f"events-{bench.runs}"), bench.sink(), bench.places.kafka
    seen: Seen = []

    def read() -> None:
        for message in committed(kafka, sink, count, wait_s=60 + count / rate, gather_s=0.002):
            arrived_ms = time.time() * 1000
            seen.append((arrived_ms, message.timestamp()[1], _origin_ms(message)))

    with bench.headrace(source, sink, way, latency={"target": target}):
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        send_to(Load(), count, Sender(kafka, source, SENDER_LINGER_MS), rate)
        reader.join(60)
    if len(seen) < count:
        msg = f"{sink}: {len(seen):,} of {count:,} predictions came"
        raise BenchError(msg)
    times = np.array(seen[count // 4 :])
    latency_ms = times[:, 0 if way.exactly_once else 1] - times[:, 2]
    return tuple(np.percentile(latency_ms, PERCENTILES, method="higher").tolist())


def _origin_ms(message: Any) -> int:
    return msgspec.json.decode(message.value(), type=_Prediction).origin.timestamp_ms


if __name__ == "__main__":
    typer.run(main)
