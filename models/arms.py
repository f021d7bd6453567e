"""All models of a pipeline, resolved at submission: each alias once to a version, each fetched and checked."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from models.cache import ModelCache
from models.registry import ResolvedModel, resolve
from udfs.core.declare.model_reference import ModelReference
from udfs.core.errors import DefinitionError, did_you_mean
from udfs.core.model.refusals import ModelRefusedError, Refusal


def resolve_arms(
    reference: ModelReference,
    tracking_uri: str,
    feature_set: str,
    *,
    versions: Mapping[str, str | None] | None = None,
    into: Path | None = None,
    cache: ModelCache | None = None,
) -> dict[str, ResolvedModel]:
    """Fetch and check every model that a job loads; see `registry.resolve`.

    Parameters
    ----------
    reference : as the pipeline declares it
    versions : arm -> version, instead of the one that its alias points at

    Returns
    -------
    Arm -> model, by the names of `ModelReference.models`; their folders belong to the caller.

    Raises
    ------
    DefinitionError : a version is given for what is no arm.
    RegistryError, ModelRefusedError : as `registry.resolve`; or `contract`: the answers of two arms mean different
        things. Nothing is left behind then.
    """
    chosen = dict(versions or {})
    known = [one.name for one in reference.models]
    for name in chosen.keys() - set(known):
        msg = f"got a version of arm {name!r}, which the pipeline does not have{did_you_mean(name, known)}"
        raise DefinitionError(msg)
    found: dict[str, ResolvedModel] = {}
    try:
        for one in reference.models:
            found[one.name] = resolve(
                one.model,
                one.alias,
                tracking_uri,
                feature_set,
                version=chosen.get(one.name),
                into=into,
                cache=cache,
            )
        shadows = {one.name for one in reference.shadowing}
        refuse_unlike({name: model for name, model in found.items() if name not in shadows})
    except BaseException:
        discard(found.values())
        raise
    return found


def refuse_unlike(answering: Mapping[str, ResolvedModel]) -> None:
    """Refuse arms whose answers cannot be compared: readers of the predictions would take one for the other.

    Raises
    ------
    ModelRefusedError : `contract`.
    """
    champion, *others = answering.values()
    wanted = (champion.contract.output.meaning, champion.contract.output.classes)
    for name, one in zip(list(answering)[1:], others, strict=True):
        got = (one.contract.output.meaning, one.contract.output.classes)
        if got != wanted:
            msg = (
                f"arm {name}: {one.contract.what} gives {_said(*got)}; the champion gives {_said(*wanted)}; all arms"
                " that answer must give the same; run it as a shadow"
            )
            raise ModelRefusedError(Refusal.CONTRACT, msg)


def discard(models: Iterable[ResolvedModel]) -> None:
    """Remove the folders of resolved models."""
    for one in models:
        shutil.rmtree(one.folder, ignore_errors=True)


def _said(meaning: str, classes: list[str]) -> str:
    return f"{meaning} of {', '.join(classes)}" if classes else meaning
