"""The package that is shipped with a job: what it holds, that it is deterministic, and when it is written."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flink_jobs.package import CONTENT, pack


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    for package in CONTENT:
        (folder / package / "inner" / "__pycache__").mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f'"""{package}."""\n')
        (folder / package / "inner" / "one.py").write_text("ONE = 1\n")
        (folder / package / "inner" / "__pycache__" / "one.pyc").write_bytes(b"x")
        (folder / package / "notes.txt").write_text("no source")
    return folder


def test_it_holds_the_sources_and_nothing_else(packages: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(pack(tmp_path / "a.zip", packages)) as archive:
        names = archive.namelist()
    assert names == [f"{package}/{file}" for package in CONTENT for file in ("__init__.py", "inner/one.py")]


def test_the_same_sources_give_the_same_bytes(packages: Path, tmp_path: Path) -> None:
    first = pack(tmp_path / "a.zip", packages).read_bytes()
    for file in packages.rglob("*.py"):
        file.touch()
    assert pack(tmp_path / "b.zip", packages).read_bytes() == first


def test_it_is_written_again_only_when_a_source_changed(packages: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    written_ns = pack(target, packages).stat().st_mtime_ns
    assert pack(target, packages).stat().st_mtime_ns == written_ns
    (packages / "udfs" / "inner" / "one.py").write_text("ONE = 2\n")
    with zipfile.ZipFile(pack(target, packages)) as archive:
        assert archive.read("udfs/inner/one.py") == b"ONE = 2\n"
    (packages / "udfs" / "inner" / "one.py").unlink()
    with zipfile.ZipFile(pack(target, packages)) as archive:
        assert "udfs/inner/one.py" not in archive.namelist()


def test_a_broken_archive_is_replaced(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"half an archive")
    assert zipfile.is_zipfile(pack(tmp_path / "a.zip", packages))
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".draft"] == []


def test_a_pipeline_can_be_loaded_from_the_real_package(tmp_path: Path) -> None:
    archive, folder = pack(tmp_path / "a.zip"), Path("conf/flights").absolute()
    code = f"""
import sys; sys.path.insert(0, {str(archive)!r})
from pathlib import Path
import udfs.core.plan.checking as checking
assert checking.__file__.startswith({str(archive)!r}), checking.__file__
print(checking.check_pipeline(Path({str(folder)!r})).pipeline.name)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "flights", done.stderr
