"""The checks behind the numbers: the input is read back from Kafka and everything is worked out again from it."""

from dataclasses import dataclass
from pathlib import Path

from scripts.demo.accounting import Accounting, Sent, account
from scripts.demo.collect import Collector
from scripts.demo.outputs import observed_of
from scripts.demo.quality import differing_scores
from scripts.demo.settings import DemoError
from scripts.kafka.batches import raw_batch
from scripts.kafka.consume import Record, read_all
from udfs.core.declare.definition import Pipeline
from udfs.core.model.scorer import Scorer
from udfs.core.offline.parity import ParityReport, check_parity


@dataclass(frozen=True, slots=True)
class Checks:
    """What was found."""

    accounting: Accounting
    #: letters of enrichment topics, where nothing bad was sent
    enrichment_letters: int
    parity: ParityReport
    #: predictions whose score is not what the model gives for the features beside it
    score_mismatches: int


def check(
    bootstrap: str, pipeline: Pipeline, folder: Path, sent: list[Sent], collected: Collector, scorer: Scorer
) -> Checks:
    """Account for every event, and work out features and scores again.

    Raises
    ------
    DemoError : the input topic does not hold what was sent.
    """
    source = pipeline.source.topic
    inputs = {topic: read_all(bootstrap, topic) for topic in (source, *(join.topic for join in pipeline.enrichments))}
    compare_inputs(sent, inputs[source])
    batches = [raw_batch(topic, records) for topic, records in inputs.items()]
    order = pipeline.sinks.order.topic
    return Checks(
        account(sent, collected.outcomes(source)),
        sum(one.origin.topic != source and one.topic != order for one in collected.letters),
        check_parity(pipeline, folder, batches, observed_of(collected.predictions, collected.letters)),
        differing_scores(collected.predictions, scorer),
    )


def compare_inputs(sent: list[Sent], inputs: list[Record]) -> None:
    """Refuse to go on when Kafka does not hold what was sent: the ledger would be of other records.

    Raises
    ------
    DemoError : a record is missing, extra, changed or elsewhere.
    """
    for one, record in zip(sent, inputs, strict=False):
        if one.origin != (record.topic, record.partition, record.offset) or (one.key, one.value) != (
            record.key,
            record.value,
        ):
            msg = f"{record.topic} at offset {record.offset}: is not what was sent; does anyone else write there?"
            raise DemoError(msg)
    if len(sent) != len(inputs):
        msg = (
            f"{sent[0].origin.topic}: holds {len(inputs)} records, {len(sent)} were sent; does anyone else write there?"
        )
        raise DemoError(msg)
