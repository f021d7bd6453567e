"""Online rows as a reader gets them: what the store answered, and a clock -> typed values, age, and what has drained.

Pure: the answers are fetched by `udfs.online.reader`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from udfs.core.errors import did_you_mean
from udfs.core.online.schema import (
    Column,
    CurrentSchema,
    Expiry,
    OnlineStoreError,
    StoredRow,
    Value,
    current_key,
    decode_schema,
    row_key,
    schema_key,
    values_decoder,
)

_ROW, _CURRENT = msgspec.json.Decoder(StoredRow), msgspec.json.Decoder(CurrentSchema)


class FeatureRow(msgspec.Struct, frozen=True):
    """Features of one entity key, as of its newest event, less what has drained since."""

    entity: str
    key: str
    #: column -> value; the empty value of a window that reaches no event any more
    values: dict[str, Value]
    #: time of the newest event; None: no event is known, or all expired long ago
    event_time_ms: int | None
    #: clock of the reader minus event time; below 0 for an event ahead of the clock
    age_ms: int | None
    #: columns whose value is the empty one because no event is within reach
    drained: frozenset[str]
    #: hash of the feature set that computed the values
    feature_set: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What the store holds of some keys of an entity."""

    entity: str
    keys: Sequence[str]
    #: version of the current schema
    current: str
    #: per key
    rows: Sequence[StoredRow | None]

    @property
    def versions(self) -> set[str]:
        """Versions of the schemas that these must be read by."""
        return {self.current, *(row.schema for row in self.rows if row is not None)}


class SchemaBook:
    """Every schema seen so far, and the rows read by them.

    Parameters
    ----------
    prefix : name space of the store keys
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._layouts: dict[str, dict[str, _Layout]] = {}

    def answers(self, entity: str, keys: Sequence[str], texts: Sequence[bytes | None]) -> Answers:
        """Return what stands under `current_key` and the keys of the rows.

        Raises
        ------
        OnlineStoreError : nothing was written under the prefix, or a key holds something else.
        """
        current, *rows = texts
        if current is None:
            msg = f"{current_key(self._prefix)}: is not there; is the prefix right, and has its job written yet?"
            raise OnlineStoreError(msg)
        name = current_key(self._prefix)
        try:
            version = _CURRENT.decode(current).version
            found: list[StoredRow | None] = []
            for key, text in zip(keys, rows, strict=True):
                name = key
                found.append(None if text is None else _ROW.decode(text))
        except msgspec.MsgspecError as error:
            name = name if name == current_key(self._prefix) else row_key(self._prefix, entity, name)
            msg = f"{name}: holds no online row of this release; delete it: {error}"
            raise OnlineStoreError(msg) from error
        return Answers(entity, keys, version, found)

    def unknown(self, answers: Answers) -> list[str]:
        """Return the versions of the schemas that have to be learned first."""
        return [version for version in sorted(answers.versions) if version not in self._layouts]

    def learn(self, documents: Mapping[str, bytes | None]) -> None:
        """Take schemas as the store holds them, by version.

        Raises
        ------
        OnlineStoreError : one is not there, or cannot be read.
        """
        for version, document in documents.items():
            key = schema_key(self._prefix, version)
            if document is None:
                msg = (
                    f"{key}: is not there, but rows name it; start their job again, or delete all {self._prefix}:* keys"
                )
                raise OnlineStoreError(msg)
            schema = decode_schema(document, key)
            self._layouts[version] = {
                entity: _Layout(entity, columns, schema.feature_set) for entity, columns in schema.entities.items()
            }

    def rows(self, answers: Answers, now_ms: int) -> list[FeatureRow]:
        """Return one row per key; one that the store does not hold has the empty values of the current schema.

        Raises
        ------
        OnlineStoreError : the entity is unknown.
        """
        layouts = self._layouts[answers.current]
        layout = layouts.get(answers.entity)
        if layout is None:
            msg = f"{self._prefix}: has no entity {answers.entity!r}{did_you_mean(answers.entity, layouts)}"
            raise OnlineStoreError(msg)
        return [
            layout.missing(key) if row is None else self._layouts[row.schema][answers.entity].row(key, row, now_ms)
            for key, row in zip(answers.keys, answers.rows, strict=True)
        ]


class _Layout:
    """How to read the rows of one entity in one schema."""

    def __init__(self, entity: str, columns: Sequence[Column], feature_set: str) -> None:
        self._entity, self._feature_set = entity, feature_set
        self._names = tuple(column.name for column in columns)
        self._values = values_decoder([column.type for column in columns])
        self._empty = {column.name: column.empty for column in columns}
        groups: dict[Expiry, list[str]] = {}
        for column in columns:
            groups.setdefault(column.expiry, []).append(column.name)
        self._groups = [(expiry, frozenset(names)) for expiry, names in groups.items()]
        self._soonest_ms = min((expiry.reach_ms for expiry in groups), default=0)

    def missing(self, key: str) -> FeatureRow:
        return FeatureRow(self._entity, key, dict(self._empty), None, None, frozenset(self._empty), self._feature_set)

    def row(self, key: str, row: StoredRow, now_ms: int) -> FeatureRow:
        values = dict(zip(self._names, self._values.decode(row.values), strict=True))
        drained: frozenset[str] = frozenset()
        age_ms = now_ms - row.event_time_ms
        if age_ms > self._soonest_ms:  # what lapsed is out of reach, tile or not
            for expiry, names in self._groups:
                if expiry.lapsed(row.event_time_ms, now_ms):
                    drained |= names
            for name in drained:
                values[name] = self._empty[name]
        return FeatureRow(self._entity, key, values, row.event_time_ms, age_ms, drained, self._feature_set)
