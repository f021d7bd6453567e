"""The registry, writing: a trained model -> one MLflow run and one version of the registered model, then the alias.

The alias moves last: until everything else is there, nobody is sent to the new version.
"""

import datetime as dt
import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models.check import check_model
from models.evaluation import Evaluation
from models.export import Exported, Proof
from models.golden import Golden
from models.registry import BASELINE, FEATURE_SET_TAG, FILES, PIPELINE_TAG, digest_tag
from models.tracking import connect
from models.training import TrainedModel
from udfs.core.model import F32, ONNX_FILE

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ARTIFACT_FOLDER = "model"
READY_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Candidate:
    """One exported model with what is known of it."""

    exported: Exported
    proof: Proof
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Registered:
    """What registration came to."""

    name: str
    version: str
    run_id: str
    alias: str | None


def register(
    trained: TrainedModel, model: Candidate, baseline: Candidate, tracking_uri: str, alias: str | None = None
) -> Registered:
    """Check the model, log one run, register one version, move the alias.

    Parameters
    ----------
    trained : what was trained; its held-out rows give the golden batches
    model, baseline : the two exported models
    tracking_uri : `http://host:port` of MLflow
    alias : points at the new version afterwards; None moves none

    Raises
    ------
    RegistryError : MLflow cannot be reached, or refuses.
    ModelError : a rule of `check` is broken.
    """
    name = model.exported.contract.name
    with tempfile.TemporaryDirectory(prefix="headrace-register-") as made, connect(tracking_uri) as client:
        folder = Path(made)  # mode 0700
        _write(folder, model.exported, trained.test.select(trained.model.columns))
        (folder / BASELINE).mkdir()
        _write(folder / BASELINE, baseline.exported, trained.test.select(trained.baseline.columns))
        (folder / "evaluation.json").write_bytes(
            msgspec.json.format(
                msgspec.json.encode({"model": model.evaluation, BASELINE: baseline.evaluation}), indent=2
            )
        )
        run = client.create_run(
            _experiment(client, trained.pipeline.name), run_name=f"{name} until {trained.train_until}"
        )
        run_id = run.info.run_id
        try:
            _log(client, run_id, trained, model, baseline)
            _write_mlmodel(folder, run_id, model.exported)
            client.log_artifacts(run_id, str(folder), ARTIFACT_FOLDER)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
        _ensure_model(client, name, trained.pipeline.description)
        tags = {FEATURE_SET_TAG: trained.feature_set, PIPELINE_TAG: trained.pipeline.name}
        for path in (*FILES, *(f"{BASELINE}/{file}" for file in FILES)):
            tags[digest_tag(path)] = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        source = f"{run.info.artifact_uri}/{ARTIFACT_FOLDER}"
        version = str(
            client.create_model_version(
                name, source, run_id=run_id, tags=tags, await_creation_for=READY_TIMEOUT_S
            ).version
        )
        if alias is not None:
            client.set_registered_model_alias(name, alias, version)
        return Registered(name, version, run_id, alias)


def _write(folder: Path, exported: Exported, rows: F32) -> None:
    scorer = check_model(exported.onnx, exported.contract)
    golden = Golden.of(scorer, rows)
    golden.check(scorer)
    golden.write(folder)
    exported.contract.write(folder)
    (folder / ONNX_FILE).write_bytes(exported.onnx)


def _write_mlmodel(folder: Path, run_id: str, exported: Exported) -> None:
    """Write MLflow's own description, so that its pages show inputs and outputs; the one flavor runs no code."""
    import numpy as np
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    contract = exported.contract
    float32 = np.dtype(np.float32)
    signature = ModelSignature(
        Schema([TensorSpec(float32, (-1, len(contract.inputs)), contract.onnx_input)]),
        Schema([TensorSpec(float32, (-1, 2), contract.onnx_output)]),
    )
    metadata = {"sha256": contract.sha256, "feature_set": contract.feature_set, "inputs": contract.inputs}
    model = Model(artifact_path=ARTIFACT_FOLDER, run_id=run_id, signature=signature, metadata=metadata)
    providers = ["CPUExecutionProvider"]
    model.add_flavor(
        "onnx", onnx_version=onnx.__version__, data=ONNX_FILE, providers=providers, code=None, options=None
    )
    model.save(str(folder / "MLmodel"))


def _log(client: "MlflowClient", run_id: str, trained: TrainedModel, model: Candidate, baseline: Candidate) -> None:
    from mlflow.entities import Metric, Param

    params: dict[str, Any] = {
        **asdict(trained.parameters),
        "train_until": trained.train_until,
        "test_until": trained.test_until,
        "feature_set": trained.feature_set,
        "features": len(trained.model.columns),
        "baseline_features": len(trained.baseline.columns),
    }
    metrics: dict[str, float] = {"train_rows": trained.train_rows, "test_rows": len(trained.test)}
    for prefix, one in (("", model), (f"{BASELINE}_", baseline)):
        metrics |= {
            f"{prefix}{measure}": getattr(one.evaluation, measure)
            for measure in ("auc", "log_loss", "brier", "calibration_error")
        }
        metrics[f"{prefix}onnx_max_difference"] = one.proof.max_difference
    now_ms = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(key, float(value), now_ms, 0) for key, value in metrics.items()],
        params=[Param(key, str(value)) for key, value in params.items()],
    )


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
