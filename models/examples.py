"""Training examples: a history of raw events -> the features the scoring stage would have seen, with the label joined.

The features come from the code that runs in the job, so a model is trained on what it will be fed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.history import read_history
from udfs.core.batches import RawBatch, join_batches
from udfs.core.declarations import Label
from udfs.core.decoding import Decoder
from udfs.core.definition import Pipeline
from udfs.core.errors import DefinitionError, ModelError
from udfs.core.features import feature_columns
from udfs.core.ingest import number_column
from udfs.core.model import F32, feature_matrix
from udfs.core.offline import featurize_offline

LABEL_BATCH_RECORDS = 65_536


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


def read_examples(pipeline: Pipeline, folder: Path, history: Path) -> Examples:
    """Featurize a history and join its labels by event id; events without a label, or with a null one, are left out.

    Where an id has several labels the last one counts. The history is read in pieces, but all its featurized rows are
    held at once, about 1 kB each.

    Parameters
    ----------
    pipeline, folder : the definition and the folder its files are relative to
    history : Parquet file, see `models.history`

    Raises
    ------
    DefinitionError : the pipeline declares no label.
    HistoryError : the history cannot be read.
    ModelError : no event of the history has a label.
    """
    label = _label(pipeline)
    topics = [pipeline.source.topic, *(enrichment.topic for enrichment in pipeline.enrichments)]
    rows = featurize_offline(pipeline, folder, _some(read_history(history, topics), history, topics)).rows
    labels, refused = _labels(label, history)
    id_field = pipeline.contract.id
    # The last label of an id comes first once reversed, and index_in finds the first.
    found = pc.index_in(rows[id_field], value_set=labels[label.contract.id].take(_reversed(labels.num_rows)))
    at = pc.subtract(labels.num_rows - 1, found)
    truth = number_column(labels, label.of).take(at.combine_chunks())
    known = truth.is_valid()
    columns = feature_columns(pipeline)
    rows = rows.select([pipeline.contract.time, *columns]).filter(known)
    if rows.num_rows == 0:
        raise ModelError(_nothing_known(pipeline, label, history, labels, refused))
    return Examples(
        columns,
        feature_matrix(rows, list(columns)),
        pc.greater(truth.filter(known), label.above).to_numpy(zero_copy_only=False),
        rows[pipeline.contract.time].to_numpy(),
        labels[label.contract.time].take(at.combine_chunks()).filter(known).to_numpy(zero_copy_only=False),
    )


def _label(pipeline: Pipeline) -> Label:
    if pipeline.label is None or pipeline.label.contract.id is None:
        what = "label" if pipeline.label is None else "label.contract.id"
        msg = f"pipeline {pipeline.name}: {what}: missing; training needs to know which stream brings the truth"
        raise DefinitionError(msg)
    return pipeline.label


def _labels(label: Label, history: Path) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Return the decoded labels of a history, and letters for what breaks their contract.

    Labels are joined by id, so the Kafka key of a label means nothing and may be anything, or null.
    """
    decoder = Decoder(label.contract, None)
    raw = read_history(history, [label.topic], LABEL_BATCH_RECORDS)
    decoded = [decoder.decode(one) for one in raw] or [decoder.decode(RawBatch(label.topic, [], [], [], [], []))]
    rows, letters = zip(*decoded, strict=True)
    return join_batches(rows), join_batches(letters)


def _nothing_known(
    pipeline: Pipeline, label: Label, history: Path, labels: pa.RecordBatch, refused: pa.RecordBatch
) -> str:
    """Say why no event has a label: none there, all broken, all null, or other ids."""
    text = f"{history}: no event of {pipeline.source.topic} has a label in {label.topic}: "
    if refused.num_rows:
        first = refused.slice(0, 1).to_pylist()[0]
        text += f"{refused.num_rows} of its records break label.contract, the first at partition {first['partition']}"
        text += f", offset {first['offset']}: {first['reason']}, {first['detail']}; "
    if labels.num_rows == 0:
        return text + "there is no other record of it" if refused.num_rows else text + "the history has no record of it"
    if labels[label.of].null_count == labels.num_rows:
        return text + f"{label.of} is null in all {labels.num_rows} labels"
    ids = f"{pipeline.contract.id} of the events and {label.contract.id} of the labels must hold the same ids"
    return text + f"{labels.num_rows} labels match none with a known {label.of}; {ids}"


def _some(batches: Iterator[RawBatch], history: Path, topics: list[str]) -> Iterator[RawBatch]:
    """Pass batches on; a history without one is an error here, where it can be explained."""
    first = next(batches, None)
    if first is None:
        msg = f"{history}: holds no record of {', '.join(topics)}; is it the history of another pipeline?"
        raise ModelError(msg)
    yield first
    yield from batches


def _reversed(count: int) -> pa.Array:
    return pa.array(np.arange(count - 1, -1, -1))
