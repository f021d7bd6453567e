"""Backfill into a folder: records in, a Parquet dataset of rows with features out, with what it was made from."""

import datetime as dt
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.days import DayFolder
from models.inputs import Input, Records
from models.provenance import describe
from udfs.core.declare.definition import Pipeline
from udfs.core.offline.backfill import Backfill
from udfs.core.plan.features import order_places
from udfs.core.rows.batches import VALUE, lane_column, seq_column
from udfs.core.rows.letters import LETTERS

T = TypeVar("T")
LETTERS_FILE = "_letters.parquet"


@dataclass(slots=True)
class Counts:
    """What became of the records."""

    #: topic -> records
    records: Counter[str] = field(default_factory=Counter)
    #: rows with features, and those of them that were written
    rows: int = 0
    written: int = 0
    #: kind (rejects, late) -> reason -> records
    letters: dict[str, Counter[str]] = field(default_factory=lambda: {"rejects": Counter(), "late": Counter()})

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        letters = {kind: dict(sorted(reasons.items())) for kind, reasons in self.letters.items()}
        return {"records": dict(self.records), "rows": self.rows, "written": self.written, **letters}


def rows_of(
    pipeline: Pipeline,
    folder: Path,
    records: Records,
    threads: int,
    counts: Counts,
    letters: Callable[[pa.RecordBatch], None] = lambda _batch: None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows with features, batch by batch, without reserved columns but the origin.

    Parameters
    ----------
    threads : how many work at the same time
    counts : is updated
    letters : gets what left the path
    """
    backfill = Backfill(pipeline, folder, threads)
    stamps = {name(place) for place in order_places(pipeline) for name in (lane_column, seq_column)}
    for done in backfill.run(records):
        counts.records += done.records
        counts.rows += done.rows.num_rows
        if done.letters.num_rows:
            letters(done.letters)
            for kind, reason in zip(*(done.letters[name].to_pylist() for name in ("kind", "reason")), strict=True):
                counts.letters[kind][reason] += 1
        yield done.rows.drop_columns([name for name in done.rows.schema.names if name in stamps or name == VALUE])


def write_backfill(
    pipeline: Pipeline,
    folder: Path,
    source: Input,
    out: Path,
    threads: int,
    since: dt.date | None = None,
    arguments: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda _read, _rows: None,
) -> Counts:
    """Compute the features of all records and write the rows as a folder, see `models.days`.

    Parameters
    ----------
    pipeline, folder : the definition and the folder its files are relative to
    source : what to read
    out : the folder
    since : rows of earlier days (UTC) fill the windows and are not written
    arguments : of the command, for the provenance
    progress : gets the number of records read, and of all

    Returns
    -------
    What became of the records.

    Raises
    ------
    HeadraceError : an input cannot be read, or the folder not be written; see `models.inputs` and `models.days`.
    """
    counts, time = Counts(), pipeline.contract.time
    since_ms = None if since is None else int(dt.datetime.combine(since, dt.time(), dt.UTC).timestamp()) * 1000
    with (
        tempfile.TemporaryDirectory(prefix="headrace-backfill-") as scratch,
        DayFolder(out, time) as days,
    ):
        records = source.open(pipeline, folder, Path(scratch))
        inputs = in_background(source.describe)
        with pq.ParquetWriter(days.draft / LETTERS_FILE, LETTERS, compression="zstd") as letters:
            for rows in rows_of(pipeline, folder, records, threads, counts, letters.write_batch):
                days.write(rows if since_ms is None else rows.filter(pc.greater_equal(rows[time], since_ms)))
                progress(records.read, records.rows)
        counts.written = days.rows
        facts = {"inputs": inputs.result(), "arguments": arguments or {}, "counts": counts.as_dict()}
        days.finish(describe(pipeline, folder) | facts)
    return counts


def in_background(call: Callable[[], T]) -> "Future[T]":
    """Call on a thread that nothing waits for when the program ends."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001  raised again where the result is asked for
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done
