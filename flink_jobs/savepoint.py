"""What a savepoint or checkpoint says of itself: how its state is laid out, and where its sources stood.

Read from its metadata through the JVM of PyFlink's gateway; nothing is restored.
"""

import re
import struct
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from flink_jobs.failures import root_cause
from flink_jobs.lanes import KEY_TYPE
from udfs.core.errors import HeadraceError, StateFormatError
from udfs.core.state.header import HEADER_STATE, StateHeader
from udfs.core.state.migration import refuse_unfit

_FEATURIZE = re.compile(r"(featurize(?:-(?P<entity>.+))?)-of-(?P<lanes>\d+)")
_TABLE = re.compile(r"(?P<table>events|enrichment_.+)-of-\d+-\d+")
_CANONICAL = ("KeyGroupsSavepointStateHandle", "KeyGroupsStateHandle")
_SOURCE_STATE = "SourceReaderState"
_EARLIEST = -2
"""What Flink notes of a partition that is to be read from its beginning, and of which nothing was read yet."""


class SavepointError(HeadraceError):
    """A savepoint cannot be read, or is none of a scoring job."""


@dataclass(frozen=True, slots=True)
class Savepoint:
    """The layout of a scoring job's savepoint."""

    path: str
    lanes: int
    max_parallelism: int
    #: uid -> entity, None where all stages run in one operator
    featurize: dict[str, str | None]
    #: names of the source tables: `events`, `enrichment_<name>`
    tables: tuple[str, ...]
    #: topic -> partition -> offset that is read next
    offsets: dict[str, dict[int, int]]
    #: True: records are under way between operators in it, as in an unaligned checkpoint
    has_records_under_way: bool
    #: what wrote it; None where only a job can read it, as in a native savepoint or a checkpoint
    header: StateHeader | None


def read_savepoint(path: str) -> Savepoint:
    """Read the metadata of a savepoint, or of a checkpoint that was kept.

    Raises
    ------
    SavepointError : there is none at that place, or no scoring job wrote it.
    """
    operators = _operators(path)
    uids = [operator.getOperatorUid().orElse("") for operator in operators]
    found = {uid: match for uid in uids if (match := _FEATURIZE.fullmatch(uid))}
    if not found:
        msg = f"{path}: holds no state of a scoring job; its operators are {', '.join(sorted(filter(None, uids)))}"
        raise SavepointError(msg)
    tables = (match["table"] for uid in uids if (match := _TABLE.fullmatch(uid)))
    return Savepoint(
        path=path,
        lanes=int(next(iter(found.values()))["lanes"]),
        max_parallelism=next(one.getMaxParallelism() for one in operators if one.getOperatorUid().orElse("") in found),
        featurize={uid: match["entity"] for uid, match in found.items()},
        tables=tuple(sorted(set(tables))),
        offsets=_offsets(operators),
        has_records_under_way=any(
            not state.isEmpty()
            for operator in operators
            for subtask in operator.getStates().toArray()
            for state in (subtask.getInputChannelState(), subtask.getResultSubpartitionState())
        ),
        header=_header([one for one in operators if one.getOperatorUid().orElse("") in found]),
    )


def refuse_savepoint(flink: StreamExecutionEnvironment, header: StateHeader) -> None:
    """Refuse the savepoint that a job is to be restored from, if there is one, and a job of `header` cannot read it.

    Raises
    ------
    StateFormatError : with the migration plan. Where this client cannot tell what wrote it, the worker refuses it.
    """
    path = flink._j_stream_execution_environment.getConfiguration().toMap().get("execution.state-recovery.path")
    if path is None:
        return
    try:
        savepoint, lanes = read_savepoint(path), header.definition().lanes
    except SavepointError:
        return  # only the cluster can read it, or nobody: Flink will say
    if savepoint.header is not None:
        refuse_unfit(savepoint.header, header)
    elif savepoint.lanes != lanes:
        msg = (
            f"{path}: has {savepoint.lanes} lanes, the pipeline {lanes}; export it, migrate it, and start from the "
            "snapshot: headrace state export"
        )
        raise StateFormatError(msg)


def _operators(path: str) -> list[Any]:
    jvm = get_gateway().jvm
    runtime = jvm.org.apache.flink.runtime
    try:
        place = runtime.state.filesystem.AbstractFsCheckpointStorageAccess.resolveCheckpointPointer(path)
        with_header = jvm.java.io.DataInputStream(place.getMetadataHandle().openInputStream())
        loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
        metadata = runtime.checkpoint.Checkpoints.loadCheckpointMetadata(with_header, loader, path)
        with_header.close()
    except Py4JJavaError as error:
        msg = f"{path}: there is no savepoint to read: {root_cause(str(error.java_exception))}"
        raise SavepointError(msg) from error
    return list(metadata.getOperatorStates().toArray())


def _header(operators: list[Any]) -> StateHeader | None:
    """Return the header that a lane has in the savepoint, if it is in Flink's common (canonical) format.

    In it an entry of state is a key and a value, as bytes; the value of a header is the header behind two lengths.
    """
    jvm = get_gateway().jvm
    state = jvm.org.apache.flink.runtime.state
    config = jvm.org.apache.flink.api.common.serialization.SerializerConfigImpl()
    keys = state.StateSerializerProvider.fromNewRegisteredSerializer(
        KEY_TYPE.get_java_type_info().createSerializer(config)
    )
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    for operator in operators:
        groups = state.KeyGroupRange(0, operator.getMaxParallelism() - 1)
        for subtask in operator.getStates().toArray():
            handles = subtask.getManagedKeyedState()
            if any(one.getClass().getSimpleName() not in _CANONICAL for one in handles.toArray()):
                return None
            restored = state.restore.FullSnapshotRestoreOperation(groups, loader, handles, keys).restore()
            while restored.hasNext():
                if (found := _first_header(restored.next())) is not None:
                    return StateHeader.decode(found)
    return None


def _first_header(restored: Any) -> bytes | None:
    names = [one.getName() for one in restored.getStateMetaInfoSnapshots()]
    groups = restored.getRestoredKeyGroups()
    while groups.hasNext():
        entries = groups.next().getKeyGroupEntries()
        while entries.hasNext():
            entry = entries.next()
            if names[entry.getKvStateId()] == f"python-state-{HEADER_STATE}":
                return bytes(entry.getValue())[8:]
    return None


def _offsets(operators: list[Any]) -> dict[str, dict[int, int]]:
    """Return where the Kafka sources go on; a partition is left out whose start was left to its consumer group."""
    found: dict[str, dict[int, int]] = {}
    for operator in operators:
        for subtask in operator.getStates().toArray():
            for handle in subtask.getManagedOperatorState().toArray():
                states = handle.getStateNameToPartitionOffsets()
                if _SOURCE_STATE not in states:
                    continue
                stream = handle.openInputStream()
                data = bytes(stream.readAllBytes())
                stream.close()
                for start in states[_SOURCE_STATE].getOffsets():
                    topic, partition, offset = _split(data[start:])
                    if offset >= _EARLIEST and offset != -1:
                        found.setdefault(topic, {})[partition] = max(offset, 0)
    return found


def _split(data: bytes) -> tuple[str, int, int]:
    """Return topic, partition and next offset of a stored split.

    A byte array of Flink, in it a versioned split of the Kafka connector: each length and version an int32, then the
    topic as of `DataOutput.writeUTF`, the partition as int32, the offset as int64, all big-endian.
    """
    version, _, size = struct.unpack_from(">iih", data, 4)
    if version != 0:
        msg = f"Kafka splits of version {version} are stored; this code reads version 0"
        raise SavepointError(msg)
    topic = data[14 : 14 + size].decode()
    partition, offset = struct.unpack_from(">iq", data, 14 + size)
    return topic, partition, offset
