"""The benchmarks by name: python -m scripts.bench NAME. Each checks what it measures first, and prints ratios."""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run one, or list them."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("*.py") if "typer.run(main)" in file.read_text())
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"python -m scripts.bench NAME; NAME is one of {', '.join(names)}")
    name = sys.argv.pop(1)
    runpy.run_module(f"scripts.bench.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
