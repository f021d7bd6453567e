"""B7, the price of exactly once: the same job with each guarantee: python -m scripts.bench.guarantees

Headrace's job over the payments topic of B2, at least once and exactly once, with a checkpoint each 10 s and each 1 s,
in turns. Both write the same records; each run's outputs are counted: every event must be there, once.
"""

import statistics
from typing import Annotated

import typer

from scripts.bench.payments.meter import Cost
from scripts.bench.payments.outputs import check_ids
from scripts.bench.payments.programs import Bench, Guarantee, cost, figures
from scripts.bench.report import Ratio, report
from scripts.load.cli import send_to
from scripts.load.send import Sender
from scripts.load.settings import Load
from scripts.services import services

WARM_SHARE = 0.25


def main(
    events: Annotated[int, typer.Option(help="Through the job, each run.")] = 4_000_000,
    rounds: Annotated[int, typer.Option(help="Of each guarantee and interval.", min=1)] = 5,
    intervals: Annotated[str, typer.Option(help="Between checkpoints, comma-separated.")] = "10s,1s",
) -> None:
    """Run in turns, print."""
    places = services.up(names=["kafka", "mlflow", "flink"])
    bench = Bench(places, "guarantees")
    ways = [Guarantee(once, interval) for interval in intervals.split(",") for once in (False, True)]
    found: dict[Guarantee, list[Cost]] = {way: [] for way in ways}
    try:
        source = bench.topic("events")
        send_to(Load(), events, Sender(places.kafka, source))
        for number in range(rounds):
            for way in ways[:: -1 if number % 2 else 1]:
                sink = bench.sink()
                with bench.headrace(source, sink, way) as job_id:
                    samples = bench.follow_job(job_id, sink, events)
                    check_ids(places.kafka, sink, events)
                found[way].append(cost(samples, WARM_SHARE))
                print(f"{way.text}: {found[way][-1].rate_eps:,.0f}/s", flush=True)
    finally:
        bench.close()
    said: dict[str, float | str] = {}
    for way, costs in found.items():
        said |= figures(way.text, sorted(costs, key=lambda one: one.rate_eps)[len(costs) // 2], way.text)
        said[f"{way.text}: spread of events/s"] = ", ".join(f"{one.rate_eps:,.0f}" for one in costs)
    median = {way: statistics.median(one.rate_eps for one in costs) for way, costs in found.items()}
    ratios = []
    for least, most in zip(ways[::2], ways[1::2], strict=True):
        target = 0.97 if most.interval == "10s" else 0.9
        name = f"exactly once / at least once, events/s, checkpoint each {most.interval}"
        ratios.append(Ratio(name, median[most] / median[least], target, at_least=True))
    report("guarantees", said, ratios)


if __name__ == "__main__":
    typer.run(main)
