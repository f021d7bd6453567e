"""The gate: a client that has built its job waits here until the old job has stopped, then goes on from its savepoint.

A folder is shared by the two: the client writes `ready`, the controller `go.json`. The job's id is chosen beforehand: a
client that is started again cannot start a second job, as the cluster knows the id and refuses.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from udfs.core.errors import HeadraceError
from udfs.core.state.header import StateHeader

if TYPE_CHECKING:
    from pyflink.datastream import StreamExecutionEnvironment

READY, GO, HELD = "ready", "go.json", "held"
PARAMETERS = "pipeline.global-job-parameters"
VERSION, CONFIG = "headrace.model.version", "headrace.config"
"""Parameters of a job that say which version and definition it was started with; the cluster shows them."""
WAIT_MAX_S = 900.0
_POLL_S = 0.02


def write(file: Path, text: str) -> None:
    """Write a file that is seen whole or not at all."""
    draft = file.with_name(f"{file.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


def gate(folder: Path, version: str, config: str) -> "Callable[[StreamExecutionEnvironment, StateHeader], None]":
    """Return what a client calls between building its job and submitting it.

    Parameters
    ----------
    folder : shared with the controller, which locks `held` in it for as long as it lives
    version, config : of the model, and digest of the definition, to be shown by the cluster
    """

    def wait(flink: "StreamExecutionEnvironment", header: StateHeader) -> None:
        from pyflink.common import Configuration

        from flink_jobs.savepoint import refuse_savepoint

        write(folder / READY, str(os.getpid()))
        deadline_s = time.monotonic() + WAIT_MAX_S
        while not (folder / GO).exists():
            if _is_left(folder) or time.monotonic() > deadline_s:
                msg = f"{folder}: nobody asks for the job any more"
                raise HeadraceError(msg)
            time.sleep(_POLL_S)
        told = json.loads((folder / GO).read_text(encoding="utf-8"))
        configuration = Configuration()
        configuration.set_string("$internal.pipeline.job-id", told["job"])
        configuration.set_string(PARAMETERS, f"{VERSION}:{version},{CONFIG}:{config}")
        if told["savepoint"] is not None:
            configuration.set_string("execution.state-recovery.path", told["savepoint"])
        flink.configure(configuration)
        # To read it takes a second, in which nothing runs.
        if told["savepoint"] is not None and not told["is_checked"]:
            refuse_savepoint(flink, header)

    return wait


def _is_left(folder: Path) -> bool:
    """Say whether the controller is gone: then its lock is free."""
    try:
        with (folder / HELD).open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError:
        return True
