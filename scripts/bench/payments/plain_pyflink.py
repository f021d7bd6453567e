"""The same work as PyFlink's documentation shows it: a record at a time, keyed state, an async function, exactly once.

Kafka source -> map (json) -> key_by user -> key_by merchant -> key_by both, each a KeyedProcessFunction whose windows
lie in one ValueState (one read and one write per record, the cheapest layout) -> AsyncFunction that calls ONNX Runtime
-> Kafka sink. Tuned as the documentation advises: object reuse, larger bundles, a state cache that holds every key.

    flink run -py scripts/bench/payments/plain_pyflink.py BOOTSTRAP SOURCE SINK MODEL INTERVAL CHECKPOINTS GUARANTEE
"""

import datetime as dt
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyflink.common import Configuration, SimpleStringSchema, Time, Types, WatermarkStrategy
from pyflink.datastream import AsyncDataStream, AsyncFunction, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.functions import KeyedProcessFunction
from pyflink.datastream.state import ValueStateDescriptor

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
WINDOWS = ((10 * MINUTE_MS, MINUTE_MS), (HOUR_MS, MINUTE_MS), (DAY_MS, HOUR_MS))
#: count, sum, sum of squares, maximum and online payments of a tile
Cell = tuple[int, float, float, float, int]
ANY = Types.PICKLED_BYTE_ARRAY()


class Windows(KeyedProcessFunction):
    """Sawtooth windows of one key: partial aggregates of minutes and hours, folded for each record.

    Parameters
    ----------
    takes : of `count`, `mean`, `max` and `std`, for each window
    online : count the online payments of the first window, too
    """

    def __init__(self, takes: list[str], *, online: bool = False) -> None:
        self._takes, self._online = takes, online

    def open(self, runtime_context: Any) -> None:
        """Name the state."""
        self._state = runtime_context.get_state(ValueStateDescriptor("windows", Types.PICKLED_BYTE_ARRAY()))

    def process_element(self, value: Any, _ctx: Any) -> Iterator[Any]:
        """Take one payment."""
        event, features = value
        at_ms, amount = event["paid_at_ms"], event["amount"]
        newest_ms: int
        tiles: dict[int, dict[int, Cell]]
        newest_ms, tiles = at_ms, {slide_ms: {} for _, slide_ms in WINDOWS}
        stored = self._state.value()
        if stored is not None:
            newest_ms, tiles = stored
        if at_ms < newest_ms - HOUR_MS:
            return
        newest_ms = max(newest_ms, at_ms)
        for slide_ms, held in tiles.items():
            tile = at_ms // slide_ms
            count, total, squares, most, online = held.get(tile, (0, 0.0, 0.0, -math.inf, 0))
            held[tile] = (
                count + 1, total + amount, squares + amount * amount, max(most, amount), online + event["online"]
            )  # fmt: skip
            keeps = (newest_ms - HOUR_MS - (HOUR_MS if slide_ms == MINUTE_MS else DAY_MS)) // slide_ms
            for old in [one for one in held if one < keeps]:
                del held[old]
        self._state.update((newest_ms, tiles))
        found = list(features)
        for size_ms, slide_ms in WINDOWS:
            first, last = (at_ms - size_ms) // slide_ms, at_ms // slide_ms
            cells = [cell for tile, cell in tiles[slide_ms].items() if first <= tile <= last]
            found += [_taken(take, cells) for take in self._takes]
        if self._online:
            first = (at_ms - WINDOWS[0][0]) // MINUTE_MS
            minutes = tiles[MINUTE_MS].items()
            found.append(sum(cell[4] for tile, cell in minutes if first <= tile <= at_ms // MINUTE_MS))
        yield event, found


def _taken(take: str, cells: list[Cell]) -> float:
    if take == "max":
        return max(cell[3] for cell in cells)
    count, total = sum(cell[0] for cell in cells), math.fsum(cell[1] for cell in cells)
    if take == "count":
        return count
    if take == "mean":
        return total / count
    squares = math.fsum(cell[2] for cell in cells)
    return math.sqrt(max(squares - total * total / count, 0.0) / (count - 1)) if count > 1 else math.nan


class Score(AsyncFunction):
    """Scores one record."""

    def __init__(self, model: bytes, evidence: str) -> None:
        self._model, self._evidence = model, evidence

    def open(self, _context: Any) -> None:
        """Load the model."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])

    async def async_invoke(self, value: Any) -> list[str]:
        """Score it, and say so."""
        import numpy as np

        event, features = value
        score = float(self._session.run(None, {"features": np.array([features], np.float32)})[0][0, 0])
        return [
            (
                f'{{"event_id":"{event["payment_id"]}","event_time_ms":{event["paid_at_ms"]},"score":{score!r},'
                f"{self._evidence}}}"
            )
        ]


def _parsed(text: str) -> Any:
    event = json.loads(text)
    hour = dt.datetime.fromtimestamp(event["paid_at_ms"] / 1000, dt.UTC).hour
    return event, [event["amount"], math.log(event["amount"]), event["known_device"], event["online"], hour]


def main(
    bootstrap: str, source: str, sink: str, model: str, interval: str, checkpoints: str, guarantee: str, evidence: str
) -> None:
    """Build the job and submit it."""
    conf = Configuration()
    for name, value in {
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": "true",
        "execution.checkpointing.interval": interval,
        "execution.checkpointing.dir": checkpoints,
        "parallelism.default": "1",
        "pipeline.object-reuse": "true",
        "pipeline.name": sink,
        "python.fn-execution.bundle.size": "10000",
        "python.state.cache-size": "200000",
    }.items():
        conf.set_string(name, value)
    environment = StreamExecutionEnvironment.get_execution_environment(conf)
    events = (
        KafkaSource.builder()
        .set_bootstrap_servers(bootstrap)
        .set_topics(source)
        .set_group_id(sink)
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_value_only_deserializer(SimpleStringSchema())
        .build()
    )
    scored = (
        KafkaSink.builder()
        .set_bootstrap_servers(bootstrap)
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic(sink)
            .set_value_serialization_schema(SimpleStringSchema())
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee[guarantee])
        .set_transactional_id_prefix(sink)
        .set_property("transaction.timeout.ms", "600000")
        .build()
    )
    stream = environment.from_source(events, WatermarkStrategy.no_watermarks(), "payments").map(_parsed, ANY)
    stages = (
        (lambda value: value[0]["user"], Windows(["count", "mean", "max"], online=True)),
        (lambda value: value[0]["merchant"], Windows(["count", "mean", "std"])),
        (lambda value: value[0]["user"] + "|" + value[0]["merchant"], Windows(["count", "mean"])),
    )
    for key_of, windows in stages:
        stream = stream.key_by(key_of, Types.STRING()).process(windows, ANY)
    done = AsyncDataStream.ordered_wait(
        stream, Score(Path(model).read_bytes(), evidence), Time.milliseconds(0), 1_000, Types.STRING()
    )
    done.sink_to(scored)
    environment.execute_async(sink)


if __name__ == "__main__":
    main(*sys.argv[1:])
