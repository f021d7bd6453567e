"""Two versions side by side: measures, features, sizes, and the scores that each gives the other's golden batch."""

import shutil
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.catalog import VersionEntry, describe
from models.package import Package
from models.registry import resolve
from udfs.core.model.contract import NUMBER_MEANINGS, ModelContract
from udfs.core.model.scorer import F32, Scorer

TIMED_RUNS = 20


@dataclass(frozen=True, slots=True)
class ScoreDifference:
    """How differently two models score the rows that both can take."""

    rows: int
    mean: float
    largest: float
    #: share of rows whose answer differs: on the other side of the threshold, or another best class; None without one
    other_answer: float | None
    #: why there is nothing to compare; empty if there is
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """What is known of one version."""

    entry: VersionEntry
    onnx_bytes: int
    #: median time of the golden batch, milliseconds, and its rows
    golden_ms: float
    golden_rows: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions, the second held against the first."""

    first: Side
    second: Side
    added: tuple[str, ...]
    removed: tuple[str, ...]
    #: features that both take, but declared differently
    changed: tuple[str, ...]
    scores: ScoreDifference


def compare(first: str, second: str, tracking_uri: str) -> Comparison:
    """Fetch and check two versions, and compare them.

    Parameters
    ----------
    first, second : references, see `catalog.parse_reference`

    Raises
    ------
    RegistryError, ModelRefusedError : see `describe` and `resolve`.
    """
    sides, packages = [], []
    for reference in (first, second):
        entry = describe(reference, tracking_uri)
        found = resolve(entry.name, "", tracking_uri, None, version=entry.version)
        try:
            package = Package.read(found.folder)
        finally:
            shutil.rmtree(found.folder, ignore_errors=True)
        scorer = Scorer(package.onnx, package.contract)
        sides.append(Side(entry, len(package.onnx), _median_ms(scorer, package), len(package.golden.inputs)))
        packages.append((package, scorer))
    before, after = packages[0][0].contract, packages[1][0].contract
    both = [name for name in after.inputs if name in before.inputs]
    return Comparison(
        sides[0],
        sides[1],
        added=tuple(name for name in after.inputs if name not in before.inputs),
        removed=tuple(name for name in before.inputs if name not in after.inputs),
        changed=tuple(name for name in both if _declared(before, name) != _declared(after, name)),
        scores=score_difference(packages[0], packages[1]),
    )


def score_difference(first: tuple[Package, Scorer], second: tuple[Package, Scorer]) -> ScoreDifference:
    """Let each of two models score the golden rows of either, as far as it knows their features."""
    contracts = first[0].contract, second[0].contract
    outputs = contracts[0].output, contracts[1].output
    if (outputs[0].meaning, outputs[0].classes, outputs[0].width) != (
        outputs[1].meaning,
        outputs[1].classes,
        outputs[1].width,
    ):
        return ScoreDifference(0, 0, 0, None, f"{outputs[0].meaning} and {outputs[1].meaning} have no common measure")
    pairs = [_both(own, first, second) for own in (first, second)]
    found = [pair for pair in pairs if pair is not None]
    if not found:
        missing = sorted(set(contracts[0].inputs) ^ set(contracts[1].inputs))
        return ScoreDifference(0, 0, 0, None, f"no golden row has the features of both: {', '.join(missing)}")
    one, other = (np.concatenate([pair[i] for pair in found]) for i in (0, 1))
    fit = np.isfinite(one).reshape(len(one), -1).all(axis=1) & np.isfinite(other).reshape(len(one), -1).all(axis=1)
    if not fit.any():
        return ScoreDifference(0, 0, 0, None, "no golden row gets a score from both")
    one, other = one[fit], other[fit]
    apart = np.abs(one.astype(np.float64) - other)
    answers = [_answers(scores, contract) for scores, contract in zip((one, other), contracts, strict=True)]
    other_answer = None
    if answers[0] is not None and answers[1] is not None:
        other_answer = float((answers[0] != answers[1]).mean())
    return ScoreDifference(len(one), float(apart.mean()), float(apart.max()), other_answer)


def _both(own: tuple[Package, Scorer], *pair: tuple[Package, Scorer]) -> tuple[F32, F32] | None:
    """Score the golden rows of one model with two; None if these know too few features."""
    columns, rows = own[0].contract.inputs, own[0].golden.inputs
    scores = []
    for package, scorer in pair:
        needed = package.contract.inputs
        if set(needed) - set(columns):
            return None
        taken = rows[:, [columns.index(name) for name in needed]]
        is_float32 = package.golden.inputs.dtype == np.float32
        scores.append(scorer.score(taken.astype(np.float32) if is_float32 else taken.astype(np.float64)))
    return scores[0], scores[1]


def _answers(scores: F32, contract: ModelContract) -> NDArray[np.generic] | None:
    if contract.output.meaning == "class_scores":
        return np.asarray(scores.argmax(axis=1))
    if contract.output.meaning in NUMBER_MEANINGS and contract.threshold is not None:
        return np.asarray(scores > contract.threshold)
    return None


def _declared(contract: ModelContract, name: str) -> str:
    return contract.lineage[name].definition if name in contract.lineage else ""


def _median_ms(scorer: Scorer, package: Package) -> float:
    times_s = []
    for _ in range(TIMED_RUNS):
        began_s = time.perf_counter()
        scorer.score(package.golden.inputs)
        times_s.append(time.perf_counter() - began_s)
    return float(np.median(times_s)) * 1000
