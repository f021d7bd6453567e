"""Export operators: send all that the featurize operators of a job hold, and what waits in its micro-batches.

They stand where the job has its own, in another job that is restored from its savepoint; see `flink_jobs.state_export`.
"""

from collections.abc import Iterator

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, ProcessFunction, RuntimeContext
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor

from udfs.batch_rows import raw_batch
from udfs.core.state.header import HEADER_STATE, StateHeader, log_name, pages_name

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
MARKER_PARTITION = 2**29 - 1
"""Partition of records that are no records: they come behind all that was restored in their lane."""
BEHIND_THE_LOG = 1 << 62
"""Numbers of pages, each a segment that says all of one key; see `pages`."""
PART_BYTES = 1 << 20
"""Flink hands results to the client in batches of 2 MB, and a result must fit one."""

#: kind (header, segment, pending, end), uid, log or table, Flink key of the lane, number, bytes or a part of them
Sent = tuple[str, str, int, int, bytes]


class ExportState(KeyedProcessFunction):
    """Sends header and logs of each lane that it is asked for.

    Parameters
    ----------
    uid : of the operator that it stands for
    """

    def __init__(self, uid: str) -> None:
        self._uid = uid

    def open(self, runtime_context: RuntimeContext) -> None:
        """Find the header; which logs there are is said by it."""
        self._context = runtime_context
        self._header = runtime_context.get_state(ValueStateDescriptor(HEADER_STATE, BYTES))

    def process_element(self, value: bytes, ctx: KeyedProcessFunction.Context) -> Iterator[Sent]:
        """Send one lane; nothing but its end if it has no state."""
        key, header = ctx.get_current_key(), self._header.value()
        if header is not None:
            yield from _parts("header", self._uid, key, 0, header)
            found = StateHeader.decode(header)
            for name in found.logs:
                log = self._context.get_map_state(MapStateDescriptor(name, Types.LONG(), BYTES))
                for number, data in sorted(log.items()):
                    yield from _parts("segment", name, key, number, data)
            for entity in found.entities:
                pages = self._context.get_map_state(MapStateDescriptor(pages_name(entity), Types.STRING(), BYTES))
                for number, (_, data) in enumerate(sorted(pages.items()), BEHIND_THE_LOG):
                    yield from _parts("segment", log_name(entity), key, number, data)
        yield ("end", self._uid, key, 0, b"")

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Sent]:
        """Let the timers of events that wait pass; they were restored with the state."""
        return iter(())


class ExportPending(ProcessFunction):
    """Sends the micro-batches that come, and says per lane when those that were restored are through.

    Parameters
    ----------
    table : source table that they are of
    """

    def __init__(self, table: str) -> None:
        self._table = table

    def open(self, runtime_context: RuntimeContext) -> None:
        """Count batches from 0."""
        self._count = 0

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[Sent]:
        """Send the records of a batch that are no markers."""
        lane_key, raw = value[0], raw_batch(value[1])
        real = [i for i, partition in enumerate(raw.partitions) if partition != MARKER_PARTITION]
        if real:
            data = msgspec.msgpack.encode(raw.select(real))
            yield from _parts("pending", self._table, lane_key, self._count, data)
            self._count += 1
        if len(real) < len(raw.partitions):
            yield ("end", self._table, lane_key, 0, b"")


def _parts(kind: str, name: str, lane_key: int, number: int, data: bytes) -> Iterator[Sent]:
    for start in range(0, len(data), PART_BYTES):
        yield (kind, name, lane_key, number, data[start : start + PART_BYTES])
