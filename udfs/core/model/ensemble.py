"""Ensembles: the scores of several models for the same rows become one; row by row, so no batch cut shows in them."""

from collections.abc import Mapping, Sequence

import numpy as np

from udfs.core.declare.composition import Ensemble
from udfs.core.model.contract import NUMBER_MEANINGS, ModelContract
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import F32


class Combiner:
    """Combines the scores of an arm's own model and its members.

    Parameters
    ----------
    arm : whose ensemble it is
    ensemble : as declared
    contracts : of all models of the job, by name

    Raises
    ------
    ModelRefusedError : `contract`: their answers cannot be combined in this way.
    """

    def __init__(self, arm: str, ensemble: Ensemble, contracts: Mapping[str, ModelContract]) -> None:
        #: of the models, the arm's own first
        self.names = (arm, *(f"{arm}.{one.name}" for one in ensemble.members))
        found = [contracts[name] for name in self.names]
        _check(arm, ensemble, dict(zip(self.names, found, strict=True)))
        self._how, self._weights = ensemble.combine, ensemble.weights
        self._thresholds = [one.threshold or 0.0 for one in found]

    def combine(self, scores: Sequence[F32]) -> F32:
        """Return one score per row.

        Parameters
        ----------
        scores : of each model, float32[n] or float32[n, width]

        Examples
        --------
        >>> from udfs.core.model.contract import Output, Tensor
        >>> one = ModelContract(
        ...     name="m", files={}, feature_set="", tensors=[Tensor("x", "float32", ["a"])], output=Output("y", "value")
        ... )
        >>> declared = Ensemble.model_validate({"combine": "mean", "members": [{"name": "b"}]})
        >>> Combiner("champion", declared, {"champion": one, "champion.b": one}).combine(
        ...     [np.float32([1, 2]), np.float32([3, 2])]
        ... )
        array([2., 2.], dtype=float32)
        """
        if self._how == "max":
            return np.asarray(np.maximum.reduce(scores), np.float32)
        if self._how == "vote":
            return self._votes(scores)
        # In float64 and in the order of declaration: the same bits on every machine.
        total = np.zeros(scores[0].shape, np.float64)
        for one, weight in zip(scores, self._weights, strict=True):
            total += one * np.float64(weight)
        return (total / sum(self._weights)).astype(np.float32)

    def _votes(self, scores: Sequence[F32]) -> F32:
        votes = np.zeros(scores[0].shape, np.float64)
        for one, threshold in zip(scores, self._thresholds, strict=True):
            if one.ndim == 1:
                votes += one.astype(np.float64) > threshold
            else:
                votes[np.arange(len(one)), one.argmax(axis=1)] += 1
        return (votes / len(scores)).astype(np.float32)


def _check(arm: str, ensemble: Ensemble, contracts: Mapping[str, ModelContract]) -> None:
    own = contracts[arm]
    for name, one in contracts.items():
        wanted, got = own.output, one.output
        if (got.meaning, got.classes, got.width) != (wanted.meaning, wanted.classes, wanted.width):
            msg = f"ensemble of {arm}: {name}, {one.what}, gives {said(one)}; {own.what} gives {said(own)}"
            raise ModelRefusedError(Refusal.CONTRACT, f"{msg}; only like answers can be combined")
        if ensemble.combine == "vote" and got.meaning == "probability" and one.threshold is None:
            msg = f"ensemble of {arm}: {name}, {one.what}, has no threshold, above which it would vote yes"
            raise ModelRefusedError(Refusal.CONTRACT, f"{msg}; register it with --threshold")
    fitting = {"max": NUMBER_MEANINGS, "vote": ("probability", "class_scores")}.get(ensemble.combine)
    if fitting is not None and own.output.meaning not in fitting:
        msg = (
            f"ensemble of {arm}: combine: {ensemble.combine} takes {' or '.join(fitting)}; {own.what} gives {said(own)}"
        )
        raise ModelRefusedError(Refusal.CONTRACT, msg)


def said(contract: ModelContract) -> str:
    """Return the meaning of a model's output as text."""
    output = contract.output
    if output.meaning == "vector":
        return f"vector of width {output.width}"
    return f"{output.meaning} of {', '.join(output.classes)}" if output.classes else output.meaning
