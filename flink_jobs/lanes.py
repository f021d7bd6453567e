"""The adapter between SQL and Python: cuts a topic into lanes of micro-batches in the JVM, and keys streams by lane.

All use of PyFlink's private names is here; `tests/flink/test_lanes.py` holds it to what it promises.
"""

from pyflink.common import Row, TypeInformation, Types
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.data_stream import KeyedStream
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment

from flink_jobs.sources import epoch_ms
from flink_jobs.uids import name_operators
from udfs.batch_rows import FLAG_BITS, NULL_KEY, NULL_VALUE, RAW_TYPE

BATCH_TYPE = Types.ROW([Types.INT(), RAW_TYPE])
KEY_TYPE = Types.ROW([Types.INT()])


def lanes_of_topic(
    tables: StreamTableEnvironment,
    table: str,
    options: dict[str, str],
    linger_ms: int,
    lane_keys: list[int],
    watermark: str = "",
) -> DataStream:
    """Return a topic as micro-batches, see `lanes_of_table`.

    Any bytes are read and nothing is parsed, so nothing can fail here.

    Parameters
    ----------
    options : connector options of the Kafka table, its topic among them
    watermark : SQL behind the columns of the table, see `flink_jobs.sources.watermark`; nothing else looks at it
    """
    tables.execute_sql(f"""
        CREATE TABLE {table} (
          v BYTES, k BYTES,
          part INT METADATA FROM 'partition' VIRTUAL,
          off BIGINT METADATA FROM 'offset' VIRTUAL,
          ts TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
          pt AS PROCTIME(){watermark}
        ) WITH ({with_clause(options)})""")
    return lanes_of_table(tables, table, options["topic"], linger_ms, lane_keys)


def lanes_of_table(
    tables: StreamTableEnvironment, table: str, topic: str, linger_ms: int, lane_keys: list[int]
) -> DataStream:
    """Return a table of records as micro-batches, rows of `BATCH_TYPE`, each holding those of one lane in their order.

    The lane of a record is `ABS(MOD(HASH_CODE(key), lanes))`, 0 for a null key, as in `udfs.core.rows.lanes.lane_of`.

    Parameters
    ----------
    table : with the columns of `lanes_of_topic`; unique in the job; the uids of its operators follow from its name
    topic : what the batches say they are of
    linger_ms : how long records are collected, in processing time
    lane_keys : see `udfs.core.rows.lanes.lane_keys`
    """
    numbers = ", ".join(str(key) for key in lane_keys)
    batches = tables.to_data_stream(
        tables.sql_query(f"""
        SELECT lane AS f0, ROW(CAST('{topic}' AS STRING), v, k, part, off, ts) AS f1 FROM (
          SELECT lane, ARRAY_AGG(v) AS v, ARRAY_AGG(k) AS k, ARRAY_AGG(part) AS part, ARRAY_AGG(off) AS off,
                 ARRAY_AGG(ts) AS ts
          FROM TABLE(TUMBLE((
            SELECT COALESCE(v, X'') AS v, COALESCE(k, X'') AS k, off, pt,
                   part * {1 << FLAG_BITS} + CASE WHEN v IS NULL THEN {NULL_VALUE} ELSE 0 END
                                           + CASE WHEN k IS NULL THEN {NULL_KEY} ELSE 0 END AS part,
                   {epoch_ms("ts")} AS ts,
                   ARRAY[{numbers}][COALESCE(ABS(MOD(HASH_CODE(CAST(k AS STRING)), {len(lane_keys)})), 0) + 1] AS lane
            FROM {table}), DESCRIPTOR(pt), INTERVAL '{linger_ms / 1000:.3f}' SECOND))
          GROUP BY lane, window_start, window_end)""")
    )
    transformation = batches._j_data_stream.getTransformation()
    # The planner's own type for the row is one that Python operators cannot read.
    transformation.setOutputType(BATCH_TYPE.get_java_type_info())
    # State is laid out by lanes: with another number of them Flink must find no state, and refuse, not mix them up.
    name_operators(transformation, f"{table}-of-{len(lane_keys)}")
    return batches


def first_batches(flink: StreamExecutionEnvironment, topic: str, lane_keys: list[int]) -> DataStream:
    """Return a batch without records for each lane, so that all begin at once, whether or not records come."""
    rows = [Row(key, Row(topic, [], [], [], [], [])) for key in lane_keys]
    return flink.from_collection(rows, BATCH_TYPE).uid("bootstrap").name("bootstrap")


def by_lane(stream: DataStream, value_type: TypeInformation) -> KeyedStream:
    """Key a stream of (Flink key of the lane, value) by lane; the operator behind it gets the value alone.

    `DataStream.key_by` would add a Python operator only to compute the key, a third of all CPU: here it is in front.
    """
    keyed = stream._j_data_stream.keyBy(get_gateway().jvm.KeyByKeySelector(), KEY_TYPE.get_java_type_info())
    return KeyedStream(keyed, value_type, stream)


def with_clause(options: dict[str, str]) -> str:
    """Return connector options as SQL text."""
    return ", ".join("'{}' = '{}'".format(*(part.replace("'", "''") for part in pair)) for pair in options.items())
