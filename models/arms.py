"""All models of a pipeline, resolved at submission: each alias once to a version, each fetched and checked."""

import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from models.cache import ModelCache
from models.registry import ResolvedModel, resolve
from udfs.core.declare.model_reference import ModelReference
from udfs.core.errors import DefinitionError, did_you_mean
from udfs.core.model.chain import refuse_unbound
from udfs.core.model.ensemble import said
from udfs.core.model.entities import refuse_too_large
from udfs.core.model.files import ONNX_FILE
from udfs.core.model.refusals import ModelRefusedError, Refusal


def resolve_arms(
    reference: ModelReference,
    tracking_uri: str,
    feature_set: str,
    features: Collection[str],
    *,
    versions: Mapping[str, str | None] | None = None,
    into: Path | None = None,
    cache: ModelCache | None = None,
) -> dict[str, ResolvedModel]:
    """Fetch and check every model that a job loads; see `registry.resolve`.

    Parameters
    ----------
    reference : as the pipeline declares it
    features : the pipeline's feature set, whose hash is `feature_set`
    versions : arm -> version, instead of the one that its alias points at

    Returns
    -------
    Arm -> model, by the names of `ModelReference.models`; their folders belong to the caller.

    Raises
    ------
    DefinitionError : a version is given for what is no arm.
    RegistryError, ModelRefusedError : as `registry.resolve`; or `contract`: the answers of two arms mean different
        things; or as `chain.refuse_unbound` and `entities.refuse_too_large`. Nothing is left behind then.
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
        answers = ("champion", "challenger", "canary", "entity", "previous")
        refuse_unlike({one.name: found[one.name] for one in reference.models if one.role in answers})
        refuse_unbound(reference, features, {name: model.contract for name, model in found.items()})
        if reference.per_entity is not None:
            for one in reference.entities:
                size = (found[one.name].folder / ONNX_FILE).stat().st_size
                refuse_too_large(reference.per_entity, f"{one.name}: {found[one.name].contract.what}", size)
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
    (_, champion), *others = answering.items()
    wanted = champion.contract.output
    for name, one in others:
        got = one.contract.output
        if (got.meaning, got.classes, got.width) != (wanted.meaning, wanted.classes, wanted.width):
            msg = (
                f"arm {name}: {one.contract.what} gives {said(one.contract)}; the champion gives"
                f" {said(champion.contract)}; all arms that answer must give the same; run it as a shadow"
            )
            raise ModelRefusedError(Refusal.CONTRACT, msg)


def discard(models: Iterable[ResolvedModel]) -> None:
    """Remove the folders of resolved models."""
    for one in models:
        shutil.rmtree(one.folder, ignore_errors=True)
