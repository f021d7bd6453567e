#!/usr/bin/env bash
# Writes requirements.lock: every package of the full environment with its hashes, from pyproject.toml.
# Versions already in the lock stay unless pyproject.toml forbids them; pass --upgrade (or --upgrade-package NAME) to move them.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=build/lock-tools
[ -x "$tools/bin/uv" ] || { "${PYTHON:-python3.11}" -m venv "$tools" && "$tools/bin/pip" install --quiet uv; }

# Annotations would name local constraint files, and a lock must name no registry: hashes alone decide what is installed.
"$tools/bin/uv" pip compile pyproject.toml --all-extras --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --output-file requirements.lock --quiet "$@"

header='# The full environment of Headrace for Python 3.11, written by `make lock`; do not edit.
# Install: pip install --require-hashes -r requirements.lock && pip install --no-deps -e .'
printf '%s\n%s\n' "$header" "$(cat requirements.lock)" > requirements.lock
