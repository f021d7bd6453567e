"""Errors a caller can act on. Each message says what failed, what was got and what was probably meant."""

import difflib
from collections.abc import Iterable


class HeadraceError(Exception):
    """Base of every error raised on purpose; its message is fit for a person."""


class DefinitionError(HeadraceError):
    """A pipeline or environment file is wrong; names file, path, value and a guess."""


class StateFormatError(HeadraceError):
    """Stored state has a version or layout this code does not read."""


class ModelError(HeadraceError):
    """A model cannot be used: unknown alias, digest, signature or feature set mismatch."""


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, else `; known: …` for short lists, else nothing.

    Examples
    --------
    >>> did_you_mean("maen", ["mean", "max"])
    "; did you mean 'mean'?"
    """
    words = sorted(set(known))
    near = difflib.get_close_matches(got, words, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(words)}" if 0 < len(words) <= 20 else ""
