"""What a file that is not ONNX is, told from its first bytes without opening it: a refusal can say what to do."""

from udfs.core.model.refusals import ModelRefusedError, Refusal

PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".sav", ".dill", ".cloudpickle", ".pt", ".pth", ".ckpt", ".skops")
"""Files of these names hold Python objects; none is ever opened."""
HEAD_BYTES = 4096
_EXPORT = "export it as ONNX instead (skl2onnx, onnxmltools, torch.onnx.export)"
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF", "a Keras HDF5 file; convert it with tf2onnx"),
    (b"\x1f\x8b", "gzip"),
    (b"\x78\x01", "zlib data"),
    (b"\x78\x9c", "zlib data"),
    (b"\x78\xda", "zlib data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"PK\x03\x04", "a zip archive, which is not opened"),
    (b"tree\nversion", "a LightGBM text model; convert it with onnxmltools.convert_lightgbm"),
    (b"{", "JSON; an XGBoost model is converted with onnxmltools.convert_xgboost"),
)


def refuse_other_formats(content: bytes, what: str) -> None:
    """Refuse what is known to be something else than ONNX.

    Parameters
    ----------
    content : bytes of the file
    what : what the message calls it

    Raises
    ------
    ModelRefusedError : `pickle`: Python objects, plain or inside the archive that PyTorch writes. `not_onnx`: another
        format.

    Examples
    --------
    >>> import pickle
    >>> refuse_other_formats(pickle.dumps([1]), "model.onnx")
    Traceback (most recent call last):
    udfs.core.model.refusals.ModelRefusedError: model.onnx: holds pickled Python objects, which run code when they are \
loaded; export it as ONNX instead (skl2onnx, onnxmltools, torch.onnx.export) [pickle]
    """
    is_archive = content.startswith(b"PK\x03\x04")
    if _is_pickle(content) or (is_archive and b".pkl" in content[:HEAD_BYTES]):
        msg = f"{what}: holds pickled Python objects, which run code when they are loaded; {_EXPORT}"
        raise ModelRefusedError(Refusal.PICKLE, msg)
    for start, kind in _STARTS:
        if content.startswith(start):
            msg = f"{what}: is no ONNX model but {kind}"
            raise ModelRefusedError(Refusal.NOT_ONNX, msg)


def refuse_pickle_names(names: list[str], what: str) -> None:
    """Refuse files whose names say that they hold Python objects.

    Raises
    ------
    ModelRefusedError : `pickle`.
    """
    found = sorted(name for name in names if name.lower().endswith(PICKLE_SUFFIXES))
    if found:
        msg = f"{what}: has {', '.join(found)}: Python objects, which run code when they are loaded; {_EXPORT}"
        raise ModelRefusedError(Refusal.PICKLE, msg)


def _is_pickle(content: bytes) -> bool:
    """Say whether bytes look like a pickle: of protocol 2 and above by its mark, of the text protocols by both ends."""
    if content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05":
        return len(content) > 2
    # A text pickle starts with one of these operations and ends in a stop; an ONNX file starts with a field's tag.
    return content[:1] in (b"(", b"]", b"}", b"c", b"I", b"S", b"F", b"V") and content.rstrip()[-1:] == b"."
