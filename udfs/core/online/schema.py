"""The form of online rows: names of their keys, their text, and of each column its type, expiry and empty value.

A row is one JSON text under one key; the schema that says how to read it stands beside the rows, once per version. No
pyarrow and no service in here: readers are light.
"""

import hashlib
import re
from collections.abc import Sequence
from types import GenericAlias
from typing import Any

import msgspec

from udfs.core.errors import HeadraceError

#: an entity key: the text, or the parts of the key of an entity of several fields
Key = str | tuple[str, ...]
Value = float | int | bool | str | list[Any] | dict[Any, Any] | None
SCALARS: dict[str, type] = {"float64": float, "int64": int, "bool": bool, "string": str}
FORMAT = 1


class OnlineStoreError(HeadraceError):
    """The online store cannot be used as asked; names key, entity or column."""


class Expiry(msgspec.Struct, frozen=True):
    """When a value of an event at time t has nothing left of it at clock T.

    That is when floor((t - origin) / tile) < floor((T - reach - origin) / tile): the event's tile lies before the
    oldest tile that a window read at T would hold. The width of a tile is 1 ms where the window has none.

    Examples
    --------
    >>> hour = Expiry(reach_ms=3_600_000, tile_ms=60_000)
    >>> hour.lapsed(90_000, 3_660_000 + 59_999), hour.lapsed(90_000, 3_660_000 + 60_000)
    (False, True)
    """

    #: size and delay of a sliding window, gap of a session, age that a joined row may have, 0 for a tumbling window
    reach_ms: int
    tile_ms: int = 1
    #: start of some tile
    origin_ms: int = 0

    def lapsed(self, event_time_ms: int, now_ms: int) -> bool:
        """Return whether the newest event of a key, at `event_time_ms`, is out of reach at `now_ms`."""
        oldest = (now_ms - self.reach_ms - self.origin_ms) // self.tile_ms
        return (event_time_ms - self.origin_ms) // self.tile_ms < oldest


class Column(msgspec.Struct, frozen=True):
    """One column of an entity's rows."""

    name: str
    #: `float64`, `int64`, `bool`, `string`, `list<…>` or `map<…, …>` of these
    type: str
    expiry: Expiry
    #: value of the column where no event is within reach
    empty: Value = None


class OnlineSchema(msgspec.Struct, frozen=True):
    """All that one version of a pipeline writes."""

    feature_set: str
    #: entity -> its columns, as declared
    entities: dict[str, tuple[Column, ...]]
    format: int = FORMAT

    @property
    def version(self) -> str:
        """SHA-256 of its content, first 16 hex digits: what a row names its schema by."""
        return hashlib.sha256(self.encode()).hexdigest()[:16]

    def encode(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.encode(self)


class _Format(msgspec.Struct):
    format: int


class StoredRow(msgspec.Struct, array_like=True, frozen=True):
    """What stands under the key of a row, as a JSON array; `online_fence` says which of two is newer."""

    event_time_ms: int
    started_ms: int
    attempt: int
    seq: int
    #: version of the schema
    schema: str
    #: the columns of the schema, in its order
    values: msgspec.Raw


class CurrentSchema(msgspec.Struct, array_like=True, frozen=True):
    """What stands under `current_key`, as a JSON array: the schema of the writer that was started last."""

    started_ms: int
    version: str


def decode_schema(data: bytes, key: str) -> OnlineSchema:
    """Read what `OnlineSchema.encode` wrote.

    Parameters
    ----------
    key : where it stands, for the error

    Raises
    ------
    OnlineStoreError : it is no schema, or one of a format this code does not read.
    """
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found == FORMAT:
            return msgspec.json.decode(data, type=OnlineSchema)
    except msgspec.MsgspecError as error:
        msg = f"{key}: holds no schema of online rows: {error}"
        raise OnlineStoreError(msg) from error
    msg = f"{key}: the schema has format {found}; this reader knows {FORMAT}: use that of the job's release"
    raise OnlineStoreError(msg)


def key_text(key: Key) -> str:
    r"""Return the text of a key; parts are joined as the job joins fields, see `entities.add_entity`.

    Examples
    --------
    >>> key_text("JFK"), key_text(("a|b", "c"))
    ('JFK', 'a\\|b|c')
    """
    if isinstance(key, str):
        return key
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in key)


def row_key(prefix: str, entity: str, key: str) -> str:
    """Return the store key of an entity key, which is its hash tag; no two entity keys share one.

    Braces and percent signs of the key are percent-encoded, so that the tag is always the whole key.

    Examples
    --------
    >>> row_key("flights", "origin", "JFK"), row_key("flights", "origin", "{a}:50%")
    ('flights:origin:{JFK}', 'flights:origin:{%7Ba%7D:50%25}')
    """
    # An empty tag would be none: the cluster would hash the whole store key. A lone % stands for no other key.
    text = key.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") or "%"
    return f"{prefix}:{entity}:{{{text}}}"


def current_key(prefix: str) -> str:
    """Return the store key of the `CurrentSchema`."""
    return f"{prefix}:schema"


def schema_key(prefix: str, version: str) -> str:
    """Return the store key of the schema of a version."""
    return f"{prefix}:schema:{version}"


def values_decoder(types: Sequence[str]) -> "msgspec.json.Decoder[tuple[Value, ...]]":
    """Return the decoder of the values of a row.

    Examples
    --------
    >>> values_decoder(["float64", "list<string>", "map<string, float64>"]).decode(b'[0.1,["a",null],{"a":2.0}]')
    (0.1, ['a', None], {'a': 2.0})
    """
    columns = tuple(_python_type(one) | None for one in types)
    return msgspec.json.Decoder(GenericAlias(tuple, columns or ((),)))


def _python_type(type_name: str) -> Any:
    if type_name in SCALARS:
        return SCALARS[type_name]
    if (match := re.fullmatch(r"list<(\w+)>", type_name)) and match[1] in SCALARS:
        return GenericAlias(list, (SCALARS[match[1]] | None,))
    if (match := re.fullmatch(r"map<(string|int64), (\w+)>", type_name)) and match[2] in SCALARS:
        return GenericAlias(dict, (SCALARS[match[1]], SCALARS[match[2]] | None))
    msg = f"online rows: type {type_name!r} is unknown; this reader is older than the job that wrote it"
    raise OnlineStoreError(msg)
