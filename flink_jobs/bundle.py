"""The bundle: everything a worker needs besides code, shipped with the job, so that a restarted worker asks nobody.

pipeline/   the effective pipeline.yaml, lookup files, the derive module
state/      the state snapshot that the job starts from, if any
model/      model.onnx and contract.json, resolved and verified once, at submission; those of further arms in
            model/arms/<arm>/
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml
from pyflink.datastream import StreamExecutionEnvironment

from udfs.core.declare.arms import CHAMPION
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import PIPELINE_FILE
from udfs.core.model.files import CONTRACT_FILE, ONNX_FILE
from udfs.core.model.writing import model_folders

BUNDLE = "bundle"
PIPELINE_FOLDER, MODEL_FOLDER, STATE_FOLDER = f"{BUNDLE}/pipeline", f"{BUNDLE}/model", f"{BUNDLE}/state"
"""Where a worker finds them, relative to its working directory."""


def ship(
    environment: StreamExecutionEnvironment,
    pipeline: Pipeline,
    folder: Path,
    model: Path,
    scratch: Path,
    state: Path | None = None,
    others: Mapping[str, Path] | None = None,
) -> None:
    """Pack the bundle and attach it to the job.

    Parameters
    ----------
    pipeline : the effective definition, topic names included
    folder : the pipeline folder, for its files
    model : folder of the verified model, the champion
    scratch : empty folder; must stay until the job is submitted
    state : state snapshot that the job starts from
    others : folders of the other verified models, by the names of `ModelReference.models`
    """
    pipeline_folder = scratch / BUNDLE / "pipeline"
    pipeline_folder.mkdir(parents=True)
    text = yaml.safe_dump(pipeline.model_dump(mode="json", by_alias=True), sort_keys=False)
    (pipeline_folder / PIPELINE_FILE).write_text(text, encoding="utf-8")
    files = [lookup.file for lookup in pipeline.lookups]
    files += [pipeline.derive.function.partition(":")[0]] if pipeline.derive else []
    for file in dict.fromkeys(files):
        (pipeline_folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / file, pipeline_folder / file)
    given = {CHAMPION: model} | dict(others or {})
    for name, target in model_folders(pipeline, scratch / BUNDLE / "model").items():
        target.mkdir(parents=True)
        for file in (ONNX_FILE, CONTRACT_FILE):
            shutil.copy(given[name] / file, target / file)
    if state is not None:
        shutil.copytree(state, scratch / STATE_FOLDER)
    archive = shutil.make_archive(str(scratch / "bundle"), "zip", scratch / BUNDLE)
    environment.add_python_archive(archive, BUNDLE)
