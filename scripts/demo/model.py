"""The demo's model: history and training set written once, then the functions of `headrace models train`.

A champion that an earlier demo trained on the same history, features and parameters is used again: a tag on its version
holds the digest of all of these.
"""

import datetime as dt
import hashlib
from dataclasses import asdict
from pathlib import Path

import msgspec

from models.dataset import Split, write_dataset
from models.examples import THREADS
from models.history import write_history
from models.inputs import Files
from models.labels import Rules
from models.lifecycle import train_and_register
from models.registry import ResolvedModel, resolve
from models.tracking import connect
from models.versions import find_version
from scripts.demo.settings import PIPELINE, Settings
from scripts.demo.steps import Steps
from scripts.flights import arrival_times, dataset, events, stream
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import ModelError
from udfs.core.model.contract import CONTRACT_FORMAT
from udfs.core.plan.features import feature_set_hash

TAG = "demo_provenance"


def champion(
    settings: Settings, pipeline: Pipeline, tracking_uri: str, steps: Steps, into: Path
) -> tuple[ResolvedModel, ResolvedModel]:
    """Return the champion and its baseline, trained now unless an earlier demo did the same.

    Parameters
    ----------
    into : folder for the model files
    """
    wanted = _provenance(settings, pipeline)
    reused = None if settings.retrain else _version_like(wanted, pipeline, tracking_uri)
    if reused is not None:
        steps.say(f"model {pipeline.model.name} version {reused} is used again: same history, features and parameters")
    else:
        _train(settings, pipeline, tracking_uri, wanted, steps)
    features = feature_set_hash(pipeline, PIPELINE)
    name, alias = pipeline.model.name, pipeline.model.alias
    with steps.step(f"fetch and check {alias} and baseline from MLflow"):
        model = resolve(name, alias, tracking_uri, features, into=into)
        version = model.contract.version
        return model, resolve(name, alias, tracking_uri, features, version=version, into=into, baseline=True)


def _train(settings: Settings, pipeline: Pipeline, tracking_uri: str, provenance: str, steps: Steps) -> None:
    until = settings.start - dt.timedelta(days=1)
    history = settings.folder / f"history-{settings.history_start}-{until}-{_sources()}.parquet"
    if history.exists():
        steps.say(f"history {history.name} is there already")
    else:
        with steps.step(f"write the history of raw events, {settings.history_start} to {until}"):
            records = events.merged(settings.history_start, until)
            write_history(history, records.topics, records.keys, records.values, records.times_ms)
    data = settings.folder / "training-set"
    with steps.step("make a training set of it: features as of each event, labels as known later") as note:
        split = Split(settings.train_until, settings.start)
        made = write_dataset(pipeline, PIPELINE, Files((history,), {}), data, Rules(), split, THREADS)
        note(f"training set: {made.counts.written:,} labelled events, {made.labels.counts.positive:,} of them positive")
    with steps.step("train") as note:
        registered = train_and_register(
            PIPELINE,
            data,
            settings.train_until,
            settings.start,
            tracking_uri,
            pipeline.model.alias,
            settings.parameters,
            lambda what: note(f"train: {what}"),
        ).registered
        with connect(tracking_uri) as client:
            client.set_model_version_tag(registered.name, registered.version, TAG, provenance)
        note(
            f"trained on events before {settings.train_until}, tested on those before {settings.start}: "
            f"{registered.name} version {registered.version} is {registered.alias}"
        )


def _version_like(provenance: str, pipeline: Pipeline, tracking_uri: str) -> str | None:
    """Return the version that the alias points at, if it was trained as asked now."""
    with connect(tracking_uri) as client:
        try:
            found = find_version(client, pipeline.model.name, pipeline.model.alias)
        except ModelError:
            return None
        return str(found.version) if found.tags.get(TAG) == provenance else None


def _provenance(settings: Settings, pipeline: Pipeline) -> str:
    """Digest of everything that decides the model."""
    decisive = {
        "history": [str(settings.history_start), str(settings.start), _sources()],
        "train_until": str(settings.train_until),
        "features": feature_set_hash(pipeline, PIPELINE),
        "contract": CONTRACT_FORMAT,
        "parameters": asdict(settings.parameters),
    }
    return hashlib.sha256(msgspec.json.encode(decisive, order="sorted")).hexdigest()[:16]


def _sources() -> str:
    """Digest of the code that makes the events, so that an older history is not taken for theirs."""
    files = [Path(str(module.__file__)) for module in (dataset, events, arrival_times, stream)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
