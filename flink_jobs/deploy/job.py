"""The scoring job as the controller submits it: built at once, started when the gate opens."""

import argparse
import sys
from pathlib import Path

from flink_jobs.deploy.gate import gate
from flink_jobs.score import submit
from udfs.core.declare.loading import pipeline_folder
from udfs.core.errors import HeadraceError


def main(arguments: list[str]) -> None:
    """Run from `flink run`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pipeline", type=Path, required=True)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--model-version", required=True)
    parser.add_argument("--gate", type=Path, required=True, help="folder shared with the controller")
    chosen = parser.parse_args(arguments)
    try:
        opened = gate(chosen.gate, chosen.model_version, chosen.pipeline.name)
        submit(pipeline_folder(chosen.pipeline), chosen.environment, chosen.model_version, before=opened)
    except HeadraceError as error:
        sys.exit(f"headrace: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
