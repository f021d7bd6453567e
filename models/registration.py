"""The registry, writing: a sealed model -> one MLflow run and one version of the registered model, then the alias.

The alias moves last: until everything else is there, nobody is sent to the new version.
"""

import datetime as dt
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from models.package import Package
from models.tracking import connect
from models.versions import BASELINE, COLUMNS_TAG, FEATURE_SET_TAG, FEATURES_TAG, PIPELINE_TAG, digest_tag
from udfs.core.model.contract import ModelContract
from udfs.core.model.files import ONNX_FILE, sha256

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ARTIFACT_FOLDER = "model"
READY_TIMEOUT_S = 10
TAG_MAX_CHARS = 100_000
DIGEST_MAX_CHARS, PARAM_MAX_CHARS = 36, 6_000  # of a dataset and of a parameter in MLflow


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes one run and one version."""

    package: Package
    #: of the registered model, where it is new
    description: str
    run_name: str
    params: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    #: a second model on fewer inputs, to compare with
    baseline: Package | None = None
    #: name -> content of further files, for people
    notes: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registered:
    """What registration came to."""

    name: str
    version: str
    run_id: str
    alias: str | None
    #: SHA-256 of each file, as `ResolvedModel.digests`
    digests: dict[str, str]


def publish(entry: Entry, tracking_uri: str, alias: str | None = None) -> Registered:
    """Log one run, register one version, move the alias.

    Parameters
    ----------
    entry : its package was sealed, hence checked
    tracking_uri : `http://host:port` of MLflow
    alias : points at the new version afterwards; None moves none

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    """
    contract = entry.package.contract
    packages = {"": entry.package} | ({f"{BASELINE}/": entry.baseline} if entry.baseline else {})
    tags = {FEATURE_SET_TAG: contract.feature_set, PIPELINE_TAG: contract.pipeline, **_lineage_tags(contract)}
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-register-") as made, connect(tracking_uri) as client:
        folder = Path(made)  # mode 0700
        for prefix, package in packages.items():
            (folder / prefix).mkdir(exist_ok=True)
            package.write(folder / prefix)
            found = {file: sha256(content) for file, content in package.files().items()}
            tags |= {digest_tag(prefix + file): digest for file, digest in found.items()}
            digests = digests or found
        for name, content in entry.notes.items():
            (folder / name).write_bytes(content)
        run = client.create_run(_experiment(client, contract.pipeline), run_name=entry.run_name)
        run_id = run.info.run_id
        try:
            _log(client, run_id, entry)
            _write_mlmodel(folder, run_id, contract)
            client.log_artifacts(run_id, str(folder), ARTIFACT_FOLDER)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
        _ensure_model(client, contract.name, entry.description)
        source = f"{run.info.artifact_uri}/{ARTIFACT_FOLDER}"
        made_version = client.create_model_version(
            contract.name, source, run_id=run_id, tags=tags, await_creation_for=READY_TIMEOUT_S
        )
        version = str(made_version.version)
        if alias is not None:
            client.set_registered_model_alias(contract.name, alias, version)
        return Registered(contract.name, version, run_id, alias, digests)


def _lineage_tags(contract: ModelContract) -> dict[str, str]:
    """Return the tags by which the registry finds the models of a feature, and of what a feature is made of."""
    columns = sorted({column for source in contract.lineage.values() for column in source.columns})
    tags = {FEATURES_TAG: contract.inputs, COLUMNS_TAG: columns}
    # A list that is too long for a tag is not cut, which would make a search miss some: `list --uses` reads contracts.
    return {tag: text for tag, names in tags.items() if len(text := f",{','.join(names)},") <= TAG_MAX_CHARS}


def _write_mlmodel(folder: Path, run_id: str, contract: ModelContract) -> None:
    """Write MLflow's own description, so that its pages show inputs and outputs; the one flavor runs no code."""
    import numpy as np
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs: list[ColSpec | TensorSpec] = [
        TensorSpec(np.dtype(one.dtype), (-1, len(one.features)), one.name) for one in contract.tensors
    ]
    output = TensorSpec(np.dtype(np.float32), (-1, -1), contract.output.name)
    signature = ModelSignature(Schema(inputs), Schema([output]))
    metadata = {"sha256": contract.sha256, "feature_set": contract.feature_set, "inputs": contract.inputs}
    model = Model(artifact_path=ARTIFACT_FOLDER, run_id=run_id, signature=signature, metadata=metadata)
    providers = ["CPUExecutionProvider"]
    model.add_flavor(
        "onnx", onnx_version=onnx.__version__, data=ONNX_FILE, providers=providers, code=None, options=None
    )
    model.save(str(folder / "MLmodel"))


def _log(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    from mlflow.entities import Dataset, DatasetInput, Metric, Param

    now_ms = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(key, float(value), now_ms, 0) for key, value in entry.metrics.items()],
        params=[Param(key, str(value)[:PARAM_MAX_CHARS]) for key, value in entry.params.items()],
    )
    origin = entry.package.contract.provenance
    if "data" in origin:
        digest = origin.get("data_sha256", "unknown")[:DIGEST_MAX_CHARS]
        client.log_inputs(run_id, [DatasetInput(Dataset(origin["data"], digest, "local", origin["data"]))])


def _experiment(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _ensure_model(client: "MlflowClient", name: str, description: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
