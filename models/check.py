"""What a model must satisfy before it is registered and again before a job uses it; refusals say which rule is broken.

Needs no `onnx` package, except `check_strictly`, which is for the side that registers.
"""

import msgspec

from models.formats import refuse_other_formats
from models.golden import Golden
from models.onnx_wire import References, references
from udfs.core.model.contract import ModelContract, in_order
from udfs.core.model.files import MAX_BYTES, ONNX_FILE
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import Scorer

STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
#: domain -> oldest and newest version that is supported: what ONNX Runtime guarantees, as far as ONNX has released it
OPSETS = {"": (7, 26), "ai.onnx.ml": (1, 5)}
IR_VERSIONS = (3, 13)
FEATURES_METADATA = "headrace.features"
"""Metadata of an ONNX file: the features of its inputs, a JSON list. Who changes the contract must change it, too."""


def check_model(onnx: bytes, contract: ModelContract, golden: Golden | None = None) -> Scorer:
    """Check a model against its contract and load it.

    In this order: what `check_file` refuses; the features named in the file; digest, ONNX Runtime can load it, inputs
    and output as promised (see `Scorer`); the golden batch gets the scores noted down, see `Golden.check`.

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
    ModelRefusedError : a rule is broken.
    """
    found = check_file(onnx, contract.what)
    named = named_features(found)
    wrong = named is not None and in_order(named, contract.inputs)
    if wrong:
        msg = f"{contract.what}: model.onnx names its features {named}; its contract says {contract.inputs}"
        raise ModelRefusedError(wrong, msg)
    scorer = Scorer(onnx, contract)
    if golden is not None:
        golden.check(scorer)
    return scorer


def check_file(onnx: bytes, what: str) -> References:
    """Check the bytes of an ONNX file alone, before anything parses them.

    In this order: size, format, whole, no external data, standard operators only, versions of ONNX.

    Returns
    -------
    What the file says of itself.

    Raises
    ------
    ModelRefusedError : `too_large`, `pickle`, `not_onnx`, `truncated`, `external_data`, `custom_operator` or `opset`.
    """
    if len(onnx) > MAX_BYTES[ONNX_FILE]:
        msg = f"{what}: model.onnx has {len(onnx)} bytes; at most {MAX_BYTES[ONNX_FILE]} are allowed; use fewer trees"
        raise ModelRefusedError(Refusal.TOO_LARGE, msg)
    refuse_other_formats(onnx, f"{what}: model.onnx")
    try:
        found = references(onnx)
    except ModelRefusedError as error:
        raise ModelRefusedError(error.reason, f"{what}: {error.text}") from error
    if found.has_external_data:
        msg = (
            f"{what}: model.onnx keeps tensors in other files (external data), which could be any file; save it as one"
        )
        raise ModelRefusedError(Refusal.EXTERNAL_DATA, msg)
    strange = sorted((found.domains | set(found.opsets)) - set(STANDARD_DOMAINS))
    if strange or found.has_functions:
        got = f"operators of domain {', '.join(map(repr, strange))}" if strange else "functions of its own"
        msg = f"{what}: model.onnx uses {got}; only the standard operators of ai.onnx and ai.onnx.ml are allowed"
        raise ModelRefusedError(Refusal.CUSTOM_OPERATOR, msg)
    versions = [("IR", found.ir_version, IR_VERSIONS)]
    for domain, version in found.opsets.items():
        name = "" if domain == "ai.onnx" else domain
        versions.append((f"opset of {name or 'ai.onnx'}", version, OPSETS[name]))
    for kind, version, (oldest, newest) in versions:
        if not oldest <= version <= newest:
            msg = f"{what}: model.onnx has {kind} version {version}; {oldest} to {newest} are supported"
            raise ModelRefusedError(Refusal.OPSET, f"{msg}; export it with another target_opset")
    return found


def check_strictly(onnx: bytes) -> None:
    """Run the checker of the `onnx` package, with shape inference.

    Raises
    ------
    ModelRefusedError : `not_onnx`: the bytes are no valid ONNX model.
    """
    import onnx as onnx_package

    try:
        onnx_package.checker.check_model(onnx, full_check=True)
    except Exception as error:
        msg = f"the file is no valid ONNX model: {error}"
        raise ModelRefusedError(Refusal.NOT_ONNX, msg) from error


def named_features(found: References) -> list[str] | None:
    """Return the features that an ONNX file names in its metadata, None where it names none."""
    text = found.metadata.get(FEATURES_METADATA)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.DecodeError, RecursionError):
        return []  # fits no contract
