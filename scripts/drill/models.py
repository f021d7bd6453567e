"""Versions of the payments model: one network, its last bias another in each. Publishing moves no alias."""

import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from models.foreign import Foreign, prepare
from models.registration import ARTIFACT_FOLDER, Entry, publish
from models.tracking import connect
from models.versions import digest_tag
from scripts.bench.payments.model import network
from scripts.drill.bad import Bad
from udfs.core.declare.loading import load_pipeline
from udfs.core.model.files import sha256
from udfs.core.plan.features import feature_columns


def good(pipeline: Path, number: int, scratch: Path) -> Entry:
    """Return a checked model, the same for the same number."""
    declared = load_pipeline(pipeline)
    made = onnx.load_from_string(network(len(feature_columns(declared))))
    bias = next(one for one in made.graph.initializer if one.name == "b2")
    bias.CopyFrom(numpy_helper.from_array(np.array([number / 8], np.float32), "b2"))
    file = scratch / f"network-{number}.onnx"
    file.write_bytes(made.SerializeToString())
    return prepare(Foreign(file, pipeline))


def register(entry: Entry, tracking_uri: str) -> str:
    """Publish a model and return its version; no alias moves."""
    return publish(entry, tracking_uri).version


def register_bad(bad: Bad, entry: Entry, tracking_uri: str) -> str:
    """Publish a bad model, past every check that the commands make, and return its version."""
    done = publish(replace(entry, package=bad.make(entry.package), run_name=bad.what), tracking_uri)
    with connect(tracking_uri) as client:
        place = client.get_run(done.run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")
        for file, content in bad.tamper(entry.package).items():
            _put(f"{tracking_uri}/api/2.0/mlflow-artifacts/artifacts/{place}/{ARTIFACT_FOLDER}/{file}", content)
            if bad.is_noted:
                client.set_model_version_tag(done.name, done.version, digest_tag(file), sha256(content or b""))
    return done.version


def _put(url: str, content: bytes | None) -> None:
    method = "DELETE" if content is None else "PUT"
    with urllib.request.urlopen(urllib.request.Request(url, content, method=method), timeout=60):  # noqa: S310  http
        pass
