"""Export: a fitted LightGBM model -> ONNX with one input and one output, and the proof that both score alike."""

import json
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.check import FEATURES_METADATA, check_model, check_strictly
from models.examples import Examples
from models.training import Fitted
from udfs.core.errors import ModelError
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.files import ONNX_FILE, sha256
from udfs.core.model.scorer import F32, Scorer

INPUT, OUTPUT, POSITIVE_COLUMN = "features", "probabilities", 1
TARGET_OPSET = 15
DECISION_THRESHOLD = 0.5
#: trees are summed as float32 by ONNX Runtime, as float64 by LightGBM; every branch is the same
MAX_DIFFERENCE = 1e-5
PROOF_BATCH_ROWS = 8192
NULL_SHARE = 0.2
NULL_SEED = 7


@dataclass(frozen=True, slots=True)
class Exported:
    """A model as it is registered."""

    onnx: bytes
    contract: ModelContract


@dataclass(frozen=True, slots=True)
class Proof:
    """Largest differences between ONNX and LightGBM, both fed the same float32 rows."""

    rows: int
    max_difference: float
    #: the same rows with a fifth of all values made null
    max_difference_with_nulls: float


def export(fitted: Fitted, name: str, feature_set: str) -> Exported:
    """Convert a fitted model; the same model gives the same bytes.

    Parameters
    ----------
    fitted : with float32 thresholds, see `rounding`
    name : registered model name
    feature_set : hash of the feature set it was trained on

    Raises
    ------
    ModelError : what came out breaks a rule of `check`.
    """
    onnx = _convert(fitted, name)
    check_strictly(onnx)
    contract = ModelContract(
        name=name,
        files={ONNX_FILE: sha256(onnx)},
        feature_set=feature_set,
        tensors=[Tensor(INPUT, "float32", list(fitted.columns))],
        output=Output(OUTPUT, "probability", POSITIVE_COLUMN),
        threshold=DECISION_THRESHOLD,
    )
    check_model(onnx, contract)
    return Exported(onnx, contract)


def prove(fitted: Fitted, exported: Exported, examples: Examples) -> Proof:
    """Score rows with both, through the `Scorer` that jobs use.

    Raises
    ------
    ModelError : a row differs by more than `MAX_DIFFERENCE`.
    """
    scorer = Scorer(exported.onnx, exported.contract)
    matrix = examples.select(fitted.columns)
    holed = matrix.copy()
    holed[np.random.default_rng(NULL_SEED).random(matrix.shape) < NULL_SHARE] = np.nan
    differences = [_difference(fitted, scorer, rows) for rows in (matrix, holed)]
    for kind, difference in zip(("held-out", "held-out, partly null"), differences, strict=True):
        if not difference.max() <= MAX_DIFFERENCE:
            row = int(difference.argmax())
            above = int((difference > MAX_DIFFERENCE).sum())
            msg = (
                f"model {exported.contract.name}: ONNX and LightGBM differ by {difference[row]:.3g} on {kind} row {row}"
                f" ({above} of {len(difference)} rows above {MAX_DIFFERENCE:g}); were the thresholds rounded?"
            )
            raise ModelError(msg)
    return Proof(len(matrix), *(float(difference.max()) for difference in differences))


def _difference(fitted: Fitted, scorer: Scorer, matrix: F32) -> NDArray[np.float64]:
    starts = range(0, len(matrix), PROOF_BATCH_ROWS)
    scores = np.concatenate([scorer.score(matrix[start : start + PROOF_BATCH_ROWS]) for start in starts])
    difference: NDArray[np.float64] = np.abs(fitted.booster.predict(matrix, num_threads=1) - scores)
    return difference


def _convert(fitted: Fitted, name: str) -> bytes:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = onnxmltools.convert_lightgbm(
            fitted.booster,
            name=name,
            initial_types=[(INPUT, FloatTensorType([None, len(fitted.columns)]))],
            target_opset=TARGET_OPSET,
            zipmap=False,
        )
    # Only the probabilities are kept: the export declares the label with a shape that ONNX Runtime warns of.
    graph = model.graph
    needed, kept = {OUTPUT}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    for field, values in (
        (graph.node, kept[::-1]),
        (graph.output, [one for one in graph.output if one.name == OUTPUT]),
    ):
        del field[:]
        field.extend(values)
    model.metadata_props.add(key=FEATURES_METADATA, value=json.dumps(fitted.columns))
    return bytes(model.SerializeToString(deterministic=True))
