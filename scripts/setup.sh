#!/usr/bin/env bash
# Makes a bare Debian or Ubuntu with Python 3.11 ready: system packages, .venv from the lock, jars from the pom,
# compiled kernels.
# Each step leaves a stamp with the checksum of what it was made from, so that a second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

stamps=build/stamps
mkdir -p "$stamps"

fail() { echo "setup: $*" >&2; exit 1; }
checksum() { cat "$@" | sha256sum | cut -d ' ' -f 1; }
is_done() { [ "$(cat "$stamps/$1" 2>/dev/null)" = "$2" ]; }
say() { echo "setup: $*"; }

system_packages() {
  local missing=()
  # An old Java in JAVA_HOME is the user's choice to change: no package would help.
  if [ "$(java_version)" -lt "$java_wanted" ]; then
    [ -z "${JAVA_HOME:-}" ] || fail_java
    missing+=(openjdk-17-jre-headless)
  fi
  command -v mvn > /dev/null || missing+=(maven)
  command -v redis-server > /dev/null || missing+=(redis-server)
  python=$(find_python) || missing+=(python3.11 python3.11-venv)
  if [ -n "$python" ] && ! "$python" -c 'import ensurepip' 2> /dev/null; then missing+=(python3.11-venv); fi
  [ "${#missing[@]}" -eq 0 ] && return

  local line="apt-get install --no-install-recommends --yes ${missing[*]}"
  command -v apt-get > /dev/null || fail "this needs ${missing[*]}, and there is no apt-get here; install them and run again"
  [ "$(id -u)" -eq 0 ] || fail "this needs ${missing[*]}; run: sudo $line"
  say "installing ${missing[*]} (a minute or two)"
  with_services_off apt-get update --quiet=2
  DEBIAN_FRONTEND=noninteractive with_services_off $line > build/apt.log 2>&1 \
    || { tail -20 build/apt.log >&2; fail "apt-get could not install ${missing[*]}; see build/apt.log"; }
  python=$(find_python) || fail "no Python 3.11 even now; install it, or name it: PYTHON=/path/to/python3.11 make setup"
  [ "$(java_version)" -ge "$java_wanted" ] || fail_java
}

java_command() { if [ -n "${JAVA_HOME:-}" ]; then echo "$JAVA_HOME/bin/java"; else echo java; fi; }

# Major version of the Java that the services will use, 0 when there is none; "1.8.0" is 8.
java_version() {
  local found
  found=$({ "$(java_command)" -version 2>&1 || true; } | sed -nE 's/.* version "(1\.)?([0-9]+).*/\2/p' | head -1)
  echo "${found:-0}"
}

fail_java() {
  local found where="on PATH: $(command -v java || echo none)"
  found=$(java_version)
  [ -z "${JAVA_HOME:-}" ] || where="in JAVA_HOME: $JAVA_HOME"
  [ "$found" -ne 0 ] && found="Java $found" || found="no Java that runs"
  fail "Flink and Kafka need Java $java_wanted or newer; got $found ($where); install one and point JAVA_HOME at it"
}

# Debian starts a server when its package is installed; ours run on ports of their own, so the default one stays off.
with_services_off() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then "$@"; return; fi
  (
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    "$@"
  )
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2> /dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

python_environment() {
  local wanted
  wanted=$(checksum requirements.lock)
  if ! is_done lock "$wanted" || ! is_done project "$(checksum pyproject.toml)" || [ ! -x .venv/bin/headrace ]; then
    pip_works || { say "creating .venv with $python"; rm -rf .venv; "$python" -m venv .venv; }
  fi

  if ! is_done lock "$wanted"; then
    rm -f "$stamps/lock"
    say "installing the Python packages of requirements.lock (1.5 GB on disk, a few minutes the first time)"
    .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
    echo "$wanted" > "$stamps/lock"
  fi

  wanted=$(checksum pyproject.toml)
  if ! is_done project "$wanted" || [ ! -x .venv/bin/headrace ]; then
    say "installing headrace itself, editable"
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
    echo "$wanted" > "$stamps/project"
  fi
}

jars() {
  local wanted set
  wanted=$(checksum pom.xml)
  for set in flink archive kafka; do
    if ! is_done "jars-$set" "$wanted" || [ -z "$(ls -A "build/jars/$set" 2> /dev/null)" ]; then
      say "fetching the jars of $set"
      rm -rf "build/jars/$set" "$stamps/jars-$set"
      mvn --quiet --batch-mode -Dstyle.color=never "-P$set" generate-resources > build/maven.log 2>&1 \
        || { tail -20 build/maven.log >&2; fail "Maven could not fetch the jars of $set; see build/maven.log"; }
      echo "$wanted" > "$stamps/jars-$set"
    fi
  done
}

kernels() {
  local wanted
  wanted=$(checksum requirements.lock udfs/core/jit.py udfs/core/aggregations/*.py udfs/core/kernels/*.py)
  is_done kernels "$wanted" && return
  say "compiling the kernels (half a minute)"
  .venv/bin/python -m scripts.kernels
  echo "$wanted" > "$stamps/kernels"
}

# An interrupted creation leaves a python without pip.
pip_works() { [ -x .venv/bin/python ] && .venv/bin/python -m pip --version > /dev/null 2>&1; }

# What pip was writing when it was stopped may look installed and be half there: .venv is made anew then.
interrupted() {
  [ "$step" != python_environment ] || touch "$stamps/interrupted"
  echo >&2
  echo "setup: interrupted; run it again, it goes on where it can" >&2
  exit 130
}

java_wanted=17
python=""
step=""
trap interrupted INT TERM
if [ -e "$stamps/interrupted" ]; then
  say "the last run was interrupted; making .venv anew"
  rm -rf .venv "$stamps/interrupted"
fi
# A stamp that outlived its .venv says nothing.
[ -x .venv/bin/python ] || rm -f "$stamps/lock" "$stamps/project"
for step in system_packages python_environment jars kernels; do "$step"; done
