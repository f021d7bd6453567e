"""Checks of feature groups against the rest of their pipeline: columns, types, streams, names."""

from collections.abc import Iterable, Mapping, Sequence

from udfs.core.declare.conditions import Condition
from udfs.core.declare.contract import vector_size
from udfs.core.declare.declarations import Enrichment
from udfs.core.declare.expansion import group_features
from udfs.core.declare.feature_groups import FeatureGroup
from udfs.core.errors import did_you_mean
from udfs.core.sketches import TEXT_KINDS, Sketch

#: column -> field type; None where only a lookup file knows it
Types = Mapping[str, str | None]
TEXT_TAKES = {"count", "distinct", "unique", "top_k", "time_since_first", "time_since_last", "decayed_count", "rate"}
NUMBERS = ("int64", "float64", "bool", None)
TEXT_TAKES |= {"ratio", *TEXT_KINDS}
"""Aggregations that take text as it is, or only ask whether there is a value."""


def check_groups(
    groups: Sequence[FeatureGroup], enrichments: Sequence[Enrichment], fields: Types, columns: Types
) -> None:
    """Raise ValueError, naming the place, for the first group that does not fit.

    Parameters
    ----------
    groups, enrichments : as declared
    fields : fields of the events
    columns : fields, lookups and derived columns of the events
    """
    strings = [name for name, kind in fields.items() if kind == "string"]
    streams = {one.name: one for one in enrichments}
    taken = [*columns, *(column for one in enrichments for column in one.take)]
    entities: dict[str, tuple[str, ...]] = {}
    types = []
    for position, group in enumerate(groups):
        path = f"features[{position}]"
        for name in group.fields:
            if name not in strings:
                msg = f"{path}.entity: got {name!r}, which is no string field of the contract"
                raise ValueError(msg + did_you_mean(name, strings))
        others = entities.setdefault(group.entity_name, group.fields)
        if others != group.fields or (len(group.fields) > 1 and group.entity_name in taken):
            whose = "which is a column" if others == group.fields else f"as {list(others)} do"
            msg = f"{path}.entity: its fields make the name {group.entity_name!r}, {whose}; reorder them"
            raise ValueError(msg)
        known = columns
        if group.stream is not None:
            known = _stream(path, group, streams)
        types.append(known)
        _check_columns(path, group, known)
        for window in group.over:
            if window.session_from is not None:
                check_condition(f"{path}.over.session_from", window.session_from, known)
    _check_names(list(zip(groups, types, strict=True)), [*taken, *entities])


def check_condition(path: str, condition: Condition, known: Types) -> None:
    """Raise ValueError for a column that is not there, or types that do not compare; unknown types are let through."""
    for name in condition.columns:
        if name not in known:
            msg = f"{path}: {name!r} is no column known here{did_you_mean(name, known)}"
            raise ValueError(msg)
    if all(known[name] is not None for name in condition.columns):
        try:
            condition.check({name: known[name] or "" for name in condition.columns})
        except ValueError as error:
            msg = f"{path}: {error}"
            raise ValueError(msg) from None


def _stream(path: str, group: FeatureGroup, streams: Mapping[str, Enrichment]) -> Types:
    """Return the fields of the stream that a group looks at."""
    enrichment = streams.get(group.stream or "")
    if enrichment is None:
        msg = f"{path}.from: got {group.stream!r}, which is no enrichment{did_you_mean(group.stream or '', streams)}"
        raise ValueError(msg)
    if enrichment.entity != group.entity_name:
        got = group.entity_name
        msg = f"{path}.from: {group.stream!r} is matched with entity {enrichment.entity!r}; got entity {got!r}"
        raise ValueError(msg)
    if any(one.name == "delta" for one in group.take):
        msg = f"{path}.take.delta: needs the event's own value, and the event is none of {group.stream!r}; take lag"
        raise ValueError(msg)
    return {name: spec.kind for name, spec in enrichment.contract.fields.items()}


def _check_columns(path: str, group: FeatureGroup, known: Types) -> None:
    numbers = [name for name, kind in known.items() if kind in NUMBERS]
    is_text = group.of is not None and known.get(group.of, "") == "string"
    takes_text = all(one.name in TEXT_TAKES for one in group.take)
    if group.of is not None and (group.of not in known or (is_text and not takes_text)):
        kinds = "column" if takes_text else "number column"
        msg = f"{path}.of: got {group.of!r}, which is no {kinds} known here"
        raise ValueError(msg + did_you_mean(group.of, known if takes_text else numbers))
    for one in group.take:
        if one.other is not None and one.other not in numbers:
            msg = f"{path}.take.{one.name}: got {one.other!r}, which is no number column known here"
            raise ValueError(msg + did_you_mean(one.other, numbers))
        if one.flag is not None:
            check_condition(f"{path}.take.{one.name}", one.flag, known)
    is_vector = vector_size(known.get(group.of or "")) is not None
    if is_vector and (group.by or any(isinstance(one.aggregation, Sketch) or one.other for one in group.take)):
        msg = f"{path}.of: {group.of!r} is a vector, which goes with aggregations of numbers, each element by itself"
        raise ValueError(msg)
    needs_tiles = [one.name for one in group.take if isinstance(one.aggregation, Sketch)]
    needs_tiles += [f"by: {group.by}"] if group.by else []
    needs_tiles += [one.name for one in group.take if is_text and one.name in TEXT_KINDS]
    others = [one.suffix for one in group.over if one.kind not in ("sliding", "tumbling", "lifetime")]
    if needs_tiles and others:
        msg = f"{path}.over: {needs_tiles[0]} looks at sliding, tumbling and lifetime windows; got {others[0]}"
        raise ValueError(msg)
    # A bucket has no second column, and the event is none of most of them.
    unfit = [one.name for one in group.take if isinstance(one.aggregation, Sketch) or one.other or one.name == "delta"]
    unfit += [one.name for one in group.take if is_text and one.name in TEXT_KINDS]
    if group.by is not None and unfit:
        msg = f"{path}.by: goes with aggregations of numbers, each by itself; got {', '.join(unfit)}"
        raise ValueError(msg)
    if group.where is not None:
        check_condition(f"{path}.where", group.where, known)
    if group.by is not None and known.get(group.by, "") != "string":
        strings = [name for name, kind in known.items() if kind == "string"]
        msg = f"{path}.by: got {group.by!r}, which is no string column known here{did_you_mean(group.by, strings)}"
        raise ValueError(msg)


def _check_names(groups: Sequence[tuple[FeatureGroup, Types]], columns: Iterable[str]) -> None:
    """Refuse two features of one name, also when they differ in what the name does not say, such as the slide."""
    origin_of: dict[str, str] = dict.fromkeys(columns, "as a column that is no feature")
    for position, (group, known) in enumerate(groups):
        here = f"in features[{position}]"
        for name in (feature.name for feature in group_features(group, known)):
            if name in origin_of:
                msg = f"feature {name!r} stands twice: {origin_of[name]}, and {here}; keep one, or name one with `as`"
                raise ValueError(msg)
            origin_of[name] = here
