"""Where the project is: the folder that holds `conf/`, `build/` and the packages, found from this file."""

from pathlib import Path

from udfs.core.errors import HeadraceError

PACKAGES = Path(__file__).resolve().parents[1]
"""Folder that the import packages lie in."""


class ProjectError(HeadraceError):
    """A command needs the project's own files, and the package is installed apart from them."""


def is_project() -> bool:
    """Say whether the packages lie in a checkout, with `conf/` beside them."""
    return (PACKAGES / "conf").is_dir()


def project_root() -> Path:
    """Return the folder of the project.

    Raises
    ------
    ProjectError : headrace is installed elsewhere.
    """
    if not is_project():
        msg = (
            f"headrace is installed in {PACKAGES}, and there is no conf/ beside it; name pipeline folders yourself, "
            "or install from a checkout of the project: pip install --editable ."
        )
        raise ProjectError(msg)
    return PACKAGES


def conf_folder() -> Path:
    """Return the folder of pipelines and environments: the project's, else `conf` of the working folder."""
    return (PACKAGES if is_project() else Path.cwd()) / "conf"


def build_folder() -> Path:
    """Return the folder for what is built: the project's, else the one of the working folder."""
    return (PACKAGES if is_project() else Path.cwd()) / "build"


def archive_jars(folder: Path | None = None) -> list[Path]:
    """Return the jars that the archive job brings along: Parquet and what it needs of Hadoop.

    Parameters
    ----------
    folder : where they lie; None means `build/jars/archive`

    Raises
    ------
    ProjectError : there are none.
    """
    folder = folder or build_folder() / "jars" / "archive"
    found = sorted(folder.glob("*.jar"))
    if not found:
        msg = f"{folder}: there are no jars to write Parquet with; fetch them with: make setup"
        raise ProjectError(msg)
    return found


def shown(path: Path) -> str:
    """Return a path as people like to read and copy it: relative where it lies below the working folder."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)
