"""The registry, reading: alias -> version -> files fetched into a fresh private folder, checked one by one.

An alias is resolved once. MLflow lets anybody with access replace a registered file, so nothing counts until its digest
is the one noted at registration. The light client, mlflow-skinny, is enough.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.cache import Known, ModelCache
from models.check import check_model
from models.golden import Golden
from models.tracking import RegistryDownError, connect
from models.versions import BASELINE, digest_tag, fetch, find_version, noted_digests, refuse_archived
from udfs.core.model.contract import ModelContract
from udfs.core.model.files import CONTRACT_FILE, GOLDEN_FILE, ONNX_FILE, sha256
from udfs.core.model.refusals import ModelRefusedError, Refusal

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A checked model: `model.onnx`, `contract.json` (with the version) and `golden.json`, in a folder of mode 0700."""

    #: belongs to the caller, who removes it
    folder: Path
    #: says whether it came from the cache
    contract: ModelContract
    #: SHA-256 of each file as it was registered; pin these to hold a later fetch to them, see `verify`
    digests: dict[str, str]


def resolve(
    name: str,
    alias: str,
    tracking_uri: str,
    feature_set: str | None,
    *,
    version: str | None = None,
    into: Path | None = None,
    baseline: bool = False,
    expected_digests: Mapping[str, str] | None = None,
    cache: ModelCache | None = None,
) -> ResolvedModel:
    """Fetch and check the model that an alias points at now.

    Parameters
    ----------
    name, alias : registered model and alias
    tracking_uri : `http://host:port` of MLflow
    feature_set : hash of the feature set that will feed it, see `features.feature_set_hash`; None: whichever it is
    version : this version instead of the alias'
    into : folder in which the new one is made; default: the one for temporary files
    baseline : fetch the baseline that was registered with the model, instead of the model
    expected_digests : what its files must be, from a record of one's own; see `verify`
    cache : keeps what was resolved; while the registry is down the version that it kept last is used, with a warning.
        None: a registry that is down is an error

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    ModelRefusedError : unknown model, alias or version; it is archived; a file is missing, too large or changed;
        another feature set; a rule of `check` is broken.
    """
    asked = f"@{alias}" if version is None else f"/{version}"
    prefix = f"{BASELINE}/" if baseline else ""
    try:
        with connect(tracking_uri) as client:
            found = find_version(client, name, alias, version)
            refuse_archived(found)
            files = fetch(client, found, tracking_uri, prefix)
            digests = noted_digests(found, prefix)
    except RegistryDownError as error:
        known = None if cache is None or baseline else cache.recall(tracking_uri, name, asked)
        if known is None:
            raise
        return _last_known(*known, str(error), feature_set, into, expected_digests)
    contract = _check(name, str(found.version), files, digests, feature_set, expected_digests, prefix)
    if cache is not None and not baseline:
        # By its number, too: whoever resolved the alias may hand that on.
        for question in dict.fromkeys((asked, f"/{contract.version}")):
            _remember(cache, Known(tracking_uri, name, question, contract.version, digests, _now_ms()), files)
    return _lay_out(files, contract, digests, into)


def verify(version: ResolvedModel, expected_digests: Mapping[str, str]) -> None:
    """Hold a resolved version to digests that were noted elsewhere, where the registry's users cannot change them.

    Parameters
    ----------
    version : as resolved
    expected_digests : file -> SHA-256, hex, as in `ResolvedModel.digests`; a file that is left out may be anything,
        but `contract.json` names the digests of the others

    Raises
    ------
    ModelRefusedError : `digest`: a file is another one.
    """
    _verify(version.contract.what, version.digests, expected_digests, "the one expected is")


def _check(
    name: str,
    version: str,
    files: Mapping[str, bytes],
    digests: Mapping[str, str],
    feature_set: str | None,
    expected_digests: Mapping[str, str] | None,
    prefix: str = "",
) -> ModelContract:
    """Check what was fetched and return its contract, with the version."""
    what = f"model {name} version {version}"
    for file, content in files.items():
        if sha256(content) != digests[file]:
            msg = (
                f"{what}: {prefix}{file} has sha256 {sha256(content)}; the version's tag {digest_tag(prefix + file)!r}"
                f" says {digests[file]}; it was changed after registration: register the model again"
            )
            raise ModelRefusedError(Refusal.DIGEST, msg)
    _verify(what, digests, expected_digests or {}, "the one expected is")
    contract = ModelContract.decode(files[CONTRACT_FILE], f"{what}: {prefix}{CONTRACT_FILE}")
    contract = msgspec.structs.replace(contract, version=version, from_cache=False)
    fetched = {file: sha256(files[file]) for file in (ONNX_FILE, GOLDEN_FILE)}
    _verify(what, fetched, dict.fromkeys(fetched, "none") | contract.files, "its contract says")
    if feature_set is not None and contract.feature_set != feature_set:
        msg = (
            f"{what}: was trained on feature set {contract.feature_set}; the pipeline has {feature_set};"
            " retrain the model, or restore the features it was trained on"
        )
        raise ModelRefusedError(Refusal.FEATURE_SET, msg)
    check_model(files[ONNX_FILE], contract, Golden.decode(files[GOLDEN_FILE], contract, f"{what}: {GOLDEN_FILE}"))
    return contract


def _verify(what: str, digests: Mapping[str, str], expected: Mapping[str, str], source: str) -> None:
    for file, wanted in expected.items():
        if digests.get(file) != wanted:
            msg = f"{what}: {file} has sha256 {digests.get(file, 'none')}; {source} {wanted}"
            raise ModelRefusedError(Refusal.DIGEST, f"{msg}; the file was changed after registration")


def _lay_out(
    files: Mapping[str, bytes], contract: ModelContract, digests: dict[str, str], into: Path | None
) -> ResolvedModel:
    folder = Path(tempfile.mkdtemp(prefix="headrace-model-", dir=into))
    try:
        for file, content in files.items():
            (folder / file).write_bytes(content)
        contract.write(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return ResolvedModel(folder, contract, digests)


def _last_known(
    known: Known,
    files: dict[str, bytes],
    why: str,
    feature_set: str | None,
    into: Path | None,
    expected_digests: Mapping[str, str] | None,
) -> ResolvedModel:
    """Return the version that the cache kept, checked as if it came from the registry."""
    contract = _check(known.name, known.version, files, known.digests, feature_set, expected_digests)
    contract = msgspec.structs.replace(contract, from_cache=True)
    age_s = max(_now_ms() - known.seen_ms, 0) // 1000
    _LOG.warning(
        "%s; model %s%s is taken from the cache: version %s, sha256 %s, last seen in the registry %s ago",
        why,
        known.name,
        known.asked,
        known.version,
        contract.sha256,
        f"{age_s // 3600} h {age_s % 3600 // 60} min" if age_s >= 60 else f"{age_s} s",
    )
    return _lay_out(files, contract, known.digests, into)


def _remember(cache: ModelCache, known: Known, files: Mapping[str, bytes]) -> None:
    """Keep a version; a cache that cannot be written to is no reason not to start."""
    try:
        cache.remember(known, files)
    except (OSError, ModelRefusedError, msgspec.DecodeError) as error:
        _LOG.warning("model %s%s is not kept for when the registry is down: %s", known.name, known.asked, error)


def _now_ms() -> int:
    return int(time.time() * 1000)
