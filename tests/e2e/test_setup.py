"""`scripts/setup.sh` with stand-ins for Python, Maven and Java: what it does anew, what it leaves, what it refuses."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

JARS = ("flink", "archive", "kafka")
SCRIPT = Path(__file__).parents[2] / "scripts" / "setup.sh"
# `-m venv X` makes X/bin/python, a copy of itself; `$BROKEN` stands for a Ctrl-C before pip is there.
PYTHON = """#!/bin/bash
echo "python $*" >> "$LOG"
here=$(dirname "$0")
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; [ -z "${BROKEN:-}" ] || exit 1
                   cp "$PIP" .venv/bin/pip; touch .venv/bin/headrace; chmod +x .venv/bin/headrace ;;
  "-m pip --version") [ -x "$here/pip" ] ;;
esac
"""
PIP = """#!/bin/bash
echo "pip $*" >> "$LOG"
[ -z "${SLOW:-}" ] || { touch "$SLOW"; sleep 30; }
"""
JAVA = """#!/bin/sh
echo "openjdk version \\"${JAVA_SAYS:-17.0.1}\\"" >&2
"""


class Place:
    """A project folder with setup.sh, and a PATH of stand-ins."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.script = root, root / "log", root / "scripts" / "setup.sh"
        (root / "scripts").mkdir()
        shutil.copy(SCRIPT, self.script)
        sources = ("udfs/core/jit.py", "udfs/core/kernels/tiles.py", "udfs/core/aggregations/sums.py")
        for name in ("requirements.lock", "pyproject.toml", "pom.xml", *sources):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        for name, text in (("python3.11", PYTHON), ("pip", PIP), ("mvn", "#!/bin/sh\n"), ("java", JAVA)):
            self.program(name, text)
        self.program("redis-server", "#!/bin/sh\n")
        for name in JARS:
            (root / "build" / "jars" / name).mkdir(parents=True)

    def program(self, name: str, text: str) -> None:
        file = self.root / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def variables(self, **more: str) -> dict[str, str]:
        ours = {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", "PIP": str(self.root / "bin" / "pip")}
        others = {name: value for name, value in os.environ.items() if name not in ("JAVA_HOME", "PYTHON")}
        return {**others, **ours, "LOG": str(self.log), **more}

    def setup(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.script], env=self.variables(**variables), capture_output=True, text=True, check=False, timeout=30
        )

    def logged(self) -> list[str]:
        """Return what the stand-ins were asked since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("python -c")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_second_run_does_nothing(place: Place) -> None:
    first = place.setup()
    assert first.returncode == 0, first.stderr
    assert [line.split()[:2] for line in place.logged()] == [
        ["python", "-m"], ["pip", "install"], ["pip", "install"], ["python", "-m"],
    ]  # fmt: skip
    for name in JARS:
        (place.root / "build" / "jars" / name).mkdir()
        (place.root / "build" / "jars" / name / "a.jar").touch()
    second = place.setup()
    assert (second.returncode, second.stdout, place.logged()) == (0, "", [])


def test_a_venv_without_pip_is_made_anew(place: Place) -> None:
    assert place.setup(BROKEN="1").returncode == 1
    assert (place.root / ".venv" / "bin" / "python").exists()
    assert not (place.root / ".venv" / "bin" / "pip").exists()
    again = place.setup()
    assert (again.returncode, "creating .venv" in again.stdout) == (0, True), again.stderr


def test_packages_that_were_interrupted_are_installed_into_a_new_venv(place: Place) -> None:
    began = place.root / "began"
    with subprocess.Popen(
        [place.script],
        env=place.variables(SLOW=str(began)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        deadline_s = time.monotonic() + 20
        while not began.exists() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGINT)
        said = running.communicate(timeout=20)[1]
    assert (running.returncode, "interrupted; run it again" in said) == (130, True), said
    (place.root / ".venv" / "half").touch()
    again = place.setup()
    assert (again.returncode, "making .venv anew" in again.stdout) == (0, True), again.stderr
    assert not (place.root / ".venv" / "half").exists()
    assert "anew" not in place.setup().stdout


@pytest.mark.parametrize(("version", "got"), [("11.0.2", "Java 11"), ("1.8.0_412", "Java 8")])
def test_an_old_java_is_refused(place: Place, version: str, got: str) -> None:
    home = place.root / "jdk"
    (home / "bin").mkdir(parents=True)
    shutil.copy(place.root / "bin" / "java", home / "bin" / "java")
    done = place.setup(JAVA_HOME=str(home), JAVA_SAYS=version)
    assert done.returncode == 1
    assert f"Flink and Kafka need Java 17 or newer; got {got} (in JAVA_HOME: {home})" in done.stderr
    assert place.setup(JAVA_HOME=str(home), JAVA_SAYS="21").returncode == 0
    gone = place.setup(JAVA_HOME="/nowhere")
    assert "got no Java that runs (in JAVA_HOME: /nowhere)" in gone.stderr
