"""The features stage beside Flink SQL and PyFlink's windows, events per CPU second.

python -m scripts.bench.features_stage

The same events from one Kafka topic, through the same 3 windows x 4 aggregates, RocksDB, a checkpoint each 10 s, one
job after the other, each in a JVM of its own that is warm when the clock starts. CPU is that of all processes of the
job, the JVM and Python. First, each way's results over a small topic are compared with a plain loop. Flink SQL gives
exact RANGE windows per event, ours sawtooth windows per event, PyFlink's window API one result per slide.
"""

import json
import math
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from confluent_kafka import Producer

from scripts.bench.report import Ratio, report
from scripts.bench.synthetic import SIZES, SLIDE, START_MS, TAKES, zipf
from scripts.kafka.topics import Topic, create, delete
from udfs.core.declare.durations import parse_duration_ms
from udfs.core.home import services_home

REPOSITORY = Path(__file__).parents[2]
KEYS, RATE, CHECKED = 100_000, 1_000, 1_500
FUNCTIONS: dict[str, Callable[[list[float]], float]] = {"count": len, "sum": math.fsum, "min": min, "max": max}
Event = tuple[str, int, float]


def events(count: int, keys: int, step_ms: int) -> list[Event]:
    """Return (user, event time, amount), in order of time, each at its own millisecond."""
    chance = np.random.default_rng(5)
    users, amounts = zipf(chance, keys, count).tolist(), chance.random(count).round(6).tolist()
    return [
        (f"user-{user}", START_MS + i * step_ms, amount)
        for i, (user, amount) in enumerate(zip(users, amounts, strict=True))
    ]


def produce(bootstrap: str, topic: str, given: list[Event]) -> None:
    """Write events to a topic of their own."""
    create(bootstrap, [Topic(topic)])
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000})
    for i, (user, at_ms, amount) in enumerate(given):
        value = {"id": str(i), "at_ms": at_ms, "user": user, "amount": amount}
        producer.produce(topic, json.dumps(value, separators=(",", ":")).encode(), user.encode())
        if i % 10_000 == 0:
            producer.poll(0)
    producer.flush()


def run(way: str, bootstrap: str, lib: str, topic: str, count: int, *more: str) -> dict[str, Any]:
    """Run one job in a process of its own and return what it says."""
    code = "import typer; from scripts.bench.feature_jobs import run; typer.run(run)"
    command = [sys.executable, "-c", code, way, "--bootstrap", bootstrap, "--lib", lib, "--topic", topic]
    done = subprocess.run(
        [*command, "--count", str(count), *more], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def expected(given: list[Event], way: str) -> list[dict[str, Any]]:
    """Return what a plain loop says for each event: exact windows for SQL, whole tiles at the far end for ours."""
    slide_ms, before, rows = parse_duration_ms(SLIDE), defaultdict[str, list[tuple[int, float]]](list), []
    for i, (user, at_ms, amount) in enumerate(given):
        before[user].append((at_ms, amount))
        row: dict[str, Any] = {"id": str(i)}
        for size in SIZES:
            first_ms = at_ms - parse_duration_ms(size)
            if way == "headrace":
                first_ms = first_ms // slide_ms * slide_ms
            within = [value for time_ms, value in before[user] if time_ms >= first_ms]
            row |= {f"{take}_{size}": FUNCTIONS[take](within) for take in TAKES}
        rows.append(row)
    return rows


def expected_windows(given: list[Event]) -> list[dict[str, Any]]:
    """Return what a plain loop says for each sliding window that holds an event."""
    slide_ms, rows = parse_duration_ms(SLIDE), []
    for size in SIZES:
        size_ms, held = parse_duration_ms(size), defaultdict[tuple[str, int], list[float]](list)
        for user, at_ms, amount in given:
            last = at_ms // slide_ms * slide_ms
            for start_ms in range(last, at_ms - size_ms, -slide_ms):
                held[user, start_ms].append(amount)
        rows += [{"size": size} | {take: FUNCTIONS[take](values) for take in TAKES} for values in held.values()]
    return rows


def rounded(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    """Return rows as a bag, numbers to 9 digits."""
    return Counter(
        tuple(f"{value:.9g}" if isinstance(value, int | float) else value for _, value in sorted(row.items()))
        for row in rows
    )


def check(bootstrap: str, lib: str, topic: str) -> None:
    """Exit unless each way gives what the loop gives."""
    given = events(CHECKED, 40, 4_001)
    produce(bootstrap, topic, given)
    for way in ("headrace", "sql"):
        got = run(way, bootstrap, lib, topic, CHECKED, "--keep")["kept"]
        if rounded(got) != rounded(expected(given, way)):
            sys.exit(f"{way}: {len(got)} rows, and not those that the events say")
    few = given[:60]
    produce(bootstrap, f"{topic}-few", few)
    got = run("windows", bootstrap, lib, f"{topic}-few", len(few), "--keep")["kept"]
    if rounded(got) != rounded(expected_windows(few)):
        sys.exit(f"windows: {len(got)} results, and not those that the events say")


def main(
    ours: Annotated[int, typer.Option(help="Events through our stage.")] = 1_000_000,
    over: Annotated[int, typer.Option(help="Of these, the first through OVER, slower as windows fill.")] = 20_000,
    windows: Annotated[int, typer.Option(help="Of these, the first through PyFlink's windows.")] = 500,
    skip_check: Annotated[bool, typer.Option(help="For trying things out.")] = False,
) -> None:
    """Check, run one after the other, print."""
    endpoints = json.loads((services_home() / "endpoints.json").read_text(encoding="utf-8"))
    bootstrap, lib = endpoints["kafka"], endpoints["flink_lib_dir"]
    prefix = f"bench-{os.getpid()}"
    given = events(ours, KEYS, 1_000 // RATE)
    sizes = {"headrace": ours, "sql": over, "windows": windows}
    topics = {name: f"{prefix}-{name}" for way in sizes for name in (way, f"{way}-warm")}
    figures: dict[str, float | str] = {}
    rates = {}
    try:
        if not skip_check:
            check(bootstrap, lib, f"{prefix}-check")
            figures["check"] = f"{CHECKED:,} events through ours and SQL, 60 through windows, are what a loop gives"
        for way, count in sizes.items():
            warm_count = max(count // 4, 1)
            produce(bootstrap, topics[f"{way}-warm"], given[:warm_count])
            produce(bootstrap, topics[way], given[:count])
            warm = topics[f"{way}-warm"]
            said = run(way, bootstrap, lib, topics[way], count, "--warm-topic", warm, "--warm-count", str(warm_count))
            if way != "windows" and said["rows"] != count:
                sys.exit(f"{way}: {said['rows']} of {count} events came out")
            rates[way] = count / (said["jvm_s"] + said["python_s"])
            print(f"{way}: {rates[way]:,.0f} events per CPU second, load {os.getloadavg()[0]:.1f}", flush=True)
            figures |= {
                f"{way}: events": float(count),
                f"{way}: events per CPU second": rates[way],
                f"{way}: CPU of the JVM, s": said["jvm_s"],
                f"{way}: CPU of Python, s": said["python_s"],
                f"{way}: wall, s": said["wall_s"],
                f"{way}: load": os.getloadavg()[0],
            }
    finally:
        delete(bootstrap, [*topics.values(), f"{prefix}-check", f"{prefix}-check-few"])
    report(
        "features_stage",
        figures,
        [
            Ratio("ours / Flink SQL OVER, events per CPU second", rates["headrace"] / rates["sql"], 3.0, at_least=True),
            Ratio("ours / PyFlink windows", rates["headrace"] / rates["windows"], 100.0, at_least=True),
        ],
    )


if __name__ == "__main__":
    typer.run(main)
