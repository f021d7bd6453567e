"""A connection to MLflow over HTTP that answers or fails in seconds, and prints nothing.

MLflow takes its retries and time limits from environment variables, and waits for minutes by default.
"""

import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from udfs.core.errors import ModelError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PROBE_TIMEOUT_S = 4
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds without an answer
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_GATEWAY_FAILS = (502, 503, 504)
_SERVER_FAILS = re.compile(r"too many 5\d\d error responses|error code 5\d\d|TEMPORARILY_UNAVAILABLE")
_STRANGE = ("ENDPOINT_NOT_FOUND", "INTERNAL_ERROR")


class RegistryError(ModelError):
    """The registry cannot be reached, or refuses."""


class RegistryDownError(RegistryError):
    """The registry cannot be reached: it said nothing, neither yes nor no."""


@contextmanager
def connect(tracking_uri: str) -> Iterator["MlflowClient"]:
    """Yield a client of the MLflow server; the environment is as before afterwards. Not for several threads at a time.

    Parameters
    ----------
    tracking_uri : `http://host:port` or `https://...`

    Raises
    ------
    RegistryDownError : nothing answers there, at the start or later.
    RegistryError : the URI is no HTTP one, or MLflow refuses what the block asks of it.
    """
    probe(tracking_uri)
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        try:
            yield MlflowClient(tracking_uri, registry_uri=tracking_uri)
        except MlflowException as error:
            probe(tracking_uri)  # it may have gone since
            if _SERVER_FAILS.search(str(error)):
                msg = f"MLflow at {tracking_uri} fails: {_first_line(error)}"
                raise RegistryDownError(msg) from error
            hint = "; is it an MLflow server?" if error.error_code in _STRANGE else ""
            msg = f"{tracking_uri}: MLflow refused ({error.error_code}): {_first_line(error)}{hint}"
            raise RegistryError(msg) from error
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def probe(tracking_uri: str) -> None:
    """Ask the server for a sign of life.

    Raises
    ------
    RegistryDownError : nothing answers there, or a gateway that finds nobody behind it.
    RegistryError : the URI is no HTTP one.
    """
    if not tracking_uri.startswith(("http://", "https://")):
        msg = f"MLflow URI: got {tracking_uri!r}; expected http://host:port of an MLflow server"
        raise RegistryError(msg)
    try:
        with urllib.request.urlopen(tracking_uri.rstrip("/") + "/health", timeout=PROBE_TIMEOUT_S):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _GATEWAY_FAILS:
            msg = f"no MLflow at {tracking_uri}: HTTP {error.code} {error.reason}"
            raise RegistryDownError(msg) from error
        # Else it answers; a gateway in front may keep /health to itself.
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        msg = f"no MLflow at {tracking_uri}: {reason}; start the local one with: headrace services up; or pass its URI"
        raise RegistryDownError(msg) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
