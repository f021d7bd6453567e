"""From a history to a registered model in one call: featurize, fit, export, prove, evaluate, register."""

import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

from models.days import PROVENANCE
from models.evaluation import Evaluation, evaluate
from models.examples import Examples, read_examples
from models.export import Exported, Proof, export, prove
from models.lineage import feature_sources
from models.onnx_wire import references
from models.package import Package
from models.registration import Entry, Registered, publish
from models.tracking import probe
from models.training import Fitted, Parameters, TrainedModel, fit
from models.versions import BASELINE
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.scorer import Scorer

MEASURES = ("auc", "log_loss", "brier", "calibration_error")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One exported model with what is known of it."""

    exported: Exported
    proof: Proof
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that came out on the way."""

    trained: TrainedModel
    model: Candidate
    baseline: Candidate
    registered: Registered


def train_and_register(
    folder: Path,
    history: Path,
    train_until: dt.date,
    test_until: dt.date,
    tracking_uri: str,
    alias: str | None = None,
    parameters: Parameters | None = None,
    report: Callable[[str], None] = lambda _step: None,
) -> Outcome:
    """Train the model of a pipeline folder and register it under the name that the pipeline gives it.

    Parameters
    ----------
    folder : pipeline folder
    history : Parquet file, see `models.history`, or a training set that `headrace dataset` wrote
    train_until, test_until : midnight UTC at the start of these days, both excluded
    tracking_uri : `http://host:port` of MLflow; asked for a sign of life first
    alias : points at the new version afterwards; None moves none
    parameters : of the fit
    report : called with each step as it starts: featurize, fit, export, prove, register

    Raises
    ------
    DefinitionError, HistoryError, ModelError : see `read_examples`, `fit`, `export`, `prove` and `publish`.
    """
    probe(tracking_uri)
    pipeline = load_pipeline(folder)
    report("featurize")
    examples = read_examples(pipeline, folder, history)
    report("fit")
    trained = fit(pipeline, folder, examples, train_until, test_until, parameters)
    name = pipeline.model.name
    report("export")
    exported = [
        export(fitted, called, trained.feature_set)
        for fitted, called in ((trained.model, name), (trained.baseline, f"{name}-baseline"))
    ]
    report("prove")
    model, baseline = (
        Candidate(one, prove(fitted, one, trained.test), _evaluate(fitted, one, trained.test))
        for fitted, one in zip((trained.model, trained.baseline), exported, strict=True)
    )
    report("register")
    entry = _entry(trained, model, baseline, folder, history)
    return Outcome(trained, model, baseline, publish(entry, tracking_uri, alias))


def _evaluate(fitted: Fitted, exported: Exported, test: Examples) -> Evaluation:
    scores = Scorer(exported.onnx, exported.contract).score(test.select(fitted.columns))
    return evaluate(scores, test.positive)


def _entry(trained: TrainedModel, model: Candidate, baseline: Candidate, folder: Path, history: Path) -> Entry:
    """Seal both models, with where they come from; their golden batches are held-out rows."""
    origin = {
        "trainer": f"lightgbm {version('lightgbm')}",
        "exporter": references(model.exported.onnx).producer,
        "headrace": version("headrace"),
        "data": history.name,
        "data_sha256": _digest(history),
        "train_until": str(trained.train_until),
        "test_until": str(trained.test_until),
        "train_rows": str(trained.train_rows),
        "test_rows": str(len(trained.test)),
        "parameters": msgspec.json.encode(asdict(trained.parameters)).decode(),
    }
    if trained.pipeline.label is not None:
        label = trained.pipeline.label
        origin["label"] = f"{label.of} of {label.topic} above {label.above:g}"

    def seal(one: Candidate, fitted: Fitted) -> Package:
        contract = msgspec.structs.replace(
            one.exported.contract,
            pipeline=trained.pipeline.name,
            provenance=origin,
            lineage=feature_sources(trained.pipeline, folder, fitted.columns),
        )
        return Package.seal(one.exported.onnx, contract, trained.test.select(fitted.columns))

    metrics: dict[str, float] = {"train_rows": trained.train_rows, "test_rows": len(trained.test)}
    for prefix, one in (("", model), (f"{BASELINE}_", baseline)):
        metrics |= {f"{prefix}{measure}": getattr(one.evaluation, measure) for measure in MEASURES}
        metrics[f"{prefix}onnx_max_difference"] = one.proof.max_difference
    evaluations = {"model": model.evaluation, BASELINE: baseline.evaluation}
    return Entry(
        package=seal(model, trained.model),
        description=trained.pipeline.description,
        run_name=f"{model.exported.contract.name} until {trained.train_until}",
        params={
            **asdict(trained.parameters),
            "train_until": trained.train_until,
            "test_until": trained.test_until,
            "feature_set": trained.feature_set,
            "features": len(trained.model.columns),
            "baseline_features": len(trained.baseline.columns),
            "data_sha256": origin["data_sha256"],
        },
        metrics=metrics,
        baseline=seal(baseline, trained.baseline),
        notes={"evaluation.json": msgspec.json.format(msgspec.json.encode(evaluations), indent=2)},
    )


def _digest(data: Path) -> str:
    """Return the digest of a history; of a training set that of its provenance, which holds those of its inputs."""
    with (data / PROVENANCE if data.is_dir() else data).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
