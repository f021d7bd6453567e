"""`headrace models register | promote | alias | archive`: what changes the registry."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.console import Console

from models.console import JsonOption, MlflowOption, mlflow_uri, print_json, print_pairs, steps
from udfs.core.declare.loading import pipeline_folder
from udfs.core.errors import HeadraceError, did_you_mean
from udfs.core.model.contract import Meaning

Version = Annotated[str, typer.Argument(metavar="NAME[@ALIAS|/VERSION]", help="Default: the newest version.")]


def register(
    file: Annotated[Path, typer.Argument(help="ONNX file; see docs/models.md for how to export one.")],
    pipeline: Annotated[
        Path, typer.Option(help="Pipeline folder, whose features feed the model.", callback=pipeline_folder)
    ],
    name: Annotated[
        str | None, typer.Option(help="Register under this name.", show_default="the pipeline's model.name")
    ] = None,
    inputs: Annotated[
        str, typer.Option(help="Features in the order of the model's columns, comma-separated.", show_default="all")
    ] = "",
    output: Annotated[str | None, typer.Option(help="Output that holds the score.", show_default="found")] = None,
    meaning: Annotated[
        str | None, typer.Option(help=f"What it means: {', '.join(get_args(Meaning))}.", show_default="found")
    ] = None,
    column: Annotated[int | None, typer.Option(help="Column of the one number, if there are several.")] = None,
    classes: Annotated[str, typer.Option(help="Names of the classes, comma-separated, in the order of columns.")] = "",
    threshold: Annotated[float | None, typer.Option(help="The answer is yes above it; of a probability: 0.5.")] = None,
    rows: Annotated[
        Path | None,
        typer.Option(help="Parquet file of real feature rows for the golden batch; `expected`: the trainer's scores."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="How far ONNX may be from `expected`.")] = 1e-5,
    note: Annotated[list[str] | None, typer.Option(help="KEY=TEXT on how it was trained; repeatable.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="KEY=NUMBER that was measured; repeatable.")] = None,
    alias: Annotated[str | None, typer.Option(help="Point this alias at the new version.")] = None,
    mlflow: MlflowOption = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; MLflow is not asked.")] = False,
    json: JsonOption = False,
) -> None:
    """Check an ONNX file that was trained anywhere, bind it to a pipeline's features, and register it."""
    from models.binding import Meant
    from models.foreign import Foreign, prepare
    from models.registration import publish
    from models.views import output_text

    if meaning is not None and meaning not in get_args(Meaning):
        msg = f"--meaning: got {meaning!r}{did_you_mean(meaning, get_args(Meaning))}"
        raise HeadraceError(msg)
    meant = Meant(output, cast("Meaning | None", meaning), column, _names(classes))
    given = Foreign(
        file,
        pipeline,
        name,
        _names(inputs),
        meant,
        threshold,
        rows,
        tolerance,
        _pairs("--note", note),
        {key: _number(key, text) for key, text in _pairs("--metric", metric).items()},
    )
    console = Console(stderr=json)
    uri = "" if dry_run else mlflow_uri(mlflow)
    with steps(console) as shown:
        shown.start("check")
        entry = prepare(given)
        registered = None
        if not dry_run:
            shown.start("register")
            registered = publish(entry, uri, alias)
    contract = entry.package.contract
    if json:
        print_json({"registered": registered, "contract": contract})
        return
    found = "not registered: --dry-run"
    if registered is not None:
        found = f"{registered.name} version {registered.version}"
        found += f", alias {registered.alias}" if registered.alias else "; no alias points at it"
    tensors = [f"{one.name} {one.dtype}[n, {len(one.features)}]" for one in contract.tensors]
    golden = f"{len(entry.package.golden.inputs)} rows" + ("" if rows else ", made up; pass real ones with --rows")
    print_pairs(console, {
        "registered": found,
        "inputs": ", ".join(tensors),
        "features": ", ".join(contract.inputs),
        "output": output_text(contract),
        "nulls": "taken" if contract.takes_nulls else "a row with one gets no score and is rejected",
        "golden": golden,
        "exporter": contract.provenance.get("exporter", ""),
        "feature set": contract.feature_set,
        "sha256": contract.sha256,
    })  # fmt: skip


def promote(
    reference: Version,
    to: Annotated[str, typer.Option("--to", help="Alias that is moved.")] = "champion",
    pipeline: Annotated[
        Path | None, typer.Option(help="Pipeline folder: its features must be those of the model.")
    ] = None,
    mlflow: MlflowOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Fetch a version, check it as a job would, and point an alias at it; a deployment that watches it redeploys."""
    from models.promotion import promote as move
    from udfs.core.plan.checking import check_pipeline

    uri = mlflow_uri(mlflow)
    feature_set = None if pipeline is None else check_pipeline(pipeline_folder(pipeline)).feature_set
    name, version = _version(reference, uri)
    console = Console(stderr=json)
    with console.status(f"fetching and checking {name} version {version}"):
        moved, contract = move(name, version, to, uri, feature_set)
    if json:
        print_json({"moved": moved, "sha256": contract.sha256})
        return
    _say_moved(console, moved.name, moved.alias, moved.before, moved.after)


def alias(
    reference: Version,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as challenger.")],
    mlflow: MlflowOption = None,
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias instead.")] = False,
) -> None:
    """Point an alias at a version without checking it, or delete the alias."""
    from models.promotion import delete_alias, set_alias

    uri = mlflow_uri(mlflow)
    model, version = _version(reference, uri)
    moved = delete_alias(model, name, uri) if delete else set_alias(model, version, name, uri)
    _say_moved(Console(), moved.name, moved.alias, moved.before, moved.after)


def archive(
    reference: Annotated[str, typer.Argument(metavar="NAME/VERSION")],
    mlflow: MlflowOption = None,
    *,
    restore: Annotated[bool, typer.Option("--restore", help="Take it back into use.")] = False,
) -> None:
    """Take a version out of use: no alias may point at it, and no job starts with it."""
    from models.catalog import parse_reference
    from models.promotion import archive as put_away

    name, _, version = parse_reference(reference)
    if version is None:
        msg = f"got {reference!r}; which version? such as {name}/3"
        raise HeadraceError(msg)
    put_away(name, version, mlflow_uri(mlflow), restore=restore)
    state = "in use again" if restore else "archived"
    Console().print(f"{name} version {version} is {state}", highlight=False, soft_wrap=True)


def _version(reference: str, uri: str) -> tuple[str, str]:
    from models.catalog import find
    from models.tracking import connect

    with connect(uri) as client:
        found, _ = find(client, reference)
        return str(found.name), str(found.version)


def _say_moved(console: Console, name: str, moved: str, before: str, after: str) -> None:
    text = f"{name}: {moved} pointed at {f'version {before}' if before else 'nothing'}, "
    text += f"now at {f'version {after}' if after else 'nothing'}"
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    found = {}
    for one in given or ():
        key, equals, value = one.partition("=")
        if not equals or not key.strip():
            msg = f"{option}: got {one!r}; KEY=VALUE is expected"
            raise HeadraceError(msg)
        found[key.strip()] = value.strip()
    return found


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        msg = f"--metric {key}: got {text!r}; a number is expected"
        raise HeadraceError(msg) from error
