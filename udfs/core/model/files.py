"""Files of a model folder, read so that a name or a link cannot lead elsewhere, and never more than is expected."""

import errno
import hashlib
import os
import stat
from pathlib import Path

from udfs.core.model.refusals import ModelRefusedError, Refusal

CONTRACT_FILE, ONNX_FILE, GOLDEN_FILE = "contract.json", "model.onnx", "golden.json"
FILES = (ONNX_FILE, CONTRACT_FILE, GOLDEN_FILE)
MAX_BYTES = {ONNX_FILE: 256 * 1024 * 1024, CONTRACT_FILE: 4 * 1024 * 1024, GOLDEN_FILE: 32 * 1024 * 1024}
"""Largest size of each file that makes a model."""


def read_file(folder: Path, name: str, max_bytes: int | None = None) -> bytes:
    """Return the content of one file of a folder.

    Parameters
    ----------
    folder : may itself be reached through links, as a worker's working directory is
    name : plain name in it
    max_bytes : default: `MAX_BYTES` of that name

    Raises
    ------
    ModelRefusedError : `path`: the name is no plain one, or no regular file. `symlink`, `missing_file`, `too_large`.
    """
    path, limit = folder / plain_name(name), MAX_BYTES[name] if max_bytes is None else max_bytes
    try:
        # Not blocking: the open of a pipe would wait for a writer.
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            msg = f"{path}: is a symbolic link; a model's files must be files"
            raise ModelRefusedError(Refusal.SYMLINK, msg) from error
        reason = Refusal.MISSING_FILE if isinstance(error, FileNotFoundError) else Refusal.PATH
        raise ModelRefusedError(reason, f"{path}: cannot be read: {error.strerror}") from error
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode):
        os.close(number)
        msg = f"{path}: is no regular file"
        raise ModelRefusedError(Refusal.PATH, msg)
    with os.fdopen(number, "rb") as file:
        content = file.read(limit + 1) if found.st_size <= limit else b""
    if max(found.st_size, len(content)) > limit:
        msg = f"{path}: has {max(found.st_size, len(content))} bytes; at most {limit} are allowed"
        raise ModelRefusedError(Refusal.TOO_LARGE, msg)
    return content


def plain_name(name: str) -> str:
    """Return a name that is one component of a path and nothing else.

    Raises
    ------
    ModelRefusedError : `path`: it is empty, `.` or `..`, or has a separator, a NUL or a control character.

    Examples
    --------
    >>> plain_name("model.onnx")
    'model.onnx'
    """
    if name in ("", ".", "..") or any(character in "/\\" or not character.isprintable() for character in name):
        msg = f"got the name {name!r}; a plain name is expected, without separators or '..'"
        raise ModelRefusedError(Refusal.PATH, msg)
    return name


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes, hex."""
    return hashlib.sha256(content).hexdigest()
