"""`@kernel`: numba's njit with a cache that is shared by all jobs of a machine.

Flink unpacks a job's Python files into a fresh folder each time, and numba's own cache goes by path: every worker would
compile for seconds at its first event. Here the cache goes by what the sources say instead. A change of any kernel or
aggregation starts a new one, which also covers what numba misses: a change in a function that a kernel calls.
"""

import builtins
import hashlib
import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar, cast

# A Flink Python worker replaces the builtin `print` by a bound method, which numba refuses to be imported with.
_print = builtins.print
builtins.print = getattr(getattr(_print, "__self__", None), "_print", _print)
import numba  # noqa: E402
from numba.core.caching import _CacheLocator  # noqa: E402

builtins.print = _print

F = TypeVar("F", bound=Callable[..., Any])
SOURCES = ("udfs.core.aggregations", "udfs.core.kernels")


@cache
def sources_digest() -> str:
    """SHA-256 over the sources of all kernels and aggregations."""
    digest = hashlib.sha256(numba.__version__.encode())
    for package in SOURCES:
        for file in sorted(resources.files(package).iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".py"):
                digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


class KernelCacheLocator(_CacheLocator):
    """Places the compiled kernels under `$XDG_CACHE_HOME/headrace/kernels/<digest>`."""

    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._name = f"{py_func.__module__}.{py_func.__qualname__}"

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], _py_file: str) -> Self | None:
        """Return a locator for our own kernels, None for anybody else's functions."""
        if not py_func.__module__.startswith(SOURCES):
            return None
        locator = cls(py_func)
        try:
            locator.ensure_cache_path()  # type: ignore[no-untyped-call]
        except OSError:
            return None  # nowhere to write: numba's own locators come next
        return locator

    def get_cache_path(self) -> str:
        """Return the folder of the compiled kernels."""
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return str(Path(base) / "headrace" / "kernels" / sources_digest())

    def get_source_stamp(self) -> str:
        """Return what the compiled code was made from."""
        return sources_digest()

    def get_disambiguator(self) -> str:
        """Return what tells functions of the same file name apart."""
        return self._name


OTHER_LOCATORS = "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator"
setattr(numba.config, "CACHE_LOCATOR_CLASSES", f"{__name__}.KernelCacheLocator,{OTHER_LOCATORS}")  # noqa: B010  untyped


def kernel(function: F) -> F:
    """Compile a function with numba, without the GIL; its compiled form is cached per machine and source digest."""
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


# numba's own name for its reference counts; its type hints leave it out.
_UNCOUNTED: dict[str, Any] = {"_nrt": False}


def borrowing(function: F) -> F:
    """Compile a kernel that counts no references, which is most of the cost of a short loop body.

    All its arrays are its caller's. It can make none, nor assign one array to a part of another.
    """
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy", **_UNCOUNTED)(function))


def inlined(function: F) -> F:
    """Compile a function as `borrowing`, into each kernel that calls it."""
    return cast("F", numba.njit(forceinline=True, nogil=True, error_model="numpy", **_UNCOUNTED)(function))
