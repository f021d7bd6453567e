"""docs/features.md: a template with what the code says put in: tables, drawn windows, outcomes of examples."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from scripts.bench.feature_costs import take_of
from scripts.docs.timelines import LEGEND, Timeline, drawn
from scripts.docs.worked import written
from udfs.core.aggregations import IRS
from udfs.core.declare.catalog import CATALOG, Aggregation, Sketch
from udfs.core.declare.feature_groups import Take
from udfs.core.declare.group_checks import TEXT_TAKES

BLOCKS = re.DOTALL | re.MULTILINE
COSTS = Path(__file__).parents[2] / "docs" / "feature_costs.json"
#: what the aggregations are about; each has one of these places
FAMILIES: dict[str, tuple[str, ...]] = {
    "How often": ("count", "distinct", "ratio", "rate"),
    "How much": ("sum", "mean", "min", "max", "argmax", "argmin"),
    "How spread": ("variance", "std", "skew", "kurtosis", "quantile", "histogram"),
    "In what order": (
        *("first", "first_n", "last", "last_n", "lag", "delta"), "time_since_first", "time_since_last",
    ),
    "Fading": ("decayed_count", "decayed_sum", "decayed_mean"),
    "Which": ("unique", "top_k"),
}  # fmt: skip
TEMPLATE = Path(__file__).with_name("features.md")
NOTICE = "<!-- Written by `make docs` from scripts/docs/features.md and the code. -->"


def features_page() -> str:
    """Return the page: its template with drawings, outcomes of examples and tables put in."""
    template, costs = TEMPLATE.read_text(encoding="utf-8"), json.loads(COSTS.read_text(encoding="utf-8"))
    pipeline = re.search(r"^```yaml\n(.*?)^```$", template, re.DOTALL | re.MULTILINE)
    base = yaml.safe_load(pipeline[1] if pipeline else "")
    page = re.sub(r"^```timeline\n(.*?)^```$", lambda found: _drawing(found[1], base), template, flags=BLOCKS)
    page = re.sub(
        r"^```yaml\n(features:.*?)^```\n\n```text\n(.*?)^```$",
        lambda found: written(found[1], found[2], base),
        page,
        flags=BLOCKS,
    )
    families = [f"### {title}\n\n{_table(names, costs['ns_per_event'])}" for title, names in FAMILIES.items()]
    facts = {name: str(costs[name]) for name in ("machine", "batch", "rounds", "tiles")}
    facts |= {"keys": f"{costs['keys']:,}", "legend": LEGEND, "families": "\n\n".join(families)}
    for name, text in facts.items():
        page = page.replace(f"@{name}@", text)
    head, _, rest = page.partition("\n")
    return f"{head}\n\n{NOTICE}\n{rest}"


def _drawing(declared: str, base: dict[str, Any]) -> str:
    """Return a timeline as a block: the keys of its group, and the drawing."""
    timeline = Timeline(**yaml.safe_load(declared))
    group = declared.partition("{")[2].partition("}\n")[0]
    return f"```text\n{group}\n\n{drawn(timeline, base)}\n```"


def short_table() -> str:
    """Return the table of the README: what the aggregations are about, and their names."""
    rows = [(title, ", ".join(f"`{name}`" for name in names)) for title, names in FAMILIES.items()]
    return markdown_table(("", "aggregations"), rows)


def _table(names: tuple[str, ...], costs: dict[str, dict[str, float]]) -> str:
    head = ("take", "gives", "nothing", "of", "columns", "exact?", "tile", "cost: life, 1h")
    return markdown_table(head, [_row(name, costs[name]) for name in names])


def _row(name: str, costs: dict[str, float]) -> tuple[str, ...]:
    one, spec = CATALOG[name], take_of(name)
    take = Take.model_validate(_long(spec))
    gives, _, nothing = one.meaning.partition("; ")
    columns = f"`{take.labels[0]}`" + (f" … `{take.labels[-1]}`" if len(take.labels) > 1 else "")
    return (
        f"`{_flow(spec)}`", gives, nothing, _of(name, one), columns, one.error, _tile(one, take),
        ", ".join(_time(costs[window]) for window in ("lifetime", "sliding")),
    )  # fmt: skip


def _long(spec: Any) -> dict[str, Any]:
    if isinstance(spec, str):
        return {"name": spec}
    [(name, argument)] = spec.items()
    return {"name": name, "argument": argument}


def _flow(spec: Any) -> str:
    return yaml.safe_dump(spec, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _of(name: str, one: Aggregation | Sketch) -> str:
    if one.argument == "condition":
        return "none"
    kinds = ["number", *(["text"] if name in TEXT_TAKES else [])]
    kinds += ["none"] if not one.needs_value else []
    return ", ".join(kinds)


def _tile(one: Aggregation | Sketch, take: Take) -> str:
    return one.size_bytes if isinstance(one, Sketch) else f"{8 * IRS[one.ir].width(take.params)} B"


def _time(ns: float) -> str:
    return f"{ns / 1000:.2g} µs" if ns >= 10_000 else f"{ns:.0f} ns"


def markdown_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
