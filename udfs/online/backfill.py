"""Writes the last rows of featurized history into the online store, by the fence of the job that runs beside it."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from udfs.core.declare.definition import Pipeline
from udfs.core.online.schema import OnlineStoreError
from udfs.core.online.tables import OnlineTable, online_schema, online_tables
from udfs.online.client import client_of
from udfs.online.fence import SLICE_ROWS, WRITE, Writer, is_foreign

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the newest rows of each key."""

    #: keys that have this row now; a key counts in each batch that holds it
    written: int = 0
    #: keys that hold a newer row
    fenced: int = 0


def write_online(
    url: str,
    prefix: str,
    pipeline: Pipeline,
    feature_set: str,
    rows: pa.Table | Iterable[pa.RecordBatch],
    *,
    started_ms: int | None = None,
) -> Written:
    """Write the newest row of each entity key; a job may be writing at the same time.

    To write the same rows again changes nothing, so after an error it is simply called again.

    Parameters
    ----------
    url : Redis URL, secrets resolved
    prefix : name space of the store keys, `sinks.online_store.prefix`
    pipeline, feature_set : the definition that computed the rows, and its hash
    rows : what the featurize stages gave; of a table only the last row per key is sent, of batches that of each batch
    started_ms : when this writer was started, epoch milliseconds; default: now. It decides between rows of one time

    Raises
    ------
    OnlineStoreError : the URL cannot be read, a column is missing or of another kind, a key holds something else.
    redis.RedisError : the store cannot be reached, or refuses.
    """
    tables = online_tables(pipeline, prefix)
    client = client_of(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    batches = rows.combine_chunks().to_batches() if isinstance(rows, pa.Table) else rows
    started_ms = time.time_ns() // 1_000_000 if started_ms is None else started_ms
    writer, script = None, ""
    written = sent = 0
    with client as redis:
        for batch in batches:
            if writer is None:
                writer = Writer(prefix, started_ms, 0, online_schema(tables, feature_set, batch.schema))
                pipe = redis.pipeline(transaction=False)
                writer.register(pipe)
                pipe.execute()
                script = str(redis.script_load(WRITE))
            for table, newest in _slices(tables, batch):
                pipe = redis.pipeline(transaction=False)
                found = table.rows(newest)
                writer.queue(pipe, script, found)
                answers = pipe.execute(raise_on_error=False)
                for row, answer in zip(found, answers, strict=True):
                    if is_foreign(answer):
                        msg = f"{row.key}: holds something else than an online row; delete it, or choose another prefix"
                        raise OnlineStoreError(msg)
                    if isinstance(answer, Exception):
                        raise answer
                written += sum(answers)
                sent += len(answers)
    return Written(written, sent - written)


def _slices(tables: tuple[OnlineTable, ...], batch: pa.RecordBatch) -> Iterator[tuple[OnlineTable, pa.RecordBatch]]:
    for table in tables:
        newest = table.newest(batch)
        for start in range(0, newest.num_rows, SLICE_ROWS):
            yield table, newest.slice(start, SLICE_ROWS)
