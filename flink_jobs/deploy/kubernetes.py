"""A redeploy by the Flink Kubernetes operator: the FlinkDeployment of a version, and the patch that a promotion is.

With `upgradeMode: savepoint` the operator stops the job with a savepoint and starts from it when `spec.job` changes.
Nothing is sent to a cluster from here; references to secrets stand as they are, for the pods to resolve.
"""

from pathlib import Path
from typing import Any

import yaml

from flink_jobs.config import Environment
from flink_jobs.environment import flink_options, latency_knobs
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import DefinitionError
from udfs.core.plan.features import plan_operators

HOME = "/opt/headrace"
"""Where the image has the package, with `conf/` beside it."""
FLINK_VERSION = "v2_3"
PYTHON_DRIVER = "org.apache.flink.client.python.PythonDriver"


def manifest(
    pipeline: Pipeline,
    folder: Path,
    environment: Environment,
    environment_file: Path,
    version: str,
    image: str,
    namespace: str = "default",
    savepoint: str | None = None,
) -> dict[str, Any]:
    """Return the FlinkDeployment of a pipeline with one version of its model.

    Parameters
    ----------
    folder, environment_file : their names say where they are in the image: below `conf/`
    savepoint : of a job that another cluster ran; only the first start looks at it
    """
    name = environment.job_name(pipeline.name).replace(".", "-").replace("_", "-").lower()
    if len(name) > 45:
        msg = f"job name {name!r}: Kubernetes takes at most 45 characters; shorten the topic prefix or pipeline.name"
        raise DefinitionError(msg)
    options = flink_options(pipeline, environment, latency_knobs(pipeline.latency, len(plan_operators(pipeline))))
    arguments = ["-pyclientexec", "python3", "-pyexec", "python3", "-py", f"{HOME}/flink_jobs/score.py"]
    arguments += ["-pyfs", HOME, "--pipeline", f"{HOME}/conf/{folder.name}"]
    arguments += ["--environment", f"{HOME}/conf/{environment_file.name}", "--model-version", version]
    job: dict[str, Any] = {
        "jarURI": "local:///opt/flink/opt/flink-python-2.3.0.jar",
        "entryClass": PYTHON_DRIVER,
        "args": arguments,
        "parallelism": environment.flink.parallelism,
        "upgradeMode": "savepoint",
        "state": "running",
    }
    if savepoint is not None:
        job["initialSavepointPath"] = savepoint
    return {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkDeployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "headrace", "headrace/pipeline": pipeline.name},
            "annotations": {"headrace/model": pipeline.model.name, "headrace/model-version": version},
        },
        "spec": {
            "image": image,
            "flinkVersion": FLINK_VERSION,
            "serviceAccount": "flink",
            "flinkConfiguration": options
            | {
                "taskmanager.numberOfTaskSlots": "1",
                # The operator goes back to the last spec that ran well when this one does not.
                "kubernetes.operator.deployment.rollback.enabled": "true",
                "kubernetes.operator.savepoint.history.max.count": "10",
            },
            "jobManager": {"resource": {"memory": "1600m", "cpu": 1}},
            "taskManager": {"resource": {"memory": "4608m", "cpu": 2}},
            "job": job,
        },
    }


def patch_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a promotion changes of a manifest, for `kubectl patch --type merge`."""
    return {
        "metadata": {"annotations": found["metadata"]["annotations"]},
        "spec": {"job": {"args": found["spec"]["job"]["args"]}},
    }


def to_yaml(found: dict[str, Any]) -> str:
    """Return a manifest as YAML."""
    return yaml.safe_dump(found, sort_keys=False, width=120)
