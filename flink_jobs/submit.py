"""Submission: the `flink run` of a job as a subprocess, with the settings its client needs.

The client plans the job's SQL, so it needs the connector's jar; a remote cluster needs that jar, too, in its own `lib`.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flink_jobs.config import Flink
from flink_jobs.failures import submission_cause
from flink_jobs.project import build_folder, shown
from scripts.services.flink_conf import link_jars, wheel_folder
from udfs.core.errors import HeadraceError
from udfs.core.home import services_home

SCORE, ARCHIVE, EXPORT = (Path(__file__).with_name(f"{name}.py") for name in ("score", "archive", "state_export"))
CLIENT_TIMEOUT_S = 300.0
_JOB_ID = re.compile(r"(?:JobID|^Job) ([0-9a-f]{32})", re.MULTILINE)


class SubmissionError(HeadraceError):
    """`flink run` ended without a job."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A `flink run`, ready to be shown or done."""

    command: tuple[str, ...]
    #: variables that it needs besides those of this process
    variables: Mapping[str, str]

    @property
    def line(self) -> str:
        """The line to copy into a shell."""
        return shlex.join([*(f"{name}={value}" for name, value in self.variables.items()), *self.command])


def submission(
    script: Path,
    archive: Path,
    arguments: Sequence[str],
    flink: Flink,
    *,
    local: bool,
    savepoint: str | None = None,
) -> Submission:
    """Return the submission of a job script.

    Parameters
    ----------
    script, archive : the job and the package of `package.pack`
    arguments : of the script
    flink : the cluster, its address resolved
    local : it is the cluster of the local services
    savepoint : path or URI to start from
    """
    wheel = wheel_folder()
    address = urlsplit(flink.rest_url)
    # A remote worker has its own Python, at the place that its image says.
    worker_python = sys.executable if local else flink.options.get("python.executable", "python3")
    command = [
        *(shown(wheel / "bin" / "flink"), "run", "-d", "-m", f"{address.hostname}:{address.port or 8081}"),
        *(("-s", savepoint) if savepoint else ()),
        *("-py", shown(script), "-pyfs", shown(archive)),
        *("-pyexec", worker_python, "-pyclientexec", sys.executable),
        *arguments,
    ]
    return Submission(tuple(command), _variables(wheel, local=local))


def submit(what: Submission, timeout_s: float = CLIENT_TIMEOUT_S) -> str:
    """Run the client and return the job id.

    Raises
    ------
    SubmissionError : no job came of it; says the job's own message, not Java's stack.
    """
    variables = {**os.environ, **what.variables}
    try:
        done = subprocess.run(
            what.command, env=variables, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        msg = f"flink run took more than {timeout_s:.0f} s; see the client's log in {variables['FLINK_LOG_DIR']}"
        raise SubmissionError(msg) from error
    output = f"{done.stdout}\n{done.stderr}"
    found = _JOB_ID.search(output)
    if done.returncode or found is None:
        msg = f"the job was not submitted: {submission_cause(output)}"
        raise SubmissionError(msg)
    return found[1]


def _variables(wheel: Path, *, local: bool) -> dict[str, str]:
    home = services_home()
    if local:
        from scripts.services.services import endpoints

        found = endpoints(home)
        conf, lib, logs = found.flink_conf_dir, found.flink_lib_dir, home / "logs"
    else:
        conf, lib, logs = str(wheel / "conf"), str(_client_lib(wheel)), build_folder() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
    variables = {
        "FLINK_HOME": str(wheel),
        "FLINK_CONF_DIR": conf,
        "FLINK_LIB_DIR": lib,
        "FLINK_LOG_DIR": str(logs),
        "HEADRACE_HOME": str(home),
    }
    return {name: shown(Path(value)) if name != "FLINK_HOME" else value for name, value in variables.items()}


def _client_lib(wheel: Path) -> Path:
    """Return a folder with the jars of a client that plans Kafka tables."""
    folder, connectors = build_folder() / "client-lib", sorted((build_folder() / "jars" / "flink").glob("*.jar"))
    if not connectors:
        msg = f"{build_folder() / 'jars' / 'flink'}: there is no Kafka connector jar; fetch it with: make setup"
        raise SubmissionError(msg)
    link_jars(folder, *(wheel / "lib").glob("*.jar"), *(wheel / "opt").glob("flink-python-*.jar"), *connectors)
    return folder
