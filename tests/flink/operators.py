"""Operators that only tests run; a module of its own, because workers import it."""

import json
import time
from pathlib import Path

from pyflink.common import Row
from pyflink.datastream import KeyedProcessFunction, RuntimeContext

from udfs.batch_rows import raw_batch


class Recorder(KeyedProcessFunction):
    """Appends what arrives to a file per subtask, one JSON object per record, at most so many a second."""

    def __init__(self, folder: str, records_per_s: float = float("inf")) -> None:
        self._folder, self._records_per_s = folder, records_per_s

    def open(self, runtime_context: RuntimeContext) -> None:
        self._subtask = runtime_context.get_index_of_this_subtask()

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> None:
        raw = raw_batch(value)
        records = zip(raw.partitions, raw.offsets, raw.timestamps_ms, raw.keys, raw.values, strict=True)
        with (Path(self._folder) / f"{self._subtask}.jsonl").open("a") as file:
            for partition, offset, timestamp_ms, key, content in records:
                row = {
                    "subtask": self._subtask,
                    "lane_key": ctx.get_current_key(),
                    "partition": partition,
                    "offset": offset,
                    "timestamp_ms": timestamp_ms,
                    "key": None if key is None else key.hex(),
                    "value": None if content is None else content.hex(),
                }
                file.write(json.dumps(row) + "\n")
        time.sleep(len(raw.values) / self._records_per_s)
