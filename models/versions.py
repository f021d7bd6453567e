"""Versions in the registry: how one is found, and its files fetched as bytes; whether they may be used is `registry`'s.

The light client, mlflow-skinny, is enough.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from models.formats import refuse_pickle_names
from models.tracking import RegistryError
from udfs.core.errors import did_you_mean
from udfs.core.model.contract import ModelContract
from udfs.core.model.files import CONTRACT_FILE, FILES, MAX_BYTES, ONNX_FILE, read_file, sha256
from udfs.core.model.refusals import ModelRefusedError, Refusal

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.tracking import MlflowClient

BASELINE = "baseline"
SHA256_TAG, FEATURE_SET_TAG, PIPELINE_TAG, ARCHIVED_TAG = "sha256", "feature_set", "pipeline", "archived"
#: lineage: the model's features, and what these are made of; names between commas, so that `LIKE '%,name,%'` finds one
FEATURES_TAG, COLUMNS_TAG = "features", "columns"
REMOTE_SCHEMES = ("mlflow-artifacts", "http", "https", "s3", "gs", "wasbs", "abfss", "dbfs")


def digest_tag(path: str) -> str:
    """Name of the version tag that holds the SHA-256 of a file; `sha256` is the one of the model itself."""
    return SHA256_TAG if path == ONNX_FILE else f"{SHA256_TAG}.{path}"


def find_version(client: "MlflowClient", name: str, alias: str, version: str | None = None) -> "ModelVersion":
    """Return the version that an alias points at, or the numbered one.

    Raises
    ------
    ModelRefusedError : `unknown`: there is no such model, alias or version; names those there are.
    """
    model = find_model(client, name)
    if version is None and alias not in model.aliases:
        known = ", ".join(f"{one} -> version {number}" for one, number in sorted(model.aliases.items())) or "none"
        msg = f"model {name}: has no alias {alias!r} (aliases: {known}){did_you_mean(alias, model.aliases)}"
        raise ModelRefusedError(Refusal.UNKNOWN, msg)
    number = version or str(model.aliases[alias])
    try:
        found = client.get_model_version(name, number)
    except _mlflow_exception() as error:
        if getattr(error, "error_code", "") not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        versions = sorted(int(one.version) for one in client.search_model_versions(f"name='{name}'", max_results=100))
        msg = f"model {name}: has no version {number!r}; versions: {', '.join(map(str, versions)) or 'none'}"
        raise ModelRefusedError(Refusal.UNKNOWN, msg) from error
    if not str(found.version).isdecimal():
        msg = f"model {name}: the registry calls its version {found.version!r}; a number is expected"
        raise ModelRefusedError(Refusal.PATH, msg)
    return found


def find_model(client: "MlflowClient", name: str) -> "RegisteredModel":
    """Return a registered model with its aliases.

    Raises
    ------
    ModelRefusedError : `unknown`: there is none of that name; names those there are.
    """
    try:
        return client.get_registered_model(name)
    except _mlflow_exception() as error:
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [model.name for model in client.search_registered_models(max_results=100)]
        near = did_you_mean(name, known) or "; none is registered yet: headrace models train"
        msg = f"no registered model {name!r}{near}"
        raise ModelRefusedError(Refusal.UNKNOWN, msg) from error


def fetch_contract(client: "MlflowClient", found: "ModelVersion", tracking_uri: str) -> ModelContract:
    """Return the contract of a version, held to its digest; the model itself is not fetched.

    Raises
    ------
    ModelRefusedError : it is missing or was changed.
    """
    files = fetch(client, found, tracking_uri, "", (CONTRACT_FILE,))
    what = f"model {found.name} version {found.version}"
    digest, noted = sha256(files[CONTRACT_FILE]), noted_digests(found, "")[CONTRACT_FILE]
    if digest != noted:
        msg = f"{what}: {CONTRACT_FILE} has sha256 {digest}; the version's tag says {noted}"
        raise ModelRefusedError(Refusal.DIGEST, f"{msg}; it was changed after registration")
    return msgspec.structs.replace(
        ModelContract.decode(files[CONTRACT_FILE], f"{what}: {CONTRACT_FILE}"), version=str(found.version)
    )


def safe_source(source: str, tracking_uri: str) -> str:
    """Return the address of a version's files, if it is one that a client may read from.

    Raises
    ------
    ModelRefusedError : `path`: it is a place on this machine, another server than the registry's, or climbs with `..`.

    Examples
    --------
    >>> safe_source("mlflow-artifacts:/1/abc/artifacts/model", "http://127.0.0.1:5000")
    'mlflow-artifacts:/1/abc/artifacts/model'
    """
    parts = urlsplit(source)
    path = unquote(unquote(parts.path))
    of_registry = urlsplit(tracking_uri).netloc
    is_elsewhere = parts.scheme in REMOTE_SCHEMES[:3] and parts.netloc not in ("", of_registry)
    is_odd = ".." in PurePosixPath(path).parts or "\\" in path or parts.query or parts.fragment
    if parts.scheme not in REMOTE_SCHEMES or is_elsewhere or is_odd:
        msg = f"the registry says that the files lie at {source!r}; a client of {tracking_uri} does not read from there"
        raise ModelRefusedError(Refusal.PATH, msg)
    return source.rstrip("/")


def refuse_archived(found: "ModelVersion") -> None:
    """Refuse a version that was taken out of use.

    Raises
    ------
    ModelRefusedError : `archived`.
    """
    since = found.tags.get(ARCHIVED_TAG)
    if since:
        msg = f"model {found.name} version {found.version}: is archived since {since}"
        raise ModelRefusedError(Refusal.ARCHIVED, f"{msg}; headrace models archive --restore takes it back into use")


def fetch(
    client: "MlflowClient", found: "ModelVersion", tracking_uri: str, prefix: str, files: Sequence[str] = FILES
) -> dict[str, bytes]:
    """Return the content of files of a version, after a look at what there is and how large; they may hold anything.

    Parameters
    ----------
    found : of which version
    prefix : folder of the files, with a slash, or empty

    Raises
    ------
    RegistryError : a file cannot be downloaded.
    ModelRefusedError : `path`, `pickle`, `missing_file` or `too_large`.
    """
    from mlflow import artifacts

    what = f"model {found.name} version {found.version}"
    source = safe_source(client.get_model_version_download_uri(found.name, str(found.version)), tracking_uri)
    listed = artifacts.list_artifacts(artifact_uri=f"{source}/{prefix}".rstrip("/"), tracking_uri=tracking_uri)
    sizes = {one.path.rpartition("/")[2]: one.file_size or 0 for one in listed if not one.is_dir}
    refuse_pickle_names(list(sizes), what)
    fetched: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-fetch-") as made:  # mode 0700
        for file in files:
            if file not in sizes:
                has = ", ".join(sorted(sizes)) or "none"
                msg = f"{what}: file {prefix}{file} is missing in the registry (has: {has}); register the model again"
                raise ModelRefusedError(Refusal.MISSING_FILE, msg)
            if sizes[file] > MAX_BYTES[file]:
                msg = f"{what}: {prefix}{file} has {sizes[file]} bytes; at most {MAX_BYTES[file]} are allowed"
                raise ModelRefusedError(Refusal.TOO_LARGE, msg)
            try:
                artifacts.download_artifacts(
                    artifact_uri=f"{source}/{prefix}{file}", dst_path=made, tracking_uri=tracking_uri
                )
            except OSError as error:
                msg = f"{what}: {prefix}{file} cannot be downloaded from {tracking_uri}: {error}"
                raise RegistryError(msg) from error
            fetched[file] = read_file(Path(made), file)
    return fetched


def noted_digests(found: "ModelVersion", prefix: str) -> dict[str, str]:
    """Return the digests that the version's tags name."""
    return {file: found.tags.get(digest_tag(prefix + file), "none") for file in FILES}


def _mlflow_exception() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    return MlflowException
