"""`headrace models list | show | compare`: what is registered, for people and as JSON."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.console import JsonOption, MlflowOption, mlflow_uri, print_json, print_pairs

if TYPE_CHECKING:
    from models.catalog import VersionEntry, VersionLine
    from models.compare import Comparison
    from models.lineage import FeatureChange
    from udfs.core.model.contract import ModelContract

Reference = Annotated[str, typer.Argument(metavar="NAME[@ALIAS|/VERSION]", help="Default: the newest version.")]
SHORT = 12
TEXT_WIDTH = 140
"""Columns of the text where the output is no terminal."""


def list_(
    name: Annotated[str | None, typer.Argument(help="List the versions of this model.")] = None,
    uses: Annotated[
        list[str] | None,
        typer.Option(help="List the versions that break if this feature, field, lookup or join changes; repeatable."),
    ] = None,
    mlflow: MlflowOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """List the registered models, the versions of one, or those that use a feature."""
    from models.catalog import list_models, list_versions, users_of

    uri = mlflow_uri(mlflow)
    if uses or name:
        lines = users_of(tuple(uses), uri) if uses else list_versions(name or "", uri)
        lines = [line for line in lines if name in (None, line.name)]
        if json:
            print_json(lines)
        elif lines:
            _console().print(_versions(lines))
        else:
            _console().print(f"no model uses {' or '.join(uses)}" if uses else f"model {name} has no version yet")
        return
    found = list_models(uri)
    if json:
        print_json(found)
        return
    table = Table("model", "newest", "aliases", "description", box=None)
    for model in found:
        aliases = ", ".join(f"{alias} -> {version}" for alias, version in model.aliases.items())
        table.add_row(model.name, model.newest_version, aliases, escape(model.description))
    _console().print(table if found else "no model is registered yet; train one with: headrace models train")


def show(
    reference: Reference,
    pipeline: Annotated[
        Path | None, typer.Option(help="Pipeline folder: say which features are no longer as they were.")
    ] = None,
    mlflow: MlflowOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show one version of a model: contract, measures, where it comes from, and what its features are made of."""
    from models.catalog import describe

    found = describe(reference, mlflow_uri(mlflow))
    changes = None if pipeline is None else _changes(found.contract, pipeline)
    if json:
        print_json({"version": found, "changed_features": changes})
        return
    console = _console()
    print_pairs(console, _facts(found))
    if found.metrics:
        console.print()
        print_pairs(console, {name: f"{value:.6g}" for name, value in sorted(found.metrics.items())})
    console.print()
    print_pairs(console, dict(found.contract.provenance) or {"provenance": "nothing is noted down"})
    console.print()
    console.print(_features(found.contract, changes))
    if changes is not None:
        verdict = "all as they were" if not changes else f"{len(changes)} no longer as they were: the model would break"
        console.print(f"features in {pipeline}: {verdict}", highlight=False, soft_wrap=True)


def compare(
    first: Annotated[str, typer.Argument(metavar="V1", help="NAME[@ALIAS|/VERSION]")],
    second: Annotated[str, typer.Argument(metavar="V2", help="NAME[@ALIAS|/VERSION]; a number means a version of V1.")],
    mlflow: MlflowOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Compare two versions: measures, features, sizes, and how differently they score the same rows."""
    from models.catalog import parse_reference
    from models.compare import compare as held_against

    if second.isdecimal():
        second = f"{parse_reference(first)[0]}/{second}"
    console = _console()
    with console.status("fetching and checking both"):
        found = held_against(first, second, mlflow_uri(mlflow))
    if json:
        print_json(found)
        return
    _print_comparison(console, found)


def output_text(contract: "ModelContract") -> str:
    """Return the meaning of a model's output in words."""
    output = contract.output
    text = f"{output.meaning} from {output.name}"
    if output.column is not None:
        text += f", column {output.column}"
    if output.classes:
        text += f": {', '.join(output.classes)}"
    elif output.meaning == "vector":
        text += f" of {output.width} numbers"
    return text if contract.threshold is None else f"{text}; yes above {contract.threshold:g}"


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = TEXT_WIDTH
    return console


def _facts(found: "VersionEntry") -> dict[str, str]:
    contract = found.contract
    tensors = [f"{one.name} {one.dtype}[n, {len(one.features)}]" for one in contract.tensors]
    return {
        "model": f"{found.name} version {found.version}",
        "aliases": ", ".join(found.aliases) or "none",
        **({"archived": f"since {found.archived}"} if found.archived else {}),
        "pipeline": found.pipeline,
        "feature set": found.feature_set,
        "inputs": ", ".join(tensors),
        "output": output_text(contract),
        "nulls": "taken" if contract.takes_nulls else "a row with one gets no score and is rejected",
        "sha256": found.sha256,
        "run": found.run_id,
    }


def _features(contract: "ModelContract", changes: "list[FeatureChange] | None") -> Table:
    table = Table("feature", "declared as", "made of", box=None, padding=(0, 2, 0, 0))
    if changes is not None:
        table.add_column("now")
    now = {change.feature: change.now or "gone" for change in changes or ()}
    for name in contract.inputs:
        source = contract.lineage.get(name)
        row = [name, source.definition if source else "", ", ".join(source.columns) if source else ""]
        table.add_row(*map(escape, row + ([now.get(name, "the same")] if changes is not None else [])))
    return table


def _versions(lines: "list[VersionLine]") -> Table:
    table = Table("model", "version", "aliases", "registered", "pipeline", "feature set", "sha256", box=None)
    has_uses = any(line.uses for line in lines)
    if has_uses:
        table.add_column("uses it in")
    for line in lines:
        made = dt.datetime.fromtimestamp(line.created_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")
        state = ", ".join(line.aliases) or ("archived" if line.archived else "")
        row = [line.name, line.version, state, made, line.pipeline, line.feature_set, line.sha256[:SHORT]]
        table.add_row(*row, *([", ".join(line.uses)] if has_uses else []))
    return table


def _print_comparison(console: Console, found: "Comparison") -> None:
    sides = (found.first, found.second)
    names = [f"{one.entry.name}/{one.entry.version}" for one in sides]
    table = Table("", *names, "difference", box=None, padding=(0, 3, 0, 0))
    table.add_row("aliases", *(", ".join(one.entry.aliases) or "none" for one in sides), "")
    metrics = [one.entry.metrics for one in sides]
    for name in sorted(metrics[0].keys() | metrics[1].keys()):
        values = [one.get(name) for one in metrics]
        apart = f"{values[1] - values[0]:+.4g}" if values[0] is not None and values[1] is not None else ""
        table.add_row(name, *("" if value is None else f"{value:.6g}" for value in values), apart)
    counts = [len(one.entry.contract.inputs) for one in sides]
    table.add_row("features", *map(str, counts), f"{counts[1] - counts[0]:+d}")
    table.add_row("output", *(output_text(one.entry.contract) for one in sides), "")
    sizes = [one.onnx_bytes for one in sides]
    table.add_row("model.onnx, bytes", *(f"{size:,}" for size in sizes), f"{sizes[1] - sizes[0]:+,d}")
    rates = [one.golden_ms * 1000 / one.golden_rows for one in sides]
    table.add_row("µs per row, golden batch", *(f"{rate:.2f}" for rate in rates), f"{rates[1] - rates[0]:+.2f}")
    console.print(table, highlight=False)
    scores = found.scores
    text = scores.why_not or f"{scores.mean:.3g} on average, {scores.largest:.3g} at most, over {scores.rows:,} rows"
    if scores.other_answer is not None:
        text += f"; another answer for {scores.other_answer:.1%}"
    named = {"features added": found.added, "features removed": found.removed, "declared differently": found.changed}
    console.print()
    print_pairs(console, {"golden scores differ by": text} | {k: ", ".join(v) or "none" for k, v in named.items()})


def _changes(contract: "ModelContract", folder: Path) -> "list[FeatureChange]":
    from models.lineage import changed_features
    from udfs.core.declare.loading import load_pipeline, pipeline_folder

    return changed_features(contract, load_pipeline(folder), pipeline_folder(folder))
