"""Ingest operator for enrichment topics: raw batches in, pieces out, cut by the lane of the stage that joins them."""

from collections.abc import Iterator
from pathlib import Path

from pyflink.common import Row
from pyflink.datastream import ProcessFunction, RuntimeContext

from udfs.batch_rows import raw_batch
from udfs.core.ingest import Ingest
from udfs.core.lanes import split_by_lane
from udfs.core.loading import load_pipeline


class IngestEnrichment(ProcessFunction):
    """Decodes and validates one enrichment topic; see `Featurize` for the parameters."""

    def __init__(self, bundle: str, name: str, lane_keys: list[int]) -> None:
        self._bundle, self._name, self._lane_keys = bundle, name, lane_keys

    def open(self, runtime_context: RuntimeContext) -> None:
        """Load the pipeline."""
        pipeline = load_pipeline(Path(self._bundle))
        self._enrichment = next(one for one in pipeline.enrichments if one.name == self._name)
        self._ingest = Ingest.of_enrichment(self._enrichment, pipeline.time.future_tolerance_ms)

    def process_element(self, value: Row, ctx: ProcessFunction.Context) -> Iterator[Row]:
        """Make pieces of one micro-batch."""
        piece = self._ingest.process(raw_batch(self._enrichment.topic, value[1]))
        for lane, part in split_by_lane(piece, self._enrichment.key, len(self._lane_keys)):
            yield Row(self._lane_keys[lane], part.encode())
