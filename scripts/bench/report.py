"""What a measurement says: figures and ratios with their targets, as a table and in `build/bench/<name>.json`."""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parents[2] / "build" / "bench"


@dataclass(frozen=True, slots=True)
class Ratio:
    """One number that is held to a target."""

    name: str
    value: float
    target: float
    #: True: at least the target, else at most
    at_least: bool
    unit: str = "x"

    @property
    def is_met(self) -> bool:
        """Whether it reaches the target."""
        return self.value >= self.target if self.at_least else self.value <= self.target


def report(name: str, figures: dict[str, float | str], ratios: list[Ratio]) -> Path:
    """Print figures and ratios, write them down, and return the file."""
    console = Console()
    table = Table("ratio", "value", "target", "", box=None, pad_edge=False)
    for one in ratios:
        sign = "≥" if one.at_least else "≤"
        verdict = "[green]met[/green]" if one.is_met else "[red]missed[/red]"
        table.add_row(one.name, f"{one.value:.3g} {one.unit}", f"{sign} {one.target:g} {one.unit}", verdict)
    for key, value in figures.items():
        console.print(f"{key}: {value:,.4g}" if isinstance(value, float) else f"{key}: {value}", highlight=False)
    console.print(table)
    load = os.getloadavg()[0]
    console.print(f"{machine()}, load {load:.1f}", style="dim")
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.json"
    said = {
        "name": name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "load": round(load, 1),
        "ratios": [{**asdict(one), "is_met": one.is_met} for one in ratios],
        "figures": figures,
    }
    file.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return file


def machine() -> str:
    """Name the machine: processor, cores, memory, Python."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    memory_gib = psutil.virtual_memory().total / 2**30
    python = platform.python_version()
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {python}"


def rss_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(psutil.Process().memory_info().rss)
