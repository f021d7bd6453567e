"""Rows -> a folder of Parquet files, one partition per UTC day of event time; the folder is never half there.

Everything is written into a draft beside it, which takes its name at the end. Files that say something of the whole
start with an underscore, so that readers of Parquet folders pass over them.
"""

import itertools
import os
import shutil
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from udfs.core.errors import HeadraceError
from udfs.core.rows.batches import join_batches

DAY_MS = 86_400_000
ROW_GROUP_ROWS = 131_072
MOST_OPEN_DAYS = 32
PROVENANCE = "_provenance.json"


class FolderError(HeadraceError):
    """A folder cannot be written to, or was not written by headrace."""


class DayFolder:
    """A folder that is being written: a context that ends with `finish`, or leaves nothing.

    Parameters
    ----------
    out : the folder; one that headrace has written earlier is replaced
    time : column of event time, int64 epoch milliseconds

    Raises
    ------
    FolderError : something else has this name.
    """

    def __init__(self, out: Path, time: str) -> None:
        if out.exists() and not (out / PROVENANCE).exists() and (not out.is_dir() or any(out.iterdir())):
            msg = f"{out}: is there already, and not by headrace ({PROVENANCE} is missing); choose another name"
            raise FolderError(msg)
        self._out, self._time = out.absolute(), time
        #: where files go until the end
        self.draft = self._out.with_name(f".{out.name}.draft-{os.getpid()}")
        #: day -> rows to be written; the day that got some least recently comes first
        self._waiting: OrderedDict[int, list[pa.RecordBatch]] = OrderedDict()
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._files: Counter[int] = Counter()
        self.rows = 0

    def __enter__(self) -> Self:
        """Make the draft."""
        shutil.rmtree(self.draft, ignore_errors=True)
        self.draft.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the draft, if it is still one."""
        for writer in self._writers.values():
            writer.close()
        shutil.rmtree(self.draft, ignore_errors=True)

    def write(self, rows: pa.RecordBatch) -> None:
        """Add rows; those of a day keep their order."""
        if rows.num_rows == 0:
            return
        self.rows += rows.num_rows
        days = rows[self._time].to_numpy() // DAY_MS
        if (np.diff(days) < 0).any():
            order = np.argsort(days, kind="stable")
            rows, days = rows.take(pa.array(order)), days[order]
        starts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), days.size]
        for start, end in itertools.pairwise(starts):
            day = int(days[start])
            self._waiting.setdefault(day, []).append(rows.slice(start, end - start))
            self._waiting.move_to_end(day)
            if sum(part.num_rows for part in self._waiting[day]) >= ROW_GROUP_ROWS:
                self._write_out(day, ROW_GROUP_ROWS)
        while len(self._waiting) > MOST_OPEN_DAYS:
            self._close(next(iter(self._waiting)))

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write what waits and where all of it is from, and give the folder its name."""
        for day in list(self._waiting):
            self._close(day)
        text = msgspec.json.format(msgspec.json.encode(provenance), indent=2)
        (self.draft / PROVENANCE).write_bytes(text + b"\n")
        older = self.draft.with_name(f"{self.draft.name}-older")
        if self._out.exists():
            self._out.rename(older)
        self.draft.rename(self._out)
        shutil.rmtree(older, ignore_errors=True)

    def _write_out(self, day: int, least: int) -> None:
        """Write the waiting rows of a day as whole row groups, down to `least` rows."""
        rows = join_batches(self._waiting[day])
        start = 0
        while rows.num_rows - start >= least and start < rows.num_rows:
            part = rows.slice(start, ROW_GROUP_ROWS)
            start += part.num_rows
            if day not in self._writers:
                folder = self.draft / f"day={np.datetime64(day, 'D')}"
                folder.mkdir(exist_ok=True)
                path = folder / f"part-{self._files[day]}.parquet"
                self._files[day] += 1
                texts = [field.name for field in rows.schema if pa.types.is_string(field.type)]
                self._writers[day] = pq.ParquetWriter(path, rows.schema, compression="zstd", use_dictionary=texts)
            self._writers[day].write_batch(part)
        self._waiting[day] = [rows.slice(start)]

    def _close(self, day: int) -> None:
        self._write_out(day, 1)
        self._writers.pop(day).close()
        del self._waiting[day]


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return where the rows of a folder are from.

    Raises
    ------
    FolderError : the folder was not written by headrace.
    """
    path = folder / PROVENANCE
    try:
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        msg = f"{path}: cannot be read: {error}"
        raise FolderError(msg) from error
    return found
