"""What a backfill reads: a history of raw records, or Parquet and CSV files whose columns are the contracts' fields."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from models.event_time import CHUNK_ROWS, Table, TimeOrder
from models.history import History, is_history
from models.provenance import describe_files
from udfs.core.declare.contract import Contract
from udfs.core.declare.declarations import Label
from udfs.core.declare.definition import Pipeline
from udfs.core.errors import DefinitionError, HeadraceError, did_you_mean
from udfs.core.offline.backfill import Chunk
from udfs.core.rows.batches import TIMESTAMP_MS, VALUE, RawBatch
from udfs.core.rows.ingest import ingest_of_topics

Order = Literal["kafka", "event-time"]
SUFFIXES = (".parquet", ".csv")
NONE = "none"


class InputError(HeadraceError):
    """What was named cannot be read, or not in the order asked for."""


class Records(Protocol):
    """The records of a pipeline's topics as one sequence."""

    @property
    def rows(self) -> int:
        """How many there are, at most."""

    @property
    def read(self) -> int:
        """How many of them have been gone through."""

    def __iter__(self) -> Iterator[Chunk]:
        """Go through them, once."""


class Input(Protocol):
    """Where the records of a backfill are."""

    def open(self, pipeline: Pipeline, folder: Path, scratch: Path) -> Records:
        """Return the records of the source and its enrichments; `scratch` is an empty folder for files on the way."""

    def open_labels(self, pipeline: Pipeline, scratch: Path) -> Records:
        """Return the records of the label topic."""

    def describe(self) -> list[dict[str, Any]]:
        """Return what was opened, for the provenance; may take as long as reading it."""


def find_files(path: Path) -> tuple[Path, ...]:
    """Return the Parquet or CSV files that a path names: itself, or all below it, in the order of their names.

    Raises
    ------
    InputError : there is none, or both kinds.
    """
    if path.is_file() and path.suffix in SUFFIXES:
        return (path,)
    if not path.is_dir():
        near = did_you_mean(path.name, (one.name for one in path.parent.glob("*")))
        what = "is neither .parquet nor .csv" if path.exists() else "no such file or folder"
        msg = f"{path}: {what}{near}"
        raise InputError(msg)
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix in SUFFIXES and not any(part.startswith(("_", ".")) for part in file.relative_to(path).parts)
    )
    if len({file.suffix for file in files}) != 1:
        msg = f"{path}: holds {'both .parquet and .csv files; name one kind' if files else 'no .parquet or .csv file'}"
        raise InputError(msg)
    return tuple(files)


@dataclass(frozen=True, slots=True)
class Files:
    """Files as the input of a backfill."""

    #: files of the source topic; or a history, which holds all topics
    source: tuple[Path, ...]
    #: enrichment -> its files, none for one that is to be empty; empty beside a history
    enrichments: Mapping[str, tuple[Path, ...]]
    #: `kafka`: as records stand in a history, or by the column `_timestamp_ms`; `event-time`: by event time, at equal
    #: times enrichments first; None: `kafka` for a history, else `event-time`
    order: Order | None = None
    #: files of the label topic; none beside a history
    labels: tuple[Path, ...] = ()

    @property
    def is_history(self) -> bool:
        """Whether the source is a history."""
        return self.source[0].suffix == ".parquet" and is_history(self.source[0])

    def open(self, pipeline: Pipeline, folder: Path, scratch: Path) -> Records:
        """Return the records; see `Input.open`.

        Raises
        ------
        InputError : an enrichment is missing or unknown.
        HistoryError, ColumnError : a file is not as it must be.
        """
        topics = [*(one.topic for one in pipeline.enrichments), pipeline.source.topic]
        if self.is_history:
            if self.enrichments:
                name = next(iter(self.enrichments))
                msg = f"enrichment {name!r}: {self.source[0]} is a history, which holds all topics; leave it out"
                raise InputError(msg)
            history = History(self.source, topics, CHUNK_ROWS)
            return history if self.order != "event-time" else by_event_time(pipeline, folder, history, scratch)
        known = {one.name: one for one in pipeline.enrichments}
        for name in self.enrichments:
            if name not in known:
                msg = f"enrichment {name!r}: the pipeline has none of this name{did_you_mean(name, known)}"
                raise InputError(msg)
        for name in known:
            if name not in self.enrichments:
                msg = f"enrichment {name!r}: missing; give --enrichment {name}=FILE, or {name}={NONE} for nulls"
                raise InputError(msg)
        streams = [(one.topic, one.contract, self.enrichments[one.name]) for one in pipeline.enrichments]
        streams.append((pipeline.source.topic, pipeline.contract, self.source))
        tables = [
            Table(
                topic,
                contract,
                _as_parquet(paths, contract, scratch),
                TIMESTAMP_MS if self.order == "kafka" else contract.time,
            )
            for topic, contract, paths in streams
            if paths
        ]
        return TimeOrder(tables, scratch)

    def open_labels(self, pipeline: Pipeline, scratch: Path) -> Records:
        """Return the records of the label topic; see `Input.open_labels`.

        Raises
        ------
        InputError : no files are named, or they are beside a history.
        HistoryError, ColumnError : a file is not as it must be.
        """
        label = label_of(pipeline)
        if self.is_history:
            if self.labels:
                msg = f"labels: {self.source[0]} is a history, which holds all topics; leave {self.labels[0]} out"
                raise InputError(msg)
            return History(self.source, [label.topic], CHUNK_ROWS)
        if not self.labels:
            msg = f"labels: missing; give --labels FILE with the columns {', '.join(label.contract.fields)}"
            raise InputError(msg)
        paths = _as_parquet(self.labels, label.contract, scratch)
        return TimeOrder([Table(label.topic, label.contract, paths, label.contract.time)], scratch)

    def describe(self) -> list[dict[str, Any]]:
        """Return the files with their digests; see `Input.describe`."""
        roles = {"source": self.source, **self.enrichments, "labels": self.labels}
        return [{"role": role, **one} for role, paths in roles.items() for one in describe_files(paths)]


def _as_parquet(paths: Sequence[Path], contract: Contract, scratch: Path) -> tuple[Path, ...]:
    """Return the files, each CSV as a Parquet file of the scratch folder."""
    return tuple(path if path.suffix == ".parquet" else _convert(path, contract, scratch) for path in paths)


def _convert(path: Path, contract: Contract, scratch: Path) -> Path:
    made = scratch / f"csv-{len(list(scratch.iterdir()))}.parquet"
    # Times may be numbers or ISO 8601: what is not said here is guessed.
    types = {name: spec.arrow_type for name, spec in contract.fields.items() if name != contract.time}
    options = pa.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    try:
        with pa.csv.open_csv(path, convert_options=options) as read, pq.ParquetWriter(made, read.schema) as write:
            for batch in read:
                write.write_batch(batch)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        msg = f"{path}: cannot be read as CSV of the contract: {error}"
        raise InputError(msg) from error
    return made


def label_of(pipeline: Pipeline) -> Label:
    """Return the label of a pipeline, whose contract names an id.

    Raises
    ------
    DefinitionError : it declares none.
    """
    if pipeline.label is None or pipeline.label.contract.id is None:
        what = "label" if pipeline.label is None else "label.contract.id"
        msg = f"pipeline {pipeline.name}: {what}: missing; training needs to know which stream brings the truth"
        raise DefinitionError(msg)
    return pipeline.label


def by_event_time(pipeline: Pipeline, folder: Path, records: Records, scratch: Path) -> TimeOrder:
    """Decode raw records into scratch files of columns, and put these in the order of event time."""
    ingests = ingest_of_topics(pipeline, folder)
    contracts = {**{one.topic: one.contract for one in pipeline.enrichments}, pipeline.source.topic: pipeline.contract}
    nothing = {topic: ingests[topic].decode(RawBatch(topic, [], [], [], [], [])).rows for topic in contracts}
    paths = {topic: scratch / f"decoded-{topic}.parquet" for topic in contracts}
    letters: dict[str, list[pa.RecordBatch]] = {topic: [] for topic in contracts}
    with ExitStack() as stack:
        kept = {topic: [name for name in rows.schema.names if name != VALUE] for topic, rows in nothing.items()}
        writers = {
            topic: stack.enter_context(pq.ParquetWriter(path, nothing[topic].select(kept[topic]).schema))
            for topic, path in paths.items()
        }
        for chunk in records:
            for part in chunk:
                assert isinstance(part.batch, RawBatch)  # noqa: S101  raw is what they are
                piece = ingests[part.batch.topic].decode(part.batch)
                writers[piece.topic].write_batch(piece.rows.select(kept[piece.topic]))
                if piece.letters.num_rows:
                    letters[piece.topic].append(piece.letters)
    return TimeOrder(
        [
            Table(topic, contract, (paths[topic],), contract.time, tuple(letters[topic]))
            for topic, contract in contracts.items()
        ],
        scratch,
    )
