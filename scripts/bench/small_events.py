"""B2, small events: Headrace's job, the limit program and plain PyFlink: python -m scripts.bench.small_events

160-byte payments, 25 windowed features of three entities and 5 of the event, a feed-forward network, Kafka to Kafka.
All programs read the same bytes, score with the same ONNX file and write records of the same length. First each one's
scores of a small topic are compared with a plain loop; then they run in the order A B B A, on one slot. Costs are those
of the events behind the first quarter of a run: start-up and warm-up are left out.
"""

import os
import statistics
from collections.abc import Callable
from typing import Annotated

import typer

from scripts.bench.payments.meter import Cost
from scripts.bench.payments.oracle import expected
from scripts.bench.payments.outputs import check_ids, check_scores
from scripts.bench.payments.programs import Bench, Guarantee, cost, figures
from scripts.bench.report import Ratio, report
from scripts.load.cli import send_to
from scripts.load.send import Sender
from scripts.load.settings import Load
from scripts.load.stream import sample
from scripts.services import services

CHECKED = 3_000
SMALL = Load(seed=3, users=300, merchants=40, event_rate=0.5)
WARM_SHARE = 0.25
NO_GUARANTEE = "none to speak of: at least once out, state in memory only"


def main(
    events: Annotated[int, typer.Option(help="Through Headrace and the limit program, each round.")] = 4_000_000,
    plain_events: Annotated[int, typer.Option(help="Through plain PyFlink, each round; it is much slower.")] = 60_000,
    rounds: Annotated[int, typer.Option(help="Of each program.", min=1)] = 5,
    users: Annotated[int, typer.Option(help="Zipf users.")] = 100_000,
    skip_check: Annotated[bool, typer.Option(help="For trying things out.")] = False,
) -> None:
    """Check, run in turns, print."""
    places, promised = services.up(names=["kafka", "mlflow", "flink"]), Guarantee()
    bench, load = Bench(places, "small_events"), Load(users=users)
    said: dict[str, float | str] = {}
    found: dict[str, list[Cost]] = {"headrace": [], "limit": [], "plain": []}
    try:
        if not skip_check:
            said["check"] = check(bench, promised)
            print(said["check"], flush=True)
        source = bench.topic("events")
        send_to(load, events, Sender(places.kafka, source))
        few = bench.topic("few")
        send_to(load, plain_events, Sender(places.kafka, few))

        def headrace() -> Cost:
            sink = bench.sink()
            with bench.headrace(source, sink, promised) as job_id:
                samples = bench.follow_job(job_id, sink, events)
                check_ids(places.kafka, sink, events)
            return cost(samples, WARM_SHARE)

        def limit() -> Cost:
            sink = bench.sink()
            samples = bench.limit(source, sink, events)
            check_ids(places.kafka, sink, events)
            return cost(samples, WARM_SHARE)

        def plain() -> Cost:
            sink = bench.sink()
            with bench.plain(few, sink, promised) as job_id:
                samples = bench.follow_job(job_id, sink, plain_events)
                check_ids(places.kafka, sink, plain_events)
            return cost(samples, WARM_SHARE)

        programs: dict[str, Callable[[], Cost]] = {"limit": limit, "headrace": headrace, "plain": plain}
        for number in range(rounds):
            for name in sorted(programs, reverse=number % 2 == 1):
                one = programs[name]()
                found[name].append(one)
                load_now = os.getloadavg()[0]
                print(f"{name}: {one.rate_eps:,.0f}/s, {one.per_cpu_s:,.0f} per CPU s, load {load_now:.1f}", flush=True)
    finally:
        bench.close()
    middle = {name: sorted(costs, key=lambda one: one.per_cpu_s)[len(costs) // 2] for name, costs in found.items()}
    for name, one in middle.items():
        said |= figures(name, one, NO_GUARANTEE if name == "limit" else promised.text)
        rates = [other.per_cpu_s for other in found[name]]
        said[f"{name}: spread of events per CPU second"] = f"{min(rates):,.0f} to {max(rates):,.0f}, rounds: {rounds}"
    median = {name: statistics.median(one.per_cpu_s for one in costs) for name, costs in found.items()}
    median["headrace"]
    report(
        "small_events",
        said,
        [
            Ratio(
                "Headrace / limit program, events per CPU second",
                median["headrace"] / median["limit"],
                0.5,
                at_least=True,
            ),
            Ratio(
                "Headrace / plain PyFlink, events per CPU second",
                median["headrace"] / median["plain"],
                10.0,
                at_least=True,
            ),
        ],
    )


def check(bench: Bench, promised: Guarantee) -> str:
    """Compare each program's scores with those of a plain loop."""
    records = sample(SMALL, CHECKED)
    wanted = expected([value for value in records.values if value])
    source = bench.topic("check")
    send_to(SMALL, CHECKED, Sender(bench.places.kafka, source))
    differences = {}
    sink = bench.sink()
    with bench.headrace(source, sink, promised) as job_id:
        bench.follow_job(job_id, sink, len(wanted))
        differences["headrace"] = check_scores(bench.places.kafka, sink, wanted)
    sink = bench.sink()
    bench.limit(source, sink, len(wanted))
    differences["limit"] = check_scores(bench.places.kafka, sink, wanted)
    sink = bench.sink()
    with bench.plain(source, sink, promised) as job_id:
        bench.follow_job(job_id, sink, len(wanted))
        differences["plain"] = check_scores(bench.places.kafka, sink, wanted)
    worst = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    return f"{CHECKED:,} events, scores as a plain loop gives them; largest difference: {worst}"


if __name__ == "__main__":
    typer.run(main)
