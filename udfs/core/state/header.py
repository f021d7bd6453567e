"""The header of a state: what wrote it, so that nothing reads it as what it is not; and the names of its parts."""

import ast
import hashlib
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
from pydantic import ValidationError

from udfs.core.declare.definition import Pipeline
from udfs.core.errors import StateFormatError
from udfs.core.plan.features import feature_set_hash, plan_stages

VERSION = 1
T = TypeVar("T")
HEADER_STATE, DUPLICATES = "header", "log-duplicates"
"""Names of the Flink state that holds a lane's header, and of the log of the ids that were seen."""


def log_name(entity: str) -> str:
    """Name of the log of an entity's stage: of its Flink state, and in snapshots."""
    return f"log-{entity}"


def pages_name(entity: str) -> str:
    """Name of the Flink state where keys of an entity wait that memory has no room for."""
    return f"pages-{entity}"


class StateHeader(msgspec.Struct, frozen=True):
    """What state says of the job that wrote it; each lane keeps one beside its logs."""

    #: effective definition, as YAML would give it
    pipeline: dict[str, Any]
    feature_set: str
    #: whose stages it has, each with a log
    entities: list[str]
    #: True: there is a log of the ids, too
    has_ids: bool
    #: digest of the derive function's syntax; None without one
    derive: str | None = None
    version: int = VERSION

    @classmethod
    def of(cls, pipeline: Pipeline, folder: Path) -> Self:
        """Return the header of a pipeline; `folder` holds its files."""
        derive = None
        if pipeline.derive is not None:
            source = (folder / pipeline.derive.function.partition(":")[0]).read_text(encoding="utf-8")
            derive = hashlib.sha256(ast.unparse(ast.parse(source)).encode()).hexdigest()[:16]
        definition = pipeline.model_dump(mode="json", by_alias=True)
        entities = [stage.entity for stage in plan_stages(pipeline)]
        has_ids = pipeline.time.duplicates_within_ms > 0
        return cls(definition, feature_set_hash(pipeline, folder), entities, has_ids, derive)

    @property
    def logs(self) -> tuple[str, ...]:
        """Names of the logs."""
        return (*map(log_name, self.entities), *([DUPLICATES] if self.has_ids else []))

    def encode(self) -> bytes:
        """Return the bytes that are stored: JSON, with the members of `take` and the like in their order."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote.

        Raises
        ------
        StateFormatError : it is of another version, or no header.
        """
        return decode_versioned(data, cls, "the header of stored state")

    def definition(self) -> Pipeline:
        """Return the pipeline that wrote the state.

        Raises
        ------
        StateFormatError : this code reads definitions otherwise.
        """
        try:
            return Pipeline.model_validate(self.pipeline)
        except ValidationError as error:
            msg = (
                f"the definition of the job that wrote the state is not valid here: {error}; use the code that wrote it"
            )
            raise StateFormatError(msg) from error


class _Version(msgspec.Struct):
    version: int


def decode_versioned(data: bytes, type_: type[T], what: str) -> T:
    """Read JSON that names its version; `what` is what errors call it."""
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version == VERSION:
            return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{what}: {len(data)} bytes that do not say what the state is of: {error}"
        raise StateFormatError(msg) from error
    msg = f"{what}: version {version}; this code reads {VERSION}; use the code that wrote it"
    raise StateFormatError(msg)
