"""Ingest operator: raw batches of one topic in, pieces out.

Enrichment topics pass it, cut by the lane of the stage that joins them. The source passes it only when its first stage
joins enrichments, and so takes pieces of both; otherwise that stage ingests by itself, without this hop.
"""

from collections.abc import Iterator
from pathlib import Path

from pyflink.common import Row
from pyflink.datastream import ProcessFunction, RuntimeContext

from udfs.batch_rows import raw_batch
from udfs.core.ingest import Ingest
from udfs.core.lanes import split_by_lane
from udfs.core.loading import load_pipeline


class IngestTopic(ProcessFunction):
    """Decodes and validates one topic; see `Featurize` for the other parameters.

    Parameters
    ----------
    enrichment : name of the enrichment; None for the source
    """

    def __init__(self, bundle: str, enrichment: str | None, lane_keys: list[int]) -> None:
        self._bundle, self._name, self._lane_keys = bundle, enrichment, lane_keys

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the pipeline."""
        folder = Path(self._bundle)
        pipeline = load_pipeline(folder)
        if self._name is None:
            self._topic, self._key = pipeline.source.topic, pipeline.source.key
            self._ingest = Ingest.of_source(pipeline, folder)
        else:
            enrichment = next(one for one in pipeline.enrichments if one.name == self._name)
            self._topic, self._key = enrichment.topic, enrichment.key
            self._ingest = Ingest.of_enrichment(enrichment, pipeline.time.future_tolerance_ms)

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[Row]:
        """Make pieces of one micro-batch."""
        piece = self._ingest.process(raw_batch(self._topic, value[1]))
        for lane, part in split_by_lane(piece, self._key, len(self._lane_keys)):
            yield Row(self._lane_keys[lane], part.encode())
