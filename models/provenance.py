"""Where rows are from: the inputs, the feature set, and the code that made them."""

import datetime as dt
import hashlib
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import Any

from udfs.core.declare.definition import Pipeline
from udfs.core.errors import HeadraceError
from udfs.core.jit import sources_digest
from udfs.core.plan.features import feature_columns, feature_set_hash

PROJECT = Path(__file__).resolve().parents[1]


class ChangedError(HeadraceError):
    """A file was changed while it was read."""


def describe(pipeline: Pipeline, folder: Path) -> dict[str, Any]:
    """Return what decides the values: pipeline, feature set and code."""
    return {
        "pipeline": pipeline.name,
        "feature_set": feature_set_hash(pipeline, folder),
        "columns": feature_columns(pipeline),
        "code": code_version(),
        "made_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def code_version() -> dict[str, Any]:
    """Return package version, digest of the kernels and, in a checkout, its commit and whether it was changed since."""
    try:
        package = version("headrace")
    except PackageNotFoundError:
        package = "unknown"
    found: dict[str, Any] = {"version": package, "kernels": sources_digest()}
    git = which("git")
    if git and (PROJECT / ".git").exists():
        commit, changes = (
            subprocess.run([git, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
        found |= {"commit": commit, "changed": bool(changes)}
    return found


def describe_files(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return path, size, time of the last change and digest of files; takes as long as reading them.

    Raises
    ------
    ChangedError : a file was changed meanwhile.
    """
    found = []
    for path in paths:
        before = path.stat()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            msg = f"{path}: was changed while it was read; what was made of it is not written"
            raise ChangedError(msg)
        changed = dt.datetime.fromtimestamp(before.st_mtime, dt.UTC).isoformat(timespec="seconds")
        found.append({"path": str(path), "bytes": before.st_size, "changed_at": changed, "sha256": digest})
    return found
