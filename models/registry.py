"""The registry, reading: alias -> version -> files fetched into a fresh private folder, checked one by one.

An alias is resolved once. MLflow lets anybody with access replace a registered file, so nothing counts until its digest
is the one noted at registration. The light client, mlflow-skinny, is enough.
"""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from models.check import MAX_ONNX_BYTES, check_model
from models.golden import GOLDEN_FILE, Golden
from models.tracking import RegistryError, connect
from udfs.core.errors import ModelError, did_you_mean
from udfs.core.model import CONTRACT_FILE, ONNX_FILE, ModelContract

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.tracking import MlflowClient

FILES = (ONNX_FILE, CONTRACT_FILE, GOLDEN_FILE)
BASELINE = "baseline"
SHA256_TAG, FEATURE_SET_TAG, PIPELINE_TAG = "sha256", "feature_set", "pipeline"


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A checked model: `model.onnx`, `contract.json` (with the version) and `golden.npz`, in a folder of mode 0700."""

    #: belongs to the caller, who removes it
    folder: Path
    contract: ModelContract


def resolve(
    name: str,
    alias: str,
    tracking_uri: str,
    feature_set: str,
    *,
    version: str | None = None,
    into: Path | None = None,
    baseline: bool = False,
) -> ResolvedModel:
    """Fetch and check the model that an alias points at now.

    Parameters
    ----------
    name, alias : registered model and alias
    tracking_uri : `http://host:port` of MLflow
    feature_set : hash of the feature set that will feed it, see `features.feature_set_hash`
    version : this version instead of the alias'
    into : folder in which the new one is made; default: the one for temporary files
    baseline : fetch the baseline that was registered with the model, instead of the model

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    ModelError : unknown model, alias or version; a file is missing, too large or changed; another feature set; a rule
        of `check` is broken.
    """
    with connect(tracking_uri) as client:
        found = find_version(client, name, alias, version)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-{found.version}-", dir=into))
        try:
            _fetch(client, found, folder, tracking_uri, f"{BASELINE}/" if baseline else "")
            return ResolvedModel(folder, _check(found, folder, feature_set, f"{BASELINE}/" if baseline else ""))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def digest_tag(path: str) -> str:
    """Name of the version tag that holds the SHA-256 of a file; `sha256` is the one of the model itself."""
    return SHA256_TAG if path == ONNX_FILE else f"{SHA256_TAG}.{path}"


def find_version(client: "MlflowClient", name: str, alias: str, version: str | None = None) -> "ModelVersion":
    """Return the version that an alias points at, or the numbered one.

    Raises
    ------
    ModelError : there is no such model, alias or version; names those there are.
    """
    model = find_model(client, name)
    if version is None and alias not in model.aliases:
        known = ", ".join(f"{one} -> version {number}" for one, number in sorted(model.aliases.items())) or "none"
        msg = f"model {name}: has no alias {alias!r} (aliases: {known}){did_you_mean(alias, model.aliases)}"
        raise ModelError(msg)
    number = version or str(model.aliases[alias])
    try:
        return client.get_model_version(name, number)
    except _mlflow_exception() as error:
        if getattr(error, "error_code", "") not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        versions = sorted(int(one.version) for one in client.search_model_versions(f"name='{name}'", max_results=100))
        msg = f"model {name}: has no version {number!r}; versions: {', '.join(map(str, versions)) or 'none'}"
        raise ModelError(msg) from error


def find_model(client: "MlflowClient", name: str) -> "RegisteredModel":
    """Return a registered model with its aliases.

    Raises
    ------
    ModelError : there is none of that name; names those there are.
    """
    try:
        return client.get_registered_model(name)
    except _mlflow_exception() as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [model.name for model in client.search_registered_models(max_results=100)]
        near = did_you_mean(name, known) or "; none is registered yet: headrace models train"
        msg = f"no registered model {name!r}{near}"
        raise ModelError(msg) from error


def _fetch(client: "MlflowClient", found: "ModelVersion", folder: Path, tracking_uri: str, prefix: str) -> None:
    """Download the files of a version, after a look at what there is and how large."""
    from mlflow import artifacts

    what = f"model {found.name} version {found.version}"
    source = client.get_model_version_download_uri(found.name, str(found.version)).rstrip("/")
    listed = artifacts.list_artifacts(artifact_uri=f"{source}/{prefix}".rstrip("/"), tracking_uri=tracking_uri)
    sizes = {one.path.rpartition("/")[2]: one.file_size or 0 for one in listed if not one.is_dir}
    for file in FILES:
        if file not in sizes:
            msg = (
                f"{what}: file {prefix}{file} is missing in the registry (has: {', '.join(sorted(sizes)) or 'none'});"
                " register the model again: headrace models train"
            )
            raise ModelError(msg)
        if sizes[file] > MAX_ONNX_BYTES:
            msg = f"{what}: {prefix}{file} has {sizes[file]} bytes; at most {MAX_ONNX_BYTES} are allowed"
            raise ModelError(msg)
        uri = f"{source}/{prefix}{file}"
        try:
            artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=tracking_uri)
        except (OSError, _mlflow_exception()) as error:
            msg = f"{what}: {prefix}{file} cannot be downloaded from {tracking_uri}: {error}"
            raise RegistryError(msg) from error


def _check(found: "ModelVersion", folder: Path, feature_set: str, prefix: str) -> ModelContract:
    """Check what was downloaded; write the version into the contract."""
    what = f"model {found.name} version {found.version}"
    for file in FILES:
        noted = found.tags.get(digest_tag(prefix + file))
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        if digest != noted:
            tag = digest_tag(prefix + file)
            msg = (
                f"{what}: {prefix}{file} has sha256 {digest}; the version's tag {tag!r} says {noted};"
                " it was changed after registration: register the model again"
            )
            raise ModelError(msg)
    contract = msgspec.structs.replace(ModelContract.read(folder), version=str(found.version))
    if contract.feature_set != feature_set:
        msg = (
            f"{what}: was trained on feature set {contract.feature_set}; the pipeline has {feature_set};"
            " retrain the model, or restore the features it was trained on"
        )
        raise ModelError(msg)
    check_model((folder / ONNX_FILE).read_bytes(), contract, Golden.read(folder))
    contract.write(folder)
    return contract


def _mlflow_exception() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    return MlflowException
