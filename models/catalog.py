"""What the registry holds, for people to look at."""

from dataclasses import dataclass

from models.registry import FEATURE_SET_TAG, PIPELINE_TAG, SHA256_TAG, find_model, find_version
from models.tracking import connect
from udfs.core.errors import ModelError

MAX_MODELS = 100


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One registered model."""

    name: str
    #: alias -> version
    aliases: dict[str, str]
    #: newest version; empty when there is none
    newest_version: str
    description: str


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """One version of a model, with the measures of its run."""

    name: str
    version: str
    aliases: tuple[str, ...]
    pipeline: str
    feature_set: str
    sha256: str
    run_id: str
    metrics: dict[str, float]
    params: dict[str, str]


def list_models(tracking_uri: str) -> list[ModelEntry]:
    """Return the registered models, by name; at most a hundred.

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    """
    with connect(tracking_uri) as client:
        return [
            ModelEntry(
                model.name,
                {alias: str(version) for alias, version in sorted(model.aliases.items())},
                str(max((int(one.version) for one in model.latest_versions), default="")),
                model.description or "",
            )
            for model in client.search_registered_models(max_results=MAX_MODELS, order_by=["name ASC"])
        ]


def describe(reference: str, tracking_uri: str) -> VersionEntry:
    """Return one version of a model.

    Parameters
    ----------
    reference : `name@alias` or `name/version`; `name` alone means its newest version

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    ModelError : there is no such model, alias or version.
    """
    name, alias, version = parse_reference(reference)
    with connect(tracking_uri) as client:
        model = find_model(client, name)
        if alias is None and version is None:
            numbers = [int(one.version) for one in model.latest_versions]
            if not numbers:
                msg = f"model {name}: has no version yet"
                raise ModelError(msg)
            version = str(max(numbers))
        found = find_version(client, name, alias or "", version)
        run = client.get_run(found.run_id).data if found.run_id else None
        return VersionEntry(
            name=name,
            version=str(found.version),
            aliases=tuple(sorted(one for one, number in model.aliases.items() if str(number) == str(found.version))),
            pipeline=found.tags.get(PIPELINE_TAG, ""),
            feature_set=found.tags.get(FEATURE_SET_TAG, ""),
            sha256=found.tags.get(SHA256_TAG, ""),
            run_id=found.run_id or "",
            metrics=dict(run.metrics) if run else {},
            params=dict(run.params) if run else {},
        )


def parse_reference(reference: str) -> tuple[str, str | None, str | None]:
    """Return (name, alias, version) of a reference, None for what it does not say.

    Examples
    --------
    >>> parse_reference("delays@champion"), parse_reference("delays/3"), parse_reference("delays")
    (('delays', 'champion', None), ('delays', None, '3'), ('delays', None, None))
    """
    name, at, alias = reference.partition("@")
    if at:
        return name, alias, None
    name, slash, version = reference.partition("/")
    return name, None, version if slash else None
