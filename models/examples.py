"""Training examples: a training set, or a history of raw events, as the matrix that a model is fitted to.

The features come from the code that runs in the job, so a model is trained on what it will be fed.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from models.dataset import KIND, LABEL, LABEL_TIME_MS, TrainingSet
from models.days import PROVENANCE, read_provenance
from models.history import check_history
from models.inputs import Files, label_of
from models.labels import Rules
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import ModelError
from udfs.core.model.scorer import F32, feature_matrix
from udfs.core.plan.features import feature_columns, feature_set_hash

THREADS = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled rows, in the order of the history; all arrays have the same length."""

    #: feature columns of `matrix`
    columns: tuple[str, ...]
    #: float32[n, columns], NaN for null
    matrix: F32
    positive: NDArray[np.bool_]
    event_time_ms: NDArray[np.int64]
    #: event time of the label: when the truth was known
    label_time_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positive)

    def where(self, mask: NDArray[np.bool_]) -> "Examples":
        """Return the rows of a mask."""
        return Examples(
            self.columns, self.matrix[mask], self.positive[mask], self.event_time_ms[mask], self.label_time_ms[mask]
        )

    def select(self, columns: tuple[str, ...]) -> F32:
        """Return some columns of the matrix, float32[n, columns]."""
        return np.ascontiguousarray(self.matrix[:, [self.columns.index(name) for name in columns]])


def read_examples(pipeline: Pipeline, folder: Path, source: Path) -> Examples:
    """Read the labelled events of a training set; or make one of a history, where every label counts.

    Only the matrix is held, 4 bytes for each feature of each event.

    Parameters
    ----------
    pipeline, folder : the definition and the folder its files are relative to
    source : folder that `headrace dataset` wrote, or a history, see `models.history`

    Raises
    ------
    DefinitionError : the pipeline declares no label.
    HistoryError, FolderError : the source cannot be read.
    ModelError : no event has a label, or the training set has other features.
    """
    columns = feature_columns(pipeline)
    if (source / PROVENANCE).exists():
        examples = _examples(_rows_of_folder(pipeline, folder, source), columns, pipeline.contract.time)
        if len(examples) == 0:
            msg = f"{source}: the training set has no row; its {PROVENANCE} says what became of the events"
            raise ModelError(msg)
        return examples
    label_of(pipeline)
    check_history(source)
    with tempfile.TemporaryDirectory(prefix="headrace-examples-") as scratch:
        made = TrainingSet(pipeline, folder, Files((source,), {}), Rules(), THREADS, Path(scratch))
        examples = _examples(made.rows(), columns, pipeline.contract.time)
    if len(examples) == 0:
        raise ModelError(_nothing_known(pipeline, source, made))
    return examples


def _rows_of_folder(pipeline: Pipeline, folder: Path, source: Path) -> Iterator[pa.RecordBatch]:
    provenance, wanted = read_provenance(source), feature_set_hash(pipeline, folder)
    what = None
    if provenance.get("kind") != KIND:
        what = "is a backfill, which has no labels"
    elif provenance.get("feature_set") != wanted:
        what = f"has feature set {provenance.get('feature_set')}; the pipeline has {wanted}"
    if what is not None:
        msg = f"{source}: {what}; write a training set with: headrace dataset --pipeline {folder} --out FOLDER ..."
        raise ModelError(msg)
    yield from ds.dataset(source).to_batches()


def _examples(batches: Iterator[pa.RecordBatch], columns: tuple[str, ...], time: str) -> Examples:
    parts = [
        Examples(
            columns,
            feature_matrix(rows, columns),
            rows[LABEL].to_numpy(zero_copy_only=False).astype(np.bool_),
            rows[time].to_numpy(),
            rows[LABEL_TIME_MS].to_numpy(zero_copy_only=False).astype(np.int64),
        )
        for rows in batches
    ]
    none = np.zeros(0, np.int64)
    parts.append(Examples(columns, np.zeros((0, len(columns)), np.float32), none.astype(np.bool_), none, none))
    return Examples(
        columns,
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("matrix", "positive", "event_time_ms", "label_time_ms")
        ),
    )


def _nothing_known(pipeline: Pipeline, history: Path, made: TrainingSet) -> str:
    """Say why no event has a label: no event, no label, all broken, all null, or other ids."""
    label, labels, refused = label_of(pipeline), made.labels, made.labels.letters
    topics = [pipeline.source.topic, *(enrichment.topic for enrichment in pipeline.enrichments)]
    if not made.counts.records.total():
        return f"{history}: holds no record of {', '.join(topics)}; is it the history of another pipeline?"
    text = f"{history}: no event of {pipeline.source.topic} has a label in {label.topic}: "
    if refused.num_rows:
        first = refused.slice(0, 1).to_pylist()[0]
        text += f"{refused.num_rows} of its records break label.contract, the first at partition {first['partition']}"
        text += f", offset {first['offset']}: {first['reason']}, {first['detail']}; "
    if len(labels) == 0:
        return text + "there is no other record of it" if refused.num_rows else text + "the history has no record of it"
    if labels.null_count == len(labels):
        return text + f"{label.of} is null in all {len(labels)} labels"
    ids = f"{pipeline.contract.id} of the events and {label.contract.id} of the labels must hold the same ids"
    return text + f"{len(labels)} labels match none with a known {label.of}; {ids}"
