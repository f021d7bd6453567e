"""From a history to a registered model in one call: featurize, fit, export, prove, evaluate, register."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.evaluation import Evaluation, evaluate
from models.examples import Examples, read_examples
from models.export import Exported, export, prove
from models.registration import Candidate, Registered, register
from models.tracking import probe
from models.training import Fitted, Parameters, TrainedModel, fit
from udfs.core.loading import load_pipeline
from udfs.core.model import Scorer


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
    history : Parquet file, see `models.history`
    train_until, test_until : midnight UTC at the start of these days, both excluded
    tracking_uri : `http://host:port` of MLflow; asked for a sign of life first
    alias : points at the new version afterwards; None moves none
    parameters : of the fit
    report : called with each step as it starts: featurize, fit, export, prove, register

    Raises
    ------
    DefinitionError, HistoryError, ModelError : see `read_examples`, `fit`, `export`, `prove` and `register`.
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
    return Outcome(trained, model, baseline, register(trained, model, baseline, tracking_uri, alias))


def _evaluate(fitted: Fitted, exported: Exported, test: Examples) -> Evaluation:
    scores = Scorer(exported.onnx, exported.contract).score(test.select(fitted.columns))
    return evaluate(scores, test.positive)
