"""python -m scripts.load: see `python -m scripts.load --help`."""

import sys

from scripts.load.cli import app
from udfs.core.errors import HeadraceError

try:
    app()
except HeadraceError as error:
    sys.exit(f"load: {error}")
