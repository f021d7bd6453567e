"""docs/benchmarks.md and build/bench/report.json, from what benchmarks left: python -m scripts.bench.page

The page holds what was measured last, each number with its guarantee; a benchmark that was not run is named as such.
"""

import json
import re
from pathlib import Path
from typing import Any

import typer

from scripts.bench.plots import bars
from scripts.bench.report import FOLDER

DOCS = Path(__file__).parents[2] / "docs"
#: file in build/bench -> heading, and what is measured
PARTS = {
    "small_events": (
        "B2: small events, Kafka to Kafka",
        (
            "160-byte payments, 25 windowed features of three entities, an ONNX network, one slot. All programs read"
            " the same bytes, run the same model and write records of one length. `limit` is a single process with the"
            " same kernels and no guarantee; `plain` is PyFlink as its documentation shows it. `python -m scripts.bench"
            " small_events`"
        ),
    ),
    "guarantees": (
        "B7: the price of exactly once",
        "The same job and events, at least once and exactly once. `python -m scripts.bench guarantees`",
    ),
    "latency": (
        "B4: latency at 2,000 events/s",
        (
            "Open loop; from the broker's append of the event to the append of its prediction, or to when a"
            " reader of committed records has it. `python -m scripts.bench latency`"
        ),
    ),
    "path_costs": (
        "Where the Python side spends its time",
        "The steps of a worker without Flink. `python -m scripts.bench path_costs`",
    ),
    "serving": (
        "The score stage beside a bare ONNX Runtime loop",
        "A dense network, the stage's routing, guards and checks included. `python -m scripts.bench serving`",
    ),
    "kernel": ("The window kernel alone", "`python -m scripts.bench kernel`"),
    "features_stage": (
        "B5: windows, beside Flink SQL and PyFlink's windows",
        "The features stage of the job alone. `python -m scripts.bench features_stage`",
    ),
    "checkpoint": ("Checkpoints", "`python -m scripts.bench checkpoint`"),
    "memory": ("Memory of a lane", "`python -m scripts.bench memory`"),
}
#: benchmarks and peers that are not here, and why
MISSING = (
    "B1, Crayfish's network of 784 floats: not yet",
    "B3, the micro-batcher beside BentoML and Ray Serve: not yet",
    "B6, the online store: `python -m scripts.bench online_store` prints its table; Feast beside it: not yet",
    "B8, recovery and model swap: with the fault tests",
    "scaling over users, slots and lanes; a soak of 20 minutes: not yet",
    "peers Quix Streams, Bytewax, Pathway, Spark, Beam RunInference: not yet",
)
INTRODUCTION = (
    "Written by `make bench` (about an hour) or `make bench-quick` (under ten minutes, one round each); both need"
    " nothing but a clone. Each benchmark compares its outputs with an oracle first, and stops if they differ. Rates"
    " and costs are of the events behind the first quarter of a run, so start-up and JIT are out. *Per CPU second*"
    " counts the program's own processes (JobManager, TaskManager and Python workers); the broker's CPU stands beside"
    " it. Ratios are the claim; absolute numbers are of one machine."
)
_CPU = re.compile(r"^(?P<name>.*): CPU of (?P<group>\w+), us per event$")


def main() -> None:
    """Write both, of what there is."""
    found = {name: json.loads(_file(name).read_text(encoding="utf-8")) for name in PARTS if _file(name).is_file()}
    (FOLDER / "report.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    lines = [
        "# Benchmarks",
        "",
        INTRODUCTION,
        "",
    ]
    for name, (heading, text) in PARTS.items():
        lines += [f"## {heading}", "", text, ""]
        if name in found:
            lines += _part(name, found[name])
        else:
            lines += ["Not run here yet.", ""]
    lines += ["## What is not measured", "", *(f"- {one}" for one in MISSING), ""]
    (DOCS / "benchmarks.md").write_text("\n".join(lines), encoding="utf-8")
    print(f"{FOLDER / 'report.json'}\n{DOCS / 'benchmarks.md'}")


def _part(name: str, said: dict[str, Any]) -> list[str]:
    # The files of older runs have it in the name of the machine.
    load = float(said.get("load") or re.findall(r"load ([\d.]+)|$", said["machine"])[0] or 0)
    cores = int(re.findall(r"(\d+) cores", said["machine"])[0])
    lines = [f"Machine: {said['machine']}; {said['at']}.", ""]
    if load > cores + 1:
        lines += [
            f"**Taken while the machine did other work (load {load:g} on {cores} cores): to be taken again.**",
            "",
        ]
    if said["ratios"]:
        lines += ["| target | measured | wanted | |", "| --- | --- | --- | --- |"]
        for one in said["ratios"]:
            sign, verdict = "≥" if one["at_least"] else "≤", "met" if one["is_met"] else "**not met**"
            wanted = f"{sign} {one['target']:g} {one['unit']}"
            lines.append(f"| {one['name']} | {one['value']:.3g} {one['unit']} | {wanted} | {verdict} |")
        lines.append("")
    figures = said["figures"]
    for title, unit, rows in _plots(figures):
        file = DOCS / "benchmarks" / f"{name}-{title.split()[0].lower()}.svg"
        file.parent.mkdir(exist_ok=True)
        file.write_text(bars(title, unit, rows), encoding="utf-8")
        lines += [f"![{title}](benchmarks/{file.name})", ""]
    lines += ["| figure | |", "| --- | --- |"]
    lines += [f"| {key} | {value if isinstance(value, str) else f'{value:,.4g}'} |" for key, value in figures.items()]
    return [*lines, ""]


def _plots(figures: dict[str, float | str]) -> list[tuple[str, str, dict[str, dict[str, float]]]]:
    """Return (title, unit, rows) of the plots that the figures have numbers for."""
    costs: dict[str, dict[str, float]] = {}
    for key, value in figures.items():
        match = _CPU.match(key)
        if match and isinstance(value, float):
            costs.setdefault(match["name"], {})[match["group"]] = value
    rates = {name: {"rate": figures.get(f"{name}: events per CPU second", 0.0)} for name in costs}
    latency = {
        key.removesuffix(", ms"): {"ms": value}
        for key, value in figures.items()
        if key.endswith(", ms") and isinstance(value, float)
    }
    found: list[tuple[str, str, Any]] = []
    found += [("Events per CPU second of the program", "", rates), ("CPU per event", "us", costs)] if costs else []
    return found + ([("Latency", "ms", latency)] if latency else [])


def _file(name: str) -> Path:
    return FOLDER / f"{name}.json"


if __name__ == "__main__":
    typer.run(main)
