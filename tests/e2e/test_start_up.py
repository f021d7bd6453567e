"""Start-up of the command line in a process of its own: help and validation stay light."""

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
