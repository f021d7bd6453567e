"""Who is in use: promote a version, set or delete an alias, archive a version. A promoted version was checked whole."""

import datetime as dt
import shutil
from dataclasses import dataclass

from models.registry import resolve
from models.tracking import connect
from models.versions import ARCHIVED_TAG, find_model, find_version, refuse_archived
from udfs.core.model.contract import ModelContract
from udfs.core.model.refusals import ModelRefusedError, Refusal

PROMOTED_TAG = "promoted"


@dataclass(frozen=True, slots=True)
class Move:
    """What an alias points at; empty where it pointed, or points, at nothing."""

    name: str
    alias: str
    before: str
    after: str


def promote(
    name: str, version: str, alias: str, tracking_uri: str, feature_set: str | None = None
) -> tuple[Move, ModelContract]:
    """Fetch a version, check it as a job would, and point an alias at it.

    Parameters
    ----------
    name, version, alias : which version is to answer under which alias
    tracking_uri : `http://host:port` of MLflow
    feature_set : hash of the feature set that feeds it; None: not checked

    Raises
    ------
    RegistryError, ModelRefusedError : see `resolve`; the alias stays where it was.
    """
    found = resolve(name, alias, tracking_uri, feature_set, version=version)
    shutil.rmtree(found.folder, ignore_errors=True)
    moved = set_alias(name, version, alias, tracking_uri)
    with connect(tracking_uri) as client:
        client.set_model_version_tag(name, version, f"{PROMOTED_TAG}.{alias}", _now())
    return moved, found.contract


def set_alias(name: str, version: str, alias: str, tracking_uri: str) -> Move:
    """Point an alias at a version, without a look at its files; jobs check them when they resolve the alias.

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    ModelRefusedError : `unknown` or `archived`.
    """
    with connect(tracking_uri) as client:
        before = find_model(client, name).aliases.get(alias)
        refuse_archived(find_version(client, name, alias, version))
        client.set_registered_model_alias(name, alias, version)
    return Move(name, alias, str(before or ""), version)


def delete_alias(name: str, alias: str, tracking_uri: str) -> Move:
    """Delete an alias; a job that runs stays as it is, none can be started from it.

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    ModelRefusedError : `unknown`.
    """
    with connect(tracking_uri) as client:
        before = str(find_version(client, name, alias).version)
        client.delete_registered_model_alias(name, alias)
    return Move(name, alias, before, "")


def archive(name: str, version: str, tracking_uri: str, *, restore: bool = False) -> None:
    """Take a version out of use, or back into it; its files stay.

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    ModelRefusedError : `unknown`; `in_use`: an alias points at it.
    """
    with connect(tracking_uri) as client:
        aliases = [alias for alias, number in find_model(client, name).aliases.items() if str(number) == version]
        found = find_version(client, name, "", version)
        if restore:
            if ARCHIVED_TAG in found.tags:
                client.delete_model_version_tag(name, version, ARCHIVED_TAG)
            return
        if aliases:
            msg = (
                f"model {name} version {version}: {', '.join(sorted(aliases))} points at it; promote another one first"
            )
            raise ModelRefusedError(Refusal.IN_USE, msg)
        client.set_model_version_tag(name, version, ARCHIVED_TAG, _now())


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
