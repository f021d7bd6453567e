"""The same windows three ways, as Flink jobs over one Kafka topic, each in a JVM of its own; see `features_stage`.

headrace : micro-batches into the featurize operator, as the scoring job has it, and nothing behind
sql : OVER aggregates of Flink SQL, all in the JVM; one query per window, since OVER takes one window a query
windows : the sliding windows of PyFlink's DataStream API with an AggregateFunction

The last line printed is JSON: rows that came out, CPU seconds of the JVM and of Python, and, if asked, the rows.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import psutil
import pyflink
import typer
import yaml
from pyflink.common import Duration, Time, Types, WatermarkStrategy
from pyflink.datastream import DataStream, ProcessFunction, StreamExecutionEnvironment
from pyflink.datastream.functions import AggregateFunction
from pyflink.datastream.window import SlidingEventTimeWindows
from pyflink.table import StreamTableEnvironment

from flink_jobs.environment import execution_environment
from flink_jobs.lanes import by_lane, lanes_of_topic, with_clause
from scripts.bench.synthetic import SIZES, SLIDE, TAKES, pipeline
from udfs.batch_rows import PIECE_TYPE, RAW_TYPE
from udfs.core.declare.durations import parse_duration_ms
from udfs.core.declare.loading import PIPELINE_FILE
from udfs.core.rows.batches import Piece
from udfs.core.rows.lanes import lane_keys
from udfs.featurize import Featurize

NAMES = [f"{take}_{size}" for size in SIZES for take in TAKES]
#: rows that came out, where the job's Python runs in this process
SEEN: dict[str, int] = {"rows": 0}
ROWS: list[dict[str, Any]] = []
MEMORY_BYTES = 2 << 30
LINGER_MS, BUNDLE_MS, SLOWEST_S = 33, 16, 900.0


def kafka(bootstrap: str, topic: str, **more: str) -> dict[str, str]:
    """Return the connector options of the topic, from its start."""
    return {
        "connector": "kafka",
        "topic": topic,
        "properties.bootstrap.servers": bootstrap,
        "scan.startup.mode": "earliest-offset",
    } | {name.replace("__", "."): value for name, value in more.items()}


def flink(scratch: str) -> StreamExecutionEnvironment:
    """Return a local environment with the settings of the scoring job: RocksDB, checkpoints each 10 s."""
    return execution_environment(
        {
            "state.backend.type": "rocksdb",
            "execution.checkpointing.incremental": "true",
            "execution.checkpointing.interval": "10s",
            "execution.checkpointing.dir": f"file://{scratch}/checkpoints",
            "pipeline.object-reuse": "true",
            "parallelism.default": "1",
            "python.fn-execution.bundle.time": str(BUNDLE_MS),
            "table.exec.uid.generation": "DISABLED",
            "table.exec.source.idle-timeout": "0",
        }
    )


class Count(ProcessFunction):
    """Counts the rows of pieces, and keeps them if asked."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep

    def process_element(self, value: Any, _ctx: ProcessFunction.Context) -> Iterator[Any]:
        """Take one piece."""
        rows = Piece.decode(value[1]).rows
        SEEN["rows"] += rows.num_rows
        if self._keep:
            kept = rows.select(["id", *(f"user_amount_{name}" for name in NAMES)])
            ROWS.extend(kept.rename_columns(["id", *NAMES]).to_pylist())
        yield from ()


def headrace(scratch: str, bootstrap: str, topic: str, count: int, *, keep: bool) -> None:
    """Run until every event has come out of the featurize operator."""
    folder = Path(scratch) / "pipeline"
    folder.mkdir(exist_ok=True)
    defined = pipeline(source={"topic": topic, "key": "user"})
    text = yaml.safe_dump(defined.model_dump(mode="json", by_alias=True), sort_keys=False)
    (folder / PIPELINE_FILE).write_text(text, encoding="utf-8")
    environment = flink(scratch)
    tables, keys = StreamTableEnvironment.create(environment), lane_keys(1, 128)
    options = kafka(bootstrap, topic) | {
        "key.format": "raw", "key.fields": "k", "value.format": "raw", "value.fields-include": "EXCEPT_KEY",
    }  # fmt: skip
    lanes = lanes_of_topic(tables, "events", options, LINGER_MS, keys)
    featurize = Featurize(str(folder), 0, keys, MEMORY_BYTES)
    stream = by_lane(lanes, RAW_TYPE).process(featurize, PIECE_TYPE).uid("featurize").name("featurize")
    stream.process(Count(keep=keep), Types.PICKLED_BYTE_ARRAY()).print()
    SEEN["rows"] = 0
    job = environment.execute_async("bench-headrace")
    ends = time.monotonic() + SLOWEST_S
    while SEEN["rows"] < count and time.monotonic() < ends:
        time.sleep(0.05)
    job.cancel().result()


def sql(scratch: str, bootstrap: str, topic: str, count: int, *, keep: bool) -> None:
    """Run the bounded topic through OVER aggregates."""
    tables = StreamTableEnvironment.create(flink(scratch))
    _events_table(tables, bootstrap, topic)
    query = "SELECT id, event_time, `user`, amount FROM events"
    for size in SIZES:
        minutes = parse_duration_ms(size) // 60_000
        since = f"RANGE BETWEEN INTERVAL '{minutes}' MINUTE PRECEDING AND CURRENT ROW"
        over = f"(PARTITION BY `user` ORDER BY event_time {since})"
        takes = ", ".join(
            f"{'COUNT' if take == 'count' else take.upper()}(amount) OVER {over} AS {take}_{size}" for take in TAKES
        )
        query = f"SELECT *, {takes} FROM ({query})"
    names = ", ".join(NAMES)
    if keep:
        with tables.execute_sql(f"SELECT id, {names} FROM ({query})").collect() as found:
            ROWS.extend(dict(zip(["id", *NAMES], row, strict=True)) for row in found)
        SEEN["rows"] = len(ROWS)
        return
    columns = ", ".join(f"{name} {'BIGINT' if name.startswith('count') else 'DOUBLE'}" for name in NAMES)
    tables.execute_sql(f"CREATE TABLE nothing (id STRING, {columns}) WITH ('connector' = 'blackhole')")
    tables.execute_sql(f"INSERT INTO nothing SELECT id, {names} FROM ({query})").wait()
    SEEN["rows"] = count


def _events_table(tables: StreamTableEnvironment, bootstrap: str, topic: str) -> None:
    options = kafka(bootstrap, topic, format="json", scan__bounded__mode="latest-offset")
    tables.execute_sql(f"""
        CREATE TABLE events (
          id STRING, at_ms BIGINT, `user` STRING, amount DOUBLE,
          event_time AS TO_TIMESTAMP_LTZ(at_ms, 3), WATERMARK FOR event_time AS event_time
        ) WITH ({with_clause(options)})""")


class Aggregate(AggregateFunction):
    """count, sum, min and max of the amounts."""

    def create_accumulator(self) -> tuple[int, float, float, float]:
        """Return an empty one."""
        return (0, 0.0, float("inf"), float("-inf"))

    def add(self, value: Any, accumulator: tuple[int, float, float, float]) -> tuple[int, float, float, float]:
        """Take one event."""
        count, total, least, most = accumulator
        amount = value[2]
        return (count + 1, total + amount, min(least, amount), max(most, amount))

    def get_result(self, accumulator: tuple[int, float, float, float]) -> tuple[int, float, float, float]:
        """Return the aggregates."""
        return accumulator

    def merge(
        self, a: tuple[int, float, float, float], b: tuple[int, float, float, float]
    ) -> tuple[int, float, float, float]:
        """Join two."""
        return (a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3]))


class Keep(ProcessFunction):
    """Counts the events that windows have taken in, and keeps the windows if asked."""

    def __init__(self, size: str, *, keep: bool) -> None:
        self._size, self._keep = size, keep

    def process_element(self, value: Any, _ctx: ProcessFunction.Context) -> Iterator[Any]:
        """Take one window's result."""
        SEEN["rows"] += value[0]
        if self._keep:
            ROWS.append({"size": self._size, "count": value[0], "sum": value[1], "min": value[2], "max": value[3]})
        yield from ()


def windows(scratch: str, bootstrap: str, topic: str, _count: int, *, keep: bool) -> None:
    """Run the bounded topic through sliding windows, one operator for each size."""
    environment = flink(scratch)
    tables = StreamTableEnvironment.create(environment)
    _events_table(tables, bootstrap, topic)
    rows = tables.to_data_stream(tables.sql_query("SELECT `user`, at_ms, amount FROM events"))

    class Times(pyflink.common.watermark_strategy.TimestampAssigner):
        def extract_timestamp(self, value: Any, record_timestamp: int) -> int:  # noqa: ARG002
            return int(value[1])

    strategy = WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_millis(0)).with_timestamp_assigner(Times())
    timed: DataStream = rows.assign_timestamps_and_watermarks(strategy)
    result = Types.TUPLE([Types.LONG(), Types.DOUBLE(), Types.DOUBLE(), Types.DOUBLE()])
    slide = Time.milliseconds(parse_duration_ms(SLIDE))
    for size in SIZES:
        sliding = SlidingEventTimeWindows.of(Time.milliseconds(parse_duration_ms(size)), slide)
        found = (
            timed.key_by(lambda row: row[0], Types.STRING())
            .window(sliding)
            .aggregate(Aggregate(), accumulator_type=Types.PICKLED_BYTE_ARRAY(), output_type=result)
        )
        found.process(Keep(size, keep=keep), Types.PICKLED_BYTE_ARRAY()).print()
    SEEN["rows"] = 0
    environment.execute("bench-windows")


JOBS: dict[str, Callable[..., None]] = {"headrace": headrace, "sql": sql, "windows": windows}


def cpu_s() -> tuple[float, float]:
    """Return CPU seconds of the JVM and of Python: this process and its other children."""
    mine = psutil.Process()
    jvm = python = 0.0
    for process in [mine, *mine.children(recursive=True)]:
        times = process.cpu_times()
        if process.name() == "java":
            jvm += times.user + times.system
        else:
            python += times.user + times.system
    return jvm, python


def run(
    way: Annotated[str, typer.Argument()],
    bootstrap: Annotated[str, typer.Option()],
    topic: Annotated[str, typer.Option()],
    count: Annotated[int, typer.Option()],
    lib: Annotated[Path, typer.Option(help="Folder of Flink's jars, the Kafka connector among them.")],
    warm_topic: Annotated[str | None, typer.Option(help="Goes through first, so that the JVM is warm.")] = None,
    warm_count: Annotated[int, typer.Option()] = 0,
    keep: Annotated[bool, typer.Option()] = False,
) -> None:
    """Run one job and print what it took."""
    wheel = Path(pyflink.__file__).parent
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        os.environ |= {"FLINK_HOME": str(wheel), "FLINK_LIB_DIR": str(lib), "FLINK_LOG_DIR": scratch}
        os.environ["JVM_ARGS"] = "-Xmx2g"
        if warm_topic is not None:
            JOBS[way](f"{scratch}", bootstrap, warm_topic, warm_count, keep=False)
        begun_s, (jvm_s, python_s) = time.monotonic(), cpu_s()
        JOBS[way](f"{scratch}", bootstrap, topic, count, keep=keep)
        jvm_end_s, python_end_s = cpu_s()
        said = {
            "rows": SEEN["rows"],
            "wall_s": time.monotonic() - begun_s,
            "jvm_s": jvm_end_s - jvm_s,
            "python_s": python_end_s - python_s,
            "kept": ROWS,
        }
    sys.stdout.write("\n" + json.dumps(said) + "\n")
