"""The export job: a savepoint or kept checkpoint of a scoring job -> a state snapshot.

Flink reads keyed state only within a job, so this is one: operators that send their state stand under the uids of the
featurize operators, and the micro-batches that waited come out of their own windows, restored under their own uids. The
sources are not restored: made-up records take their place, and the first of them in a lane says that all have come.

python -m flink_jobs.state_export SAVEPOINT OUT
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
from pyflink.common import Configuration, Row, Types
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from flink_jobs.lanes import by_lane, lanes_of_table, with_clause
from flink_jobs.savepoint import Savepoint, SavepointError, read_savepoint
from udfs.core.errors import HeadraceError
from udfs.core.rows.batches import RawBatch
from udfs.core.rows.lanes import lane_keys
from udfs.core.state.carry import carry
from udfs.core.state.header import StateHeader
from udfs.core.state.snapshot import Manifest, Snapshot, write_snapshot
from udfs.export import BYTES, MARKER_PARTITION, ExportPending, ExportState, Sent

LINGER_MS = 100
MARKERS_PER_S = 1_000
"""Their keys are drawn at random: 128 lanes have one each within a few seconds."""
SENT = Types.PICKLED_BYTE_ARRAY()
SOURCE_TABLE = "events"


def export(flink: StreamExecutionEnvironment, path: str, out: Path) -> Manifest:
    """Read a savepoint in a job of `flink` and write it as a state snapshot.

    Raises
    ------
    SavepointError : there is none, it is of no scoring job, or the job had no state yet.
    """
    savepoint = read_savepoint(path)
    if savepoint.has_records_under_way:
        msg = f"{path}: is an unaligned checkpoint, with records under way between operators; take a savepoint"
        raise SavepointError(msg)
    configuration = Configuration()
    for name, value in _options(savepoint).items():
        configuration.set_string(name, value)
    flink.configure(configuration)
    keys = lane_keys(savepoint.lanes, savepoint.max_parallelism)
    return write_snapshot(out, _snapshot(savepoint, keys, _collect(flink, savepoint, keys)))


def _options(savepoint: Savepoint) -> dict[str, str]:
    return {
        "execution.state-recovery.path": savepoint.path,
        "execution.state-recovery.ignore-unclaimed-state": "true",
        "pipeline.max-parallelism": str(savepoint.max_parallelism),
        "pipeline.name": "headrace-state-export",
        "pipeline.object-reuse": "true",
        "parallelism.default": "1",
        "python.fn-execution.bundle.time": "50",
        "restart-strategy.type": "none",
        "state.backend.type": "rocksdb",
        "table.exec.uid.generation": "DISABLED",
    }


def _collect(flink: StreamExecutionEnvironment, savepoint: Savepoint, keys: list[int]) -> Iterator[Sent]:
    """Yield what the operators send, until every lane of each has come to its end."""
    tables = StreamTableEnvironment.create(flink)
    streams = [_pending(tables, table, keys) for table in savepoint.tables]
    for uid in savepoint.featurize:
        asked = flink.from_collection([Row(key, b"") for key in keys], Types.ROW([Types.INT(), BYTES]))
        streams.append(by_lane(asked, BYTES).process(ExportState(uid), SENT).uid(uid))
    waiting = {(name, key) for name in (*savepoint.tables, *savepoint.featurize) for key in keys}
    with streams[0].union(*streams[1:]).execute_and_collect("headrace-state-export") as results:
        for one in results:
            kind, name, key, *_ = one
            if kind != "end":
                yield one
                continue
            waiting.discard((name, key))
            if not waiting:
                return
    msg = f"{savepoint.path}: the export job ended before it had sent everything"
    raise SavepointError(msg)


def _pending(tables: StreamTableEnvironment, table: str, keys: list[int]) -> DataStream:
    """Return the micro-batches of a source table, with markers behind those that were restored."""
    markers = {
        "connector": "datagen",
        "rows-per-second": str(MARKERS_PER_S),
        "fields.k.length": "8",
        "fields.v.length": "1",
        "fields.part.min": str(MARKER_PARTITION),
        "fields.part.max": str(MARKER_PARTITION),
    }
    tables.execute_sql(f"""
        CREATE TABLE {table} (v BYTES, k BYTES, part INT, off BIGINT, ts TIMESTAMP_LTZ(3), pt AS PROCTIME())
        WITH ({with_clause(markers)})""")
    batches = lanes_of_table(tables, table, table, LINGER_MS, keys)
    source = batches._j_data_stream.getTransformation()
    while source.getInputs():
        source = source.getInputs()[0]
    source.setUid(f"{table}-markers")  # it must not find the state of the Kafka source
    return batches.process(ExportPending(table), SENT).uid(f"{table}-export")


def _snapshot(savepoint: Savepoint, keys: list[int], sent: Iterable[Sent]) -> Snapshot:
    whole: dict[tuple[str, str, int, int], bytes] = {}
    for kind, name, key, number, part in sent:
        whole[kind, name, keys.index(key), number] = whole.get((kind, name, keys.index(key), number), b"") + part
    headers = [data for (kind, *_), data in whole.items() if kind == "header"]
    if not headers:
        msg = f"{savepoint.path}: the job had read nothing yet; there is no state to export"
        raise SavepointError(msg)
    # Lanes differ where one had no record since the job was started from another definition that fits, too.
    header = StateHeader.decode(max(set(headers), key=headers.count))
    logs: dict[tuple[str, int], list[bytes]] = {}
    pending: list[tuple[str, bytes]] = []
    for (kind, name, lane, _), data in sorted(whole.items()):
        if kind == "segment":
            logs.setdefault((name, lane), []).append(data)
        elif kind == "pending":
            pending.append((name, data))
    pipeline = header.definition()
    topics = {f"enrichment_{one.name}": one.topic for one in pipeline.enrichments} | {
        SOURCE_TABLE: pipeline.source.topic
    }
    batches = [(topics[table], msgspec.msgpack.decode(data, type=RawBatch)) for table, data in pending]
    # Enrichments before the events that may look at them.
    batches.sort(key=lambda one: one[0] == pipeline.source.topic)
    found = Snapshot(
        header, "export", logs, savepoint.offsets, [replace(batch, topic=topic) for topic, batch in batches]
    )
    # Written anew: keys that had been paged out of memory go back into the logs, and each bucket is one segment.
    return replace(carry(found, header), created_by="export")


def main(arguments: list[str]) -> None:
    """Run on a cluster within this process, or under `flink run` on that of the client."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("savepoint", help="path or URI")
    parser.add_argument("out", type=Path, help="folder of the snapshot")
    chosen = parser.parse_args(arguments)
    try:
        export(StreamExecutionEnvironment.get_execution_environment(), chosen.savepoint, chosen.out)
    except HeadraceError as error:
        sys.exit(f"headrace: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
