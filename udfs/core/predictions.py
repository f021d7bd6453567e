"""Predictions: what is written for each scored event, with the evidence to check it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.core.batches import OFFSET, PARTITION, TIMESTAMP_MS, lane_column, seq_column
from udfs.core.model import ModelContract

RECORD_SEPARATOR, KEY_SEPARATOR = "\x1e", "\x1f"
"""Between records and between key and value: JSON text cannot hold them, event ids may not (`validation.id_rule`)."""


class PredictionWriter:
    """Encodes the scored rows of a batch as text, one JSON object per event.

    Parameters
    ----------
    contract : the model that scored
    arm : which part the model plays, such as `champion`
    id_column, time_column : the event's id and event time
    features : columns written into `features`; empty leaves it out
    entities : entities of the stages passed, for the order stamps
    """

    def __init__(
        self,
        contract: ModelContract,
        arm: str,
        id_column: str,
        time_column: str,
        features: Sequence[str],
        entities: Sequence[str],
    ) -> None:
        self._id, self._time = id_column, time_column
        self._features, self._entities = tuple(features), tuple(entities)
        self._evidence = {
            "model": {"name": contract.name, "version": contract.version, "sha256": contract.sha256},
            "arm": arm,
            "feature_set": contract.feature_set,
        }

    def write(self, topic: str, rows: pa.RecordBatch, scores: NDArray[np.float32]) -> str:
        """Return `key <US> JSON` of each row, joined by <RS>; the key is the event id.

        Scores are written as the exact value of the model's float32; features as the shortest text of their float64.
        """
        if rows.num_rows == 0:
            return ""
        ids, times = rows[self._id].to_pylist(), rows[self._time].to_pylist()
        origins = zip(*(rows[name].to_pylist() for name in (PARTITION, OFFSET, TIMESTAMP_MS)), strict=True)
        stamps = zip(*(self._stamp(rows, entity) for entity in self._entities), strict=True)
        features = zip(*(rows[name].to_pylist() for name in self._features), strict=True)
        records = []
        for event_id, time_ms, score, origin, stamp, values in zip(
            ids, times, scores.tolist(), origins, stamps, features if self._features else [()] * len(ids), strict=True
        ):
            prediction: dict[str, Any] = {"event_id": event_id, "event_time_ms": time_ms, "score": score}
            prediction |= self._evidence
            if values:
                prediction["features"] = dict(zip(self._features, values, strict=True))
            prediction["origin"] = {
                "topic": topic, "partition": origin[0], "offset": origin[1], "timestamp_ms": origin[2],
            }  # fmt: skip
            prediction["order"] = dict(zip(self._entities, stamp, strict=True))
            records.append(event_id + KEY_SEPARATOR + _ENCODE(prediction).decode())
        return RECORD_SEPARATOR.join(records)

    def _stamp(self, rows: pa.RecordBatch, entity: str) -> list[tuple[int, int]]:
        lanes, seqs = rows[lane_column(entity)].to_pylist(), rows[seq_column(entity)].to_pylist()
        return list(zip(lanes, seqs, strict=True))


_ENCODE = msgspec.json.Encoder().encode
