"""How a record of a topic becomes a row of the archive, as SQL; the columns are those of `udfs.core.offline.archive`.

Each query reads the columns v, k, part, off, ms (Kafka timestamp, epoch ms) and h (headers) of a table, and nothing in
it can fail: what is not there or not readable is null. Text is cut by patterns that only whole JSON values match, and
numbers are cast from their own text, so that a float64 keeps its bits.
"""

import pyarrow as pa

from udfs.core.declare.definition import Pipeline
from udfs.core.offline.archive import ArchiveKind, archive_schema, archived_features, archived_topics, stamp_columns

STRING = r'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"'
PLAIN = r'"[^"\\]*+"'  # what has no escapes
WHOLE = r"-?[0-9]{1,18}+"  # fits int64
SHORT = r"-?[0-9]{1,9}+"  # fits int32
NUMBER = r"-?[0-9]++(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+"
SCORES = rf"(?:{PLAIN}:{NUMBER},?+)++"
END = r"(?![\s\S])"  # `$` would let a line break follow
VECTOR = rf"{NUMBER}(?:,{NUMBER})*+"
DAYS_MS = (-62_135_596_800_000, 253_402_300_799_999)
"""The years 1 to 9999: no day has a name for an event time beyond them."""
UTF8 = "CASE WHEN CAST(CAST(v AS STRING) AS BYTES) = v THEN CAST(v AS STRING) END"
LARGEST = "1.7976931348623157E308"
OF_KIND = {
    "rejects": "COALESCE({reason}, '') NOT IN ('late', 'kept')",
    "late": "{reason} = 'late'",
    "order": "{reason} = 'kept'",
}
"""Which letters are of a kind, where kinds share a topic."""
Rows = tuple[dict[str, str], str]
"""Expressions of the columns and the day, and what they are taken from."""


def rows_of(table: str, pipeline: Pipeline, kind: ArchiveKind) -> str:
    """Return the query of the rows of a kind: the columns of its schema, in their order, and the day."""
    if kind == "predictions":
        columns, source = _predictions(table, pipeline)
    elif kind == "labels":
        columns, source = _labels(table, pipeline)
    else:
        columns, source = _letters(table)
    columns |= {"record_partition": "part", "record_offset": "off", "record_timestamp_ms": "ms"}
    selected = ", ".join(f"{columns[name]} AS `{name}`" for name in archive_schema(pipeline, kind).names)
    topics = archived_topics(pipeline)
    shares = list(topics.values()).count(topics[kind]) > 1
    mine = f" WHERE {OF_KIND[kind].format(reason=columns['reason'])}" if shares else ""
    return f"SELECT {selected}, {columns['day']} AS `day` FROM {source}{mine}"


def sql_type(type_: pa.DataType) -> str:
    """Return the SQL type of a column.

    Examples
    --------
    >>> sql_type(pa.map_(pa.string(), pa.binary()))
    'MAP<STRING, BYTES>'
    """
    if pa.types.is_map(type_):
        return f"MAP<{sql_type(type_.key_type)}, {sql_type(type_.item_type)}>"
    if pa.types.is_list(type_):
        return f"ARRAY<{sql_type(type_.value_type)}>"
    names = {pa.string(): "STRING", pa.binary(): "BYTES", pa.int32(): "INT", pa.int64(): "BIGINT"}
    return (names | {pa.float64(): "DOUBLE"})[type_]


def prediction_pattern(pipeline: Pipeline) -> str:
    """Return the pattern of a prediction whose columns say all of it: what `PredictionWriter` writes for the pipeline.

    Possessive throughout: it takes time in proportion to the text, and no stack, whatever the text is.
    """
    model = rf'"model":\{{"name":{PLAIN},"version":{PLAIN},"sha256":{PLAIN}\}}'
    origin = rf'"topic":{PLAIN},"partition":{SHORT},"offset":{WHOLE},"timestamp_ms":{WHOLE}'
    stamps = ",".join(rf'"{entity}":\[{SHORT},{WHOLE}\]' for entity in stamp_columns(pipeline))
    features = ",".join(rf'"{feature}":(?:{NUMBER}|null)' for feature in archived_features(pipeline))
    parts = (
        rf'"event_id":{STRING},"event_time_ms":{WHOLE},(?:"score":{NUMBER},)?+{model},"arm":{PLAIN}',
        rf'"feature_set":{PLAIN},"origin":\{{{origin}\}},"order":\{{{stamps}\}}',
        *([rf'"features":\{{{features}\}}'] if features else []),
    )
    outputs = rf'(?:,"label":{STRING},"scores":\{{{SCORES}\}})?+(?:,"vector":\[{VECTOR}\])?+'
    return r"^\{" + ",".join(parts) + outputs + r"\}" + END


def _predictions(table: str, pipeline: Pipeline) -> Rows:
    """Cut a prediction into head, order stamps, features and outputs.

    In JSON text a quote within a string has a backslash before it, so `,"order":{` and its like stand in one place
    only. Members of the head and the outputs are looked for by name; stamps and features by their place, in a record
    that is as the pattern says.
    """

    def member(name: str, pattern: str) -> str:
        return _find("parts[1]", f'"{name}":{pattern}[,}}]')

    columns = {
        "event_id": "event_id",
        "event_time_ms": "event_time_ms",
        "score": f"CAST({member('score', f'({NUMBER})')} AS DOUBLE)",
        "predicted_label": f"JSON_UNQUOTE({_find('parts[2]', LABEL_MEMBER)})",
        "scores": f"CAST({_members(_find('parts[2]', SCORES_MEMBER))} AS MAP<STRING, DOUBLE>)",
        "vector": f"CAST(SPLIT({_find('parts[2]', VECTOR_MEMBER)}, ',') AS ARRAY<DOUBLE>)",
        "origin_partition": f"CAST({member('partition', f'({SHORT})')} AS INT)",
        "origin_offset": f"CAST({member('offset', f'({WHOLE})')} AS BIGINT)",
        "origin_timestamp_ms": f"CAST({member('timestamp_ms', f'({WHOLE})')} AS BIGINT)",
        "key": "CASE WHEN whole AND k = CAST(event_id AS BYTES) THEN CAST(NULL AS BYTES) ELSE k END",
        "value": "CASE WHEN whole THEN CAST(NULL AS BYTES) ELSE v END",
        "day": _day("event_time_ms"),
    }
    columns |= {name: member(key, '"([^"\\\\]*+)"') for name, key in HEAD_STRINGS.items()}
    for i, (lane, seq) in enumerate(stamp_columns(pipeline).values()):
        columns |= {lane: f"CAST(stamps[{2 * i + 1}] AS INT)", seq: f"CAST(stamps[{2 * i + 2}] AS BIGINT)"}
    for i, column in enumerate(archived_features(pipeline).values(), start=1):
        columns[column] = f"CAST(NULLIF(features[{i}], 'null') AS DOUBLE)"
    pattern = _text(prediction_pattern(pipeline))
    source = _once(table, "text", UTF8)
    source = _once(source, "whole", f"COALESCE(REGEXP(text, {pattern}), FALSE)")
    plain, regular = "text", "whole"
    columns |= dict.fromkeys(STAMPS, "CAST(NULL AS STRING)")
    if _may_say_more(pipeline):  # the value is kept, as no column says what shadows and parts gave
        # A text within a string has a backslash before its quotes: the mark is of the member, or there is none.
        columns |= {name: _find("text", f',"{name}":"([^"\\\\]*+)"') for name in STAMPS}
        plain, regular = "plain", "regular"
        source = _once(source, plain, _without_more())
        source = _once(source, regular, f"COALESCE(REGEXP(plain, {pattern}), FALSE)")
    source = _once(
        source, "parts", f"SPLIT(CASE WHEN {regular} OR text IS JSON OBJECT THEN {plain} END, ',\"order\":{{')"
    )
    event_id, time = member("event_id", f"({STRING})"), member("event_time_ms", f"({WHOLE})")
    stamps = "REGEXP_EXTRACT_ALL(SPLIT_INDEX(parts[2], '}', 0), '(-?[0-9]++)[],]', 1)"
    features = "REGEXP_EXTRACT_ALL(SPLIT_INDEX(parts[2], '}', 1), '\":([-0-9n][^,]*+)', 1)"
    cut = (
        f"JSON_UNQUOTE({event_id})",
        f"CAST({time} AS BIGINT)",
        *(f"CASE WHEN {regular} THEN {x} END" for x in (stamps, features)),
    )
    return columns, _once(source, "event_id, event_time_ms, stamps, features", f"ROW({', '.join(cut)})")


STAMPS = ("routing", "status")
MORE = (*(f',"{name}":"' for name in STAMPS), ',"shadow":{', ',"parts":{')
"""How the members begin that only pipelines with several models write; they stand at the end, in this order."""


def _may_say_more(pipeline: Pipeline) -> bool:
    return len(pipeline.model.models) > 1 or bool(pipeline.model.serving.fallback)


def _without_more() -> str:
    """Return the text of a prediction as a single model would write it.

    In JSON text a quote within a string has a backslash before it, so a mark stands where its member begins alone.
    """
    cut = "text"
    for mark in MORE:
        cut = f"SPLIT({cut}, {_text(mark)})[1]"
    return f"CASE WHEN {cut} = text THEN text ELSE {cut} || '}}' END"


HEAD_STRINGS = {
    "model_name": "name",
    "model_version": "version",
    "model_sha256": "sha256",
    "arm": "arm",
    "feature_set": "feature_set",
    "origin_topic": "topic",
}
LABEL_MEMBER = f',"label":({STRING})'
SCORES_MEMBER = rf',"scores":\{{({SCORES})\}}'
VECTOR_MEMBER = rf'\}},"vector":\[({VECTOR})\]'


def _letters(table: str) -> Rows:
    def header(name: str) -> str:
        return f"CAST(h['headrace.{name}'] AS STRING)"

    columns = {
        "origin_topic": header("topic"),
        "origin_partition": f"TRY_CAST({header('partition')} AS INT)",
        "origin_offset": f"TRY_CAST({header('offset')} AS BIGINT)",
        "origin_timestamp_ms": "origin_ms",
        "stage": header("stage"),
        "reason": header("reason"),
        "detail": header("detail"),
        "stamps": header("order"),
        "headers": "h",
        "key": "k",
        "value": "v",
        "day": _day("origin_ms"),
    }
    return columns, _once(table, "origin_ms", f"TRY_CAST({header('timestamp_ms')} AS BIGINT)")


def _labels(table: str, pipeline: Pipeline) -> Rows:
    """Read three fields of the JSON object, each as the text of its value; what is of another type is null."""
    if pipeline.label is None:
        msg = f"pipeline {pipeline.name} declares no label"
        raise ValueError(msg)
    contract, of = pipeline.label.contract, pipeline.label.of

    def field(name: str | None) -> str:
        if name is None:
            return "CAST(NULL AS STRING)"
        return _find(f"JSON_QUERY(text, 'lax $.{name}' WITH UNCONDITIONAL WRAPPER)", r"(?s)^\[(.*)\]$")

    # The JSON functions keep no sign of a zero.
    negative = _text(rf'"{of}"\s*:\s*-')
    zero = f"REGEXP(number, '^0[.0]*(E.*)?$') AND REGEXP(text, {negative})"
    number = f"TRY_CAST(CASE WHEN {zero} THEN '-' || number ELSE number END AS DOUBLE)"
    columns = {
        "event_id": "CASE WHEN id LIKE '\"%' THEN JSON_UNQUOTE(id) END",
        "event_time_ms": "event_time_ms",
        "label": f"CASE WHEN label BETWEEN -{LARGEST} AND {LARGEST} THEN label END",
        "key": "k",
        "value": "v",
        "day": _day("event_time_ms"),
    }
    source = _once(table, "text", UTF8)
    fields = ", ".join(field(name) for name in (contract.id, contract.time, of))
    source = _once(source, "id, moment, number", f"ROW({fields})")
    time = "CASE WHEN REGEXP(moment, '^-?[0-9]++$') THEN TRY_CAST(moment AS BIGINT) END"
    label = f"CASE number WHEN 'true' THEN CAST(1 AS DOUBLE) WHEN 'false' THEN CAST(0 AS DOUBLE) ELSE {number} END"
    return columns, _once(source, "event_time_ms, label", f"ROW({time}, {label})")


def _once(source: str, names: str, value: str) -> str:
    """Return a source with more columns, computed once; a subquery would be computed for each use of them."""
    return f"{source} CROSS JOIN UNNEST(ARRAY[{value}]) AS T_{names.partition(',')[0]}({names})"


def _find(text: str, pattern: str) -> str:
    """Return the group of the first match. REGEXP_EXTRACT would do, but compiles its pattern for every row."""
    return f"REGEXP_EXTRACT_ALL({text}, {_text(pattern)}, 1)[1]"


def _members(text: str) -> str:
    """Return name -> text of value, of a flat JSON object without escapes that is given without its braces."""
    return f"STR_TO_MAP(SUBSTRING({text}, 2), ',\"', '\":')"


def _day(time_ms: str) -> str:
    """Return the UTC day of an event time, that of the record's Kafka timestamp where there is none."""
    time = f"CASE WHEN {time_ms} BETWEEN {DAYS_MS[0]} AND {DAYS_MS[1]} THEN {time_ms} ELSE ms END"
    return f"DATE_FORMAT(TO_TIMESTAMP_LTZ({time}, 3), 'yyyy-MM-dd')"


def _text(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))
