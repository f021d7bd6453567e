"""Training: labelled examples, split by time -> a LightGBM model, and a baseline that lacks the windowed features.

Everything is seeded and single-order, so that the same history gives the same model, bit by bit.
"""

import datetime as dt
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.examples import Examples
from models.rounding import round_thresholds
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import ModelError
from udfs.core.model.scorer import F32
from udfs.core.plan.features import feature_columns, feature_set_hash

if TYPE_CHECKING:
    import lightgbm as lgb


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the LightGBM fit, under LightGBM's names."""

    num_iterations: int = 250
    num_leaves: int = 31
    learning_rate: float = 0.06
    min_data_in_leaf: int = 100
    feature_fraction: float = 0.8
    lambda_l2: float = 1.0
    seed: int = 2013
    num_threads: int = 2


@dataclass(frozen=True, slots=True)
class Fitted:
    """One fitted model."""

    columns: tuple[str, ...]
    booster: "lgb.Booster"


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What training leaves: two fitted models and the rows they have not seen."""

    pipeline: Pipeline
    #: hash of the feature set
    feature_set: str
    parameters: Parameters
    model: Fitted
    #: the same kind of model on `model.inputs` only
    baseline: Fitted
    train_rows: int
    test: Examples
    train_until: dt.date
    test_until: dt.date


def fit(
    pipeline: Pipeline,
    folder: Path,
    examples: Examples,
    train_until: dt.date,
    test_until: dt.date,
    parameters: Parameters | None = None,
) -> TrainedModel:
    """Fit on what was known before `train_until`; keep the events from then until `test_until` for the test.

    A training row needs its label, too, before `train_until`: later it could not have been trained on.

    Parameters
    ----------
    pipeline, folder : the definition and the folder its files are relative to
    examples : labelled rows
    train_until, test_until : midnight UTC at the start of these days, both excluded
    parameters : of the fit; default: `Parameters()`

    Raises
    ------
    ModelError : a side of the split is empty or has one class only, or there is nothing to compare with.
    """
    if not pipeline.model.inputs:
        msg = f"pipeline {pipeline.name}: model.inputs: empty; the baseline, which has no windowed features, needs some"
        raise ModelError(msg)
    parameters = parameters or Parameters()
    until_ms, end_ms = _midnight_ms(train_until), _midnight_ms(test_until)
    times_ms = examples.event_time_ms
    known = examples.where((times_ms < until_ms) & (examples.label_time_ms < until_ms))
    test = examples.where((times_ms >= until_ms) & (times_ms < end_ms))
    for side, rows in ((f"before {train_until}", known), (f"from {train_until} until {test_until}", test)):
        positive = int(rows.positive.sum())
        if positive in (0, len(rows)):
            first, last = (np.datetime64(int(time_ms), "ms") for time_ms in (times_ms.min(), times_ms.max()))
            msg = (
                f"{side}: got {len(rows)} labelled events, {positive} of them positive; both classes are needed;"
                f" the history has {len(examples)} labelled events from {first} to {last}"
            )
            raise ModelError(msg)
    return TrainedModel(
        pipeline,
        feature_set_hash(pipeline, folder),
        parameters,
        _fit(known, feature_columns(pipeline), parameters),
        _fit(known, tuple(pipeline.model.inputs), parameters),
        len(known),
        test,
        train_until,
        test_until,
    )


def _fit(known: Examples, columns: tuple[str, ...], parameters: Parameters) -> Fitted:
    matrix: F32 = known.select(columns)
    settings = {
        **asdict(parameters),
        "objective": "binary",
        "verbosity": -1,
        "deterministic": True,
        "force_row_wise": True,
    }
    rounds = settings.pop("num_iterations")
    import lightgbm as lgb

    data = lgb.Dataset(matrix, known.positive.astype(np.float32), feature_name=list(columns), params=settings)
    return Fitted(columns, round_thresholds(lgb.train(settings, data, num_boost_round=rounds)))


def _midnight_ms(day: dt.date) -> int:
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp()) * 1000
