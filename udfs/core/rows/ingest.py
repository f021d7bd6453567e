"""Ingest: raw records of a topic -> a piece of good rows with all stateless columns, plus the letters of the rest.

Decode, rules, lookups and derived columns, in this order. Everything here is row by row: no state, no neighbours.
"""

from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from udfs.core.declare.contract import Contract
from udfs.core.declare.declarations import Enrichment
from udfs.core.declare.definition import Pipeline
from udfs.core.rows.batches import Piece, RawBatch, add_columns, join_batches
from udfs.core.rows.decoding import Decoder
from udfs.core.rows.derive import Deriver
from udfs.core.rows.letters import to_batch
from udfs.core.rows.lookups import LookupTable
from udfs.core.rows.validation import Rule, apply_rules, bound_rules, future_rule, id_rule, letter_of, past_rule

LOOKUP_STAGE, DERIVE_STAGE = "lookup", "derive"


class Ingest:
    """The stateless part of the path for one topic.

    Parameters
    ----------
    contract, key : contract of the topic, and its field that the Kafka key repeats
    future_tolerance_ms : how far event time may be ahead of the Kafka timestamp
    lookups, deriver : what adds columns
    """

    def __init__(
        self,
        contract: Contract,
        key: str,
        future_tolerance_ms: int,
        lookups: list[LookupTable] | None = None,
        deriver: Deriver | None = None,
    ) -> None:
        self._decoder = Decoder(contract, key)
        self._key = key
        self._rules: list[Rule] = [
            *([id_rule(contract)] if contract.id else []),
            *bound_rules(contract),
            past_rule(contract),
            future_rule(contract, future_tolerance_ms),
        ]
        self._lookups = lookups or []
        self._deriver = deriver

    @classmethod
    def of_source(cls, pipeline: Pipeline, folder: Path) -> Self:
        """Return the ingest of the pipeline's source topic."""
        return cls(
            pipeline.contract,
            pipeline.source.key,
            pipeline.time.future_tolerance_ms,
            [LookupTable(lookup, folder) for lookup in pipeline.lookups],
            Deriver(pipeline.derive, folder) if pipeline.derive else None,
        )

    @classmethod
    def of_enrichment(cls, enrichment: Enrichment, future_tolerance_ms: int) -> Self:
        """Return the ingest of an enrichment's topic."""
        return cls(enrichment.contract, enrichment.key, future_tolerance_ms)

    def process(self, raw: RawBatch) -> Piece:
        """Return the good rows with their columns, and the letters."""
        return self.check(self.decode(raw))

    def decode(self, raw: RawBatch) -> Piece:
        """Return the rows that are events of the contract, and the letters."""
        return Piece(raw.topic, *self._decoder.decode(raw))

    def check(self, decoded: Piece) -> Piece:
        """Return the rows of a decoded batch that keep the rules, with their columns, and the letters."""
        rows, broken = apply_rules(decoded.rows, self._rules, decoded.topic, self._key)
        letters = [decoded.letters, broken]
        for lookup in self._lookups:
            rows, missed = self._look_up(lookup, rows, decoded.topic)
            letters.append(missed)
        rows, failed = self._derive(rows, decoded.topic)
        return Piece(decoded.topic, rows, join_batches([*letters, failed]))

    def _look_up(self, lookup: LookupTable, rows: pa.RecordBatch, topic: str) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        missed = lookup.missed(rows)
        if missed is None:
            return add_columns(rows, lookup.add(rows)), to_batch([])
        letters = [
            letter_of(row, "rejects", topic, self._key, LOOKUP_STAGE, "lookup_miss", lookup.explain(row))
            for row in rows.filter(missed).to_pylist()
        ]
        rows = rows.filter(pc.invert(missed))
        return add_columns(rows, lookup.add(rows)), to_batch(letters)

    def _derive(self, rows: pa.RecordBatch, topic: str) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        if self._deriver is None:
            return rows, to_batch([])
        columns, errors = self._deriver.add(rows)
        if not errors:
            return add_columns(rows, columns), to_batch([])
        letters = [
            letter_of(rows.slice(i, 1).to_pylist()[0], "rejects", topic, self._key, DERIVE_STAGE, "derive_failed", text)
            for i, text in errors.items()
        ]
        good = pa.array([i not in errors for i in range(rows.num_rows)], pa.bool_())
        return add_columns(rows.filter(good), columns), to_batch(letters)


def ingest_of_topics(pipeline: Pipeline, folder: Path) -> dict[str, Ingest]:
    """Return the ingest of each topic that a pipeline reads, its source first."""
    ingests = {pipeline.source.topic: Ingest.of_source(pipeline, folder)}
    for enrichment in pipeline.enrichments:
        ingests[enrichment.topic] = Ingest.of_enrichment(enrichment, pipeline.time.future_tolerance_ms)
    return ingests


def number_column(rows: pa.RecordBatch, name: str) -> pa.DoubleArray:
    """Return a number or boolean column as float64; nulls stay null."""
    column = rows[name]
    return column if pa.types.is_float64(column.type) else pc.cast(column, pa.float64(), safe=False)
