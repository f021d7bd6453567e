"""Quality: scores against the labels that arrived later, model beside baseline; and scores against themselves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from models.evaluation import Evaluation, evaluate
from scripts.demo.outputs import Prediction
from udfs.core.declare.declarations import Label
from udfs.core.model.scorer import F32, Scorer


@dataclass(frozen=True, slots=True)
class Quality:
    """How good the model and its baseline were on the same labelled predictions."""

    model: Evaluation
    baseline: Evaluation


def judge(predictions: list[Prediction], labels: Iterable[bytes | None], label: Label, baseline: Scorer) -> Quality:
    """Evaluate the scores that were written, and those that the baseline gives from the features written.

    Parameters
    ----------
    labels : values of the label topic; a null one is no label, the last one of an id counts
    baseline : model on some of the features

    Raises
    ------
    ModelError : no prediction has a label, or all have the same.
    """
    truth = _truth(labels, label)
    known = [one for one in predictions if one.event_id in truth]
    positive = np.array([truth[one.event_id] for one in known], np.bool_)
    scores = np.array([one.score for one in known], np.float64)
    return Quality(evaluate(scores, positive), evaluate(score_again(known, baseline), positive))


def score_again(predictions: list[Prediction], scorer: Scorer) -> F32:
    """Score the features that were written, float32[n]."""
    columns = scorer.contract.inputs
    values: list[list[Any]] = [[one.features[name] for name in columns] for one in predictions]
    return scorer.score(np.array(values, np.float64).reshape(len(values), len(columns)).astype(np.float32))


def differing_scores(predictions: list[Prediction], scorer: Scorer) -> int:
    """Count the predictions whose score is not, bit for bit, what the model gives for the features beside it."""
    written = np.array([one.score for one in predictions], np.float64)
    again = score_again(predictions, scorer).astype(np.float64)
    return int(np.count_nonzero(written.view(np.uint64) != again.view(np.uint64)))


def _truth(labels: Iterable[bytes | None], label: Label) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for value in labels:
        fields = msgspec.json.decode(value or b"{}")
        if fields.get(label.of) is not None:
            found[fields[label.contract.id]] = fields[label.of] > label.above
    return found
