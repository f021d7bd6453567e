"""What the registry holds, for people to look at: models, their versions, and which of them use a feature."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.tracking import connect
from models.versions import (
    ARCHIVED_TAG,
    COLUMNS_TAG,
    FEATURE_SET_TAG,
    FEATURES_TAG,
    PIPELINE_TAG,
    SHA256_TAG,
    digest_tag,
    fetch_contract,
    find_model,
    find_version,
)
from udfs.core.model.contract import ModelContract
from udfs.core.model.files import GOLDEN_FILE
from udfs.core.model.refusals import ModelRefusedError, Refusal

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

MAX_MODELS, MAX_VERSIONS = 100, 1000


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
class VersionLine:
    """One version of a model, as a list shows it."""

    name: str
    version: str
    aliases: tuple[str, ...]
    pipeline: str
    feature_set: str
    sha256: str
    #: when it was registered, epoch milliseconds
    created_ms: int
    #: since when it is archived; empty if it is not
    archived: str
    #: of its features, those that were asked for
    uses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """One version of a model, with its contract and the measures of its run."""

    name: str
    version: str
    aliases: tuple[str, ...]
    pipeline: str
    feature_set: str
    sha256: str
    run_id: str
    archived: str
    contract: ModelContract
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


def list_versions(name: str, tracking_uri: str) -> list[VersionLine]:
    """Return the versions of a model, newest first.

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    ModelRefusedError : `unknown`: there is no such model.
    """
    with connect(tracking_uri) as client:
        aliases = find_model(client, name).aliases
        found = [_line(one, aliases) for one in _search(client, f"name='{name}'")]
    return sorted(found, key=lambda one: int(one.version), reverse=True)


def users_of(names: tuple[str, ...], tracking_uri: str) -> list[VersionLine]:
    """Return the versions of all models that take a feature, or a feature that is made of a field, lookup or join.

    All of them break if it changes: the feature set they were trained on is then another one.

    Parameters
    ----------
    names : of features, fields, `table.csv:column`, `join.field` or `file.py:function`

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    """
    found: list[VersionLine] = []
    with connect(tracking_uri) as client:
        for model in client.search_registered_models(max_results=MAX_MODELS, order_by=["name ASC"]):
            for one in _search(client, f"name='{model.name}'"):
                if digest_tag(GOLDEN_FILE) not in one.tags:
                    continue  # not registered by Headrace, or by one that wrote no lineage
                text = f"{one.tags.get(FEATURES_TAG, '')}{one.tags.get(COLUMNS_TAG, '')}"
                is_told = FEATURES_TAG in one.tags and COLUMNS_TAG in one.tags
                if is_told and not any(f",{name}," in text for name in names):
                    continue
                try:
                    uses = _uses(fetch_contract(client, one, tracking_uri), names)
                except ModelRefusedError as error:
                    uses = (f"cannot be told: {error}",)
                if uses:
                    found.append(_line(one, model.aliases, uses))
    return found


def describe(reference: str, tracking_uri: str) -> VersionEntry:
    """Return one version of a model.

    Parameters
    ----------
    reference : `name@alias` or `name/version`; `name` alone means its newest version

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    ModelRefusedError : `unknown`: there is no such model, alias or version; or its contract was changed.
    """
    with connect(tracking_uri) as client:
        found, aliases = find(client, reference)
        run = client.get_run(found.run_id).data if found.run_id else None
        return VersionEntry(
            name=found.name,
            version=str(found.version),
            aliases=aliases,
            pipeline=found.tags.get(PIPELINE_TAG, ""),
            feature_set=found.tags.get(FEATURE_SET_TAG, ""),
            sha256=found.tags.get(SHA256_TAG, ""),
            run_id=found.run_id or "",
            archived=found.tags.get(ARCHIVED_TAG, ""),
            contract=fetch_contract(client, found, tracking_uri),
            metrics=dict(run.metrics) if run else {},
            params=dict(run.params) if run else {},
        )


def find(client: "MlflowClient", reference: str) -> tuple["ModelVersion", tuple[str, ...]]:
    """Return the version that a reference names, and the aliases that point at it.

    Raises
    ------
    ModelRefusedError : `unknown`.
    """
    name, alias, version = parse_reference(reference)
    model = find_model(client, name)
    if alias is None and version is None:
        numbers = [int(one.version) for one in model.latest_versions]
        if not numbers:
            msg = f"model {name}: has no version yet"
            raise ModelRefusedError(Refusal.UNKNOWN, msg)
        version = str(max(numbers))
    found = find_version(client, name, alias or "", version)
    return found, _aliases(found, model.aliases)


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


def _uses(contract: ModelContract, names: tuple[str, ...]) -> tuple[str, ...]:
    wanted = set(names)
    return tuple(
        feature
        for feature in contract.inputs
        if feature in wanted or (feature in contract.lineage and wanted & set(contract.lineage[feature].columns))
    )


def _search(client: "MlflowClient", filter_: str) -> list["ModelVersion"]:
    return list(client.search_model_versions(filter_, max_results=MAX_VERSIONS))


def _aliases(found: "ModelVersion", aliases: dict[str, str]) -> tuple[str, ...]:
    return tuple(sorted(one for one, number in aliases.items() if str(number) == str(found.version)))


def _line(found: "ModelVersion", aliases: dict[str, str], uses: tuple[str, ...] = ()) -> VersionLine:
    tags = found.tags
    return VersionLine(
        name=found.name,
        version=str(found.version),
        aliases=_aliases(found, aliases),
        pipeline=tags.get(PIPELINE_TAG, ""),
        feature_set=tags.get(FEATURE_SET_TAG, ""),
        sha256=tags.get(SHA256_TAG, ""),
        created_ms=int(found.creation_timestamp),
        archived=tags.get(ARCHIVED_TAG, ""),
        uses=uses,
    )
