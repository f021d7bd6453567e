"""Where the services of one home are reached; written by `up`, read by everything else."""

import json
from dataclasses import asdict, dataclass, fields

from scripts.services.errors import ServiceError
from scripts.services.home import Home


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses and folders of one set of services, as text."""

    #: Bootstrap server, `127.0.0.1:PORT`.
    kafka: str
    #: `redis://127.0.0.1:PORT/0`
    redis: str
    #: Tracking and registry, `http://127.0.0.1:PORT`.
    mlflow: str
    #: REST and web page of the JobManager, `http://127.0.0.1:PORT`.
    flink: str
    #: `FLINK_CONF_DIR` of a client that submits to this cluster.
    flink_conf_dir: str
    #: `FLINK_LIB_DIR` of such a client: Flink's own jars, the Kafka connector and PyFlink. Needs `FLINK_HOME` set too.
    flink_lib_dir: str
    #: `file:///...`
    checkpoints: str
    #: `file:///...`
    savepoints: str


def save(home: Home, endpoints: Endpoints) -> None:
    """Write the endpoints into the home, never half."""
    draft = home.endpoints_file.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(endpoints), indent=2) + "\n")
    draft.replace(home.endpoints_file)


def load(home: Home) -> Endpoints:
    """Read the endpoints of a home.

    Raises
    ------
    ServiceError : the services of that home were never started, or by another version.
    """
    try:
        content = json.loads(home.endpoints_file.read_text())
        return Endpoints(**{field.name: str(content[field.name]) for field in fields(Endpoints)})
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        found = type(error).__name__
        msg = f"{home.endpoints_file}: no endpoints to read ({found}); start the services with: make services-up"
        raise ServiceError(msg) from error
