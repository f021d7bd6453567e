"""Online rows: the newest feature values of each entity key of a batch, for a store that is read by key."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from udfs.core.batches import seq_column
from udfs.core.features import Stage


@dataclass(frozen=True, slots=True)
class OnlineRow:
    """Latest values of one entity key."""

    #: store key, the entity hash-tagged so that one entity's keys share a cluster slot
    key: str
    #: event time and sequence number: a row replaces another only if this pair is not smaller
    event_time_ms: int
    seq: int
    #: column -> value as text; null is the empty string
    values: dict[str, str]


def newest_rows(rows: pa.RecordBatch, stage: Stage, time_column: str, prefix: str) -> list[OnlineRow]:
    """Return one row per key of the stage's entity: the features at its newest (event time, sequence number).

    Parameters
    ----------
    rows : scored rows with the stage's columns
    stage : whose entity and features
    prefix : name space of the store keys
    """
    times = rows[time_column].to_numpy()
    seqs = rows[seq_column(stage.entity)].to_numpy()
    keys = rows[stage.entity].to_pylist()
    newest: dict[str, int] = {}
    for i in np.lexsort((seqs, times)).tolist():
        if keys[i] is not None:
            newest[keys[i]] = i
    columns = _columns(stage)
    taken = rows.select(columns).take(pa.array(list(newest.values()), pa.int64()))
    return [
        OnlineRow(
            f"{prefix}:{stage.entity}:{{{key}}}",
            int(times[i]),
            int(seqs[i]),
            {name: "" if row[name] is None else repr(row[name]) for name in columns},
        )
        for (key, i), row in zip(newest.items(), taken.to_pylist(), strict=True)
    ]


def _columns(stage: Stage) -> Sequence[str]:
    joined = [column for enrichment in stage.enrichments for column in enrichment.take]
    return [*(feature.name for feature in stage.features), *joined]
