"""What a model must satisfy before it is registered and again before a job uses it; refusals say which rule is broken.

Needs no `onnx` package, except `check_strictly`, which is for the side that trains.
"""

from models.golden import Golden
from models.onnx_wire import references
from udfs.core.errors import ModelError
from udfs.core.model import ModelContract, Scorer

MAX_ONNX_BYTES = 256 * 1024 * 1024
STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def check_model(onnx: bytes, contract: ModelContract, golden: Golden | None = None) -> Scorer:
    """Check a model against its contract and load it.

    In this order: size; no external data, no functions of its own, standard operators only; digest, ONNX Runtime can
    load it, input and output as promised (see `Scorer`); the golden batch gets finite scores, and the ones noted down.

    Parameters
    ----------
    onnx : bytes of the model
    contract : what it promises
    golden : inputs and expected scores; None where they are yet to be made

    Returns
    -------
    The loaded model.

    Raises
    ------
    ModelError : a rule is broken.
    """
    what = f"model {contract.name} version {contract.version or '(new)'}"
    if len(onnx) > MAX_ONNX_BYTES:
        msg = f"{what}: model.onnx has {len(onnx)} bytes; at most {MAX_ONNX_BYTES} are allowed; use fewer trees"
        raise ModelError(msg)
    found = references(onnx)
    if found.has_external_data:
        msg = (
            f"{what}: model.onnx keeps tensors in other files (external data), which could be any file; save it as one"
        )
        raise ModelError(msg)
    strange = sorted(found.domains - set(STANDARD_DOMAINS))
    if strange or found.has_functions:
        got = f"operators of domain {', '.join(map(repr, strange))}" if strange else "functions of its own"
        msg = f"{what}: model.onnx uses {got}; only the standard operators of ai.onnx and ai.onnx.ml are allowed"
        raise ModelError(msg)
    scorer = Scorer(onnx, contract)
    if golden is not None:
        golden.check(scorer)
    return scorer


def check_strictly(onnx: bytes) -> None:
    """Run the checker of the `onnx` package, with shape inference.

    Raises
    ------
    ModelError : the bytes are no valid ONNX model.
    """
    import onnx as onnx_package

    try:
        onnx_package.checker.check_model(onnx, full_check=True)
    except Exception as error:
        msg = f"the file is no valid ONNX model: {error}"
        raise ModelError(msg) from error
