"""Aggregation functions by opcode: chains of comparisons that numba inlines, so that one compiled kernel fits all.

The chains are written from the tables of `aggregations`: `if opcode == 3: f3(ir, params)` and so on.
"""

import importlib
import math
from collections.abc import Callable, Iterable
from typing import Any

from udfs.core.aggregations import AGGREGATIONS, IRS
from udfs.core.jit import borrowing


def _functions(name: str) -> Iterable[tuple[int, Callable[..., Any]]]:
    for module, ir in IRS.items():
        yield ir.opcode, getattr(importlib.import_module(f"udfs.core.aggregations.{module}"), name)


def _finalizers() -> Iterable[tuple[int, Callable[..., Any]]]:
    for one in AGGREGATIONS.values():
        yield one.opcode, getattr(importlib.import_module(f"udfs.core.aggregations.{one.ir}"), one.finalize)


def _chain(name: str, arguments: str, body: str, functions: Iterable[tuple[int, Callable[..., Any]]]) -> Any:
    """Return a kernel that runs `body`, where `f` stands for the function of the opcode."""
    lines, names = [f"def {name}(opcode, {arguments}):"], dict[str, Any]()
    for opcode, function in functions:
        names[f"f{opcode}"] = function
        word = "elif" if len(lines) > 1 else "if"
        lines += [f"    {word} opcode == {opcode}:", *(f"        {line}" for line in body.splitlines())]
        lines[-1] = lines[-1].replace("f(", f"f{opcode}(")
    if "return" in body:
        lines.append("    return nan")
        names["nan"] = math.nan
    exec(compile("\n".join(lines), __file__, "exec"), names)  # noqa: S102  text from our own tables
    names[name].__module__ = __name__
    return borrowing(names[name])


init = _chain("init", "ir, params, at", "f(ir, params, at)", _functions("init"))
update = _chain(
    "update", "ir, value, other, time_ms, params, at", "f(ir, value, other, time_ms, params, at)", _functions("update")
)
merge = _chain("merge", "ir, older, params, at", "f(ir, older, params, at)", _functions("merge"))
#: merge(into, irs[cell, start:end]) for the cells of `run[:cells]`, in this order: newest first
merge_run = _chain(
    "merge_run",
    "into, irs, run, cells, start, end, params, at",
    "for i in range(cells):\n    f(into, irs[run[i], start:end], params, at)",
    _functions("merge"),
)
#: one output of an aggregation; NaN for null
finalize = _chain(
    "finalize",
    "ir, params, at, part, value, now_ms, size_ms",
    "return f(ir, params, at, part, value, now_ms, size_ms)",
    _finalizers(),
)
