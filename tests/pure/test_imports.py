"""Imports point one way: flink_jobs -> udfs -> udfs.core, and flink_jobs -> models -> udfs.core."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("flink_jobs", "models", "scripts", "udfs")
#: folder -> what its modules may import of ours
ALLOWED = {
    "udfs/core": ("udfs.core",),
    "udfs": ("udfs",),
    "models": ("models", "udfs.core"),
    "flink_jobs": ("flink_jobs", "models", "udfs", "scripts"),
}
#: the packages of udfs/core; each imports of those before it alone
LAYERS = (
    "errors", "jit", "references", "aggregations", "kernels", "sketches", "declare", "rows", "plan", "cells", "stage",
    "state", "offline", "model", "online",
)  # fmt: skip
FORBIDDEN_IN_CORE = ("pyflink", "py4j", "apache_beam", "mlflow", "redis", "kafka", "confluent_kafka")


def sources(folder: str) -> list[Path]:
    """Return the modules of a folder; those of the pure package count for it only."""
    found = sorted((ROOT / folder).rglob("*.py"))
    return [path for path in found if folder != "udfs" or not path.is_relative_to(ROOT / "udfs" / "core")]


@cache
def imported(path: Path) -> list[tuple[int, str]]:
    """Return (line, module) of every import of a file, those inside functions too; `from a import b` gives `a.b`."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found += ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
    return found


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT / "udfs" / "core").with_suffix("").parts[0]


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    assert sources(folder)
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in sources(folder)
        for line, module in imported(path)
        if is_within(module, OURS) and not is_within(module, ALLOWED[folder])
    ]
    assert wrong == []


def test_the_pure_package_imports_no_service_and_no_engine() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in sources("udfs/core")
        for line, module in imported(path)
        if is_within(module, FORBIDDEN_IN_CORE)
    ]
    assert wrong == []


def test_packages_of_the_pure_part_import_only_those_before_them() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in sources("udfs/core")
        for line, module in imported(path)
        if module.startswith("udfs.core.") and LAYERS.index(module.split(".")[2]) > LAYERS.index(layer_of(path))
    ]
    assert wrong == []
