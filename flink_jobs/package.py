"""The package: one zip with the sources of a job, for `flink run -pyfs`; the same sources give the same bytes."""

import hashlib
import os
import zipfile
from pathlib import Path

from flink_jobs.project import PACKAGES, build_folder, shown

CONTENT = ("flink_jobs", "models", "udfs")
ARCHIVE = "headrace.zip"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def pack(target: Path | None = None, packages: Path = PACKAGES) -> Path:
    """Pack the packages of `CONTENT`, unless the archive holds these very sources already.

    Parameters
    ----------
    target : the archive; None means `build/headrace.zip`
    packages : folder that the packages lie in

    Returns
    -------
    The archive.
    """
    target = target or build_folder() / ARCHIVE
    sources = {
        file.relative_to(packages).as_posix(): file.read_bytes()
        for package in CONTENT
        for file in sorted((packages / package).rglob("*.py"))
    }
    digest = hashlib.sha256()
    for name, source in sources.items():
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    mark = digest.hexdigest().encode()
    if _mark_of(target) == mark:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(f".{os.getpid()}.draft")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = mark
        for name, source in sources.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, source)
    draft.replace(target)
    return target


def _mark_of(archive: Path) -> bytes | None:
    try:
        with zipfile.ZipFile(archive) as packed:
            return packed.comment
    except (FileNotFoundError, zipfile.BadZipFile):
        return None


if __name__ == "__main__":
    print(shown(pack()))  # noqa: T201
