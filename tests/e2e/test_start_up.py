"""What is loaded, seen in a process of its own: help and validation stay light, the pure package stays pure."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("pyflink", "mlflow", "numba", "onnxruntime", "lightgbm", "kafka")


def test_heavy_libraries_are_not_imported() -> None:
    code = f"""
import sys
from flink_jobs.cli import app
for arguments in (["--help"], ["validate", "--help"], ["run", "score", "--help"], ["validate"]):
    try:
        app(arguments)
    except SystemExit as end:
        loaded = [name for name in {HEAVY!r} if name in sys.modules]
        if end.code or loaded:
            sys.exit(f"{{arguments}}: exit {{end.code}}, imported {{loaded}}")"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


LOAD_ALL = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
NEVER_IN_CORE = {"pyflink", "py4j", "apache_beam", "mlflow", "redis", "kafka", "flink_jobs", "models", "scripts"}


def test_loading_the_pure_package_loads_no_service_and_no_engine() -> None:
    paths = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "udfs" / "core").rglob("*.py"))]
    names = json.dumps([".".join(path.parts).removesuffix(".__init__") for path in paths])
    command = [sys.executable, "-c", LOAD_ALL, names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "numba" in loaded
    assert loaded.isdisjoint(NEVER_IN_CORE)
