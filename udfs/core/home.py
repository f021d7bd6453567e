"""Where the local services live: one rule for those who start them and those who only read their addresses."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
"""Folder that the import packages lie in."""


def services_home(project: Path = PROJECT) -> Path:
    """Return the absolute folder of the local services: `HEADRACE_HOME`, else `build/local` of the project.

    The working folder plays no part, unless `HEADRACE_HOME` is a relative path.

    Examples
    --------
    >>> services_home().is_absolute()
    True
    """
    return Path(os.environ.get("HEADRACE_HOME") or project / "build" / "local").expanduser().resolve()
