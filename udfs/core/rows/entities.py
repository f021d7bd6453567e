"""Entity keys: the column that a stage is keyed by, also where several fields make the key."""

import pyarrow as pa
import pyarrow.compute as pc

from udfs.core.rows.batches import add_columns

SEPARATOR, ESCAPE = "|", "\\"


def add_entity(rows: pa.RecordBatch, entity: str, fields: tuple[str, ...]) -> pa.RecordBatch:
    r"""Return `rows` with the key column of an entity of several fields, unless it is there.

    The parts are joined by `|`, which is written `\|` within them, so that different parts never give one key; a row
    that lacks a part has no key.

    Examples
    --------
    >>> rows = pa.RecordBatch.from_pydict({"user": ["a", "a|b", None], "shop": ["b|c", "c", "d"]})
    >>> add_entity(rows, "user_shop", ("user", "shop"))["user_shop"].to_pylist()
    ['a|b\\|c', 'a\\|b|c', None]
    """
    if len(fields) == 1 or entity in rows.schema.names:
        return rows
    parts = [
        pc.replace_substring(pc.replace_substring(rows[field], ESCAPE, ESCAPE * 2), SEPARATOR, ESCAPE + SEPARATOR)
        for field in fields
    ]
    return add_columns(rows, {entity: pc.binary_join_element_wise(*parts, SEPARATOR)})
