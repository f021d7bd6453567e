"""A training set: the features of each event as of its own time, and its label as far as it was known; as a folder.

The folder is that of `models.days`. Columns: the event's id and time, the feature set in its order, and
`_label` (bool), `_label_value` (float64), `_label_time_ms` (int64) and `_split` (`train`, `test` or null).
"""

import datetime as dt
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.backfill import LETTERS_FILE, Counts, in_background, rows_of
from models.days import DayFolder
from models.inputs import Input, label_of
from models.labels import Labels, Rules
from models.provenance import describe
from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import feature_columns
from udfs.core.rows.batches import add_columns
from udfs.core.rows.letters import LETTERS

KIND = "training set"
LABEL, LABEL_VALUE, LABEL_TIME_MS, SPLIT = "_label", "_label_value", "_label_time_ms", "_split"


@dataclass(frozen=True, slots=True)
class Split:
    """Days, UTC, at whose start one side ends."""

    #: events, and their labels, must be known before
    train_until: dt.date
    #: events from there until before
    test_until: dt.date

    def of(self, times_ms: NDArray[np.int64], label_times_ms: pa.Int64Array) -> pa.StringArray:
        """Return `train`, `test` or null per event."""
        until_ms, end_ms = midnight_ms(self.train_until), midnight_ms(self.test_until)
        known = pc.fill_null(pc.less(label_times_ms, until_ms), False).to_numpy(zero_copy_only=False)
        side = np.where(times_ms < until_ms, np.where(known, "train", ""), np.where(times_ms < end_ms, "test", ""))
        return pa.array(side, pa.string(), mask=side == "")


class TrainingSet:
    """The labels, held in memory, and the labelled rows, made while they are gone through.

    Parameters
    ----------
    pipeline, folder : the definition and the folder its files are relative to
    source : where events, enrichments and labels are
    rules : which labels count
    threads : how many work at the same time
    scratch : empty folder for files on the way

    Raises
    ------
    DefinitionError : the pipeline declares no label.
    HeadraceError : an input cannot be read, see `models.inputs`.
    """

    def __init__(
        self, pipeline: Pipeline, folder: Path, source: Input, rules: Rules, threads: int, scratch: Path
    ) -> None:
        self._pipeline, self._folder, self._threads = pipeline, folder, threads
        self.labels = Labels(label_of(pipeline), source.open_labels(pipeline, _made(scratch / "labels")), rules)
        self.records = source.open(pipeline, folder, _made(scratch / "records"))
        self.counts = Counts()

    def rows(self, letters: Callable[[pa.RecordBatch], None] = lambda _letters: None) -> Iterator[pa.RecordBatch]:
        """Yield the labelled rows, batch by batch; `letters` gets what left the path."""
        contract = self._pipeline.contract
        names = [contract.id, contract.time, *feature_columns(self._pipeline)]
        for rows in rows_of(self._pipeline, self._folder, self.records, self._threads, self.counts, letters):
            joined = self.labels.join(rows[contract.id], rows[contract.time].to_numpy())
            columns = {LABEL: joined.positive, LABEL_VALUE: joined.value, LABEL_TIME_MS: joined.time_ms}
            yield add_columns(rows.select(list(dict.fromkeys(names))), columns).filter(joined.positive.is_valid())


def write_dataset(
    pipeline: Pipeline,
    folder: Path,
    source: Input,
    out: Path,
    rules: Rules,
    split: Split | None,
    threads: int,
    arguments: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda _read, _rows: None,
) -> TrainingSet:
    """Write a training set as a folder; see `TrainingSet` for the parameters and errors.

    Parameters
    ----------
    out : the folder
    split : what `_split` says; None: the column is left out
    arguments : of the command, for the provenance
    progress : gets the number of records read, and of all

    Returns
    -------
    The training set, gone through, with its counts.

    Raises
    ------
    FolderError : the folder cannot be written.
    """
    time = pipeline.contract.time
    with tempfile.TemporaryDirectory(prefix="headrace-dataset-") as scratch, DayFolder(out, time) as days:
        made = TrainingSet(pipeline, folder, source, rules, threads, Path(scratch))
        inputs = in_background(source.describe)
        with pq.ParquetWriter(days.draft / LETTERS_FILE, LETTERS, compression="zstd") as letters:
            for rows in made.rows(letters.write_batch):
                sides = {} if split is None else {SPLIT: split.of(rows[time].to_numpy(), rows[LABEL_TIME_MS])}
                days.write(add_columns(rows, sides))
                progress(made.records.read, made.records.rows)
        made.counts.written = days.rows
        counts = made.counts.as_dict() | {
            "labels": asdict(made.labels.counts),
            "rejected_labels": made.labels.letters.num_rows,
        }
        facts = {"inputs": inputs.result(), "arguments": arguments or {}, "counts": counts}
        days.finish(describe(pipeline, folder) | {"kind": KIND, "labels": asdict(rules)} | facts)
    return made


def midnight_ms(day: dt.date) -> int:
    """Return the start of a day, UTC, in epoch milliseconds."""
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp()) * 1000


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
