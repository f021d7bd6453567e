"""One seeded run: a stream through a job cut, crashed, restored and rescaled at random; what must hold after it.

python -m tests.simulator.run --seconds 600      # fresh seeds until the time is over; a failing one is printed
python -m tests.simulator.run --seed 4711        # that one again
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.samples import EVENTS, RATE_JOIN, declaration, random_payments, with_rates
from tests.simulator.cluster import Cluster, Topics
from udfs.core.declare.definition import Pipeline
from udfs.core.offline.parity import Observed, Origin, check_parity
from udfs.core.plan.features import feature_columns
from udfs.core.rows.batches import OFFSET, PARTITION, RawBatch
from udfs.core.stage.stamps import stamps

EVENTS_OF_A_RUN = 60
STEPS = 4_000
#: what may happen next, and how often beside the others
WEIGHTS = {
    "read": 6,
    "send": 6,
    "deliver": 12,
    "tick": 1,
    "begin": 1,
    "snap": 8,
    "commit": 2,
    "crash": 0.15,
    "stop": 0.1,
}


@dataclass(frozen=True)
class Outcome:
    """What happened in a run, so that a test can see that runs meet what they are about."""

    predictions: int
    letters: int
    faults: Counter[str]


def declared(chance: random.Random) -> dict[str, Any]:
    """Return a pipeline: lanes, waits, and a horizon of duplicates as chance will."""
    wait: dict[str, Any] = chance.choice([{}, {"wait": "2s", "on_missing": "stale"}])
    time_settings = {"allowed_lateness": chance.choice(["1500ms", "1h"]), "future_tolerance": "1d"}
    if chance.random() < 0.5:
        time_settings["duplicates_within"] = "20s"
    return declaration(lanes=chance.randint(1, 4), enrichments=[RATE_JOIN | wait], time=time_settings)


def simulate(seed: int, folder: Path) -> Outcome:
    """Run one seed to its end and check it.

    Raises
    ------
    AssertionError : an input is missing or came twice, or a feature is not the one of an undisturbed run
    """
    chance = random.Random(seed)
    told = declared(chance)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    sent = with_rates(random_payments(seed, EVENTS_OF_A_RUN, users=3), seed)
    sent += chance.sample(sent, 3)  # the same records again
    topics = Topics(sent, chance.randint(1, 3), 10**12)
    pipeline = Pipeline.model_validate(told)
    cluster = Cluster(pipeline, folder, topics, chance.choice([0, 2_000]), chance)
    faults: Counter[str] = Counter()
    for _ in range(STEPS):
        if not step(cluster, chance, faults):
            break
    finish(cluster)
    return judged(cluster, pipeline, folder, faults)


def step(cluster: Cluster, chance: random.Random, faults: Counter[str]) -> bool:
    """Let one thing happen; return False once everything was read and delivered."""
    unread, pending, deliverable, unsnapped = cluster.unread, cluster.pending, cluster.deliverable, cluster.unsnapped
    if not (unread or pending or deliverable or cluster.is_checkpointing):
        return False
    possible = {
        "read": unread, "send": pending, "deliver": deliverable, "tick": True, "begin": not cluster.is_checkpointing,
        "snap": unsnapped, "commit": True, "crash": True, "stop": True,
    }  # fmt: skip
    names = [name for name, can in possible.items() if can]
    what = chance.choices(names, [WEIGHTS[name] for name in names])[0]
    if what == "read":
        cluster.read(chance.choice(unread), chance.randint(1, 6))
    elif what == "send":
        cluster.send(*chance.choice(pending))
    elif what == "deliver":
        cluster.deliver(*chance.choice(deliverable))
    elif what == "tick":
        cluster.tick(chance.choice([1, 100, 3_000]))
    elif what == "begin":
        cluster.begin_checkpoint()
    elif what == "snap":
        cluster.snap_source(chance.choice(unsnapped))
    elif what == "commit":
        cluster.commit()
    else:
        if what == "stop":
            checkpoint(cluster)
        parallelism = chance.randint(1, 4)
        faults[what] += 1
        faults["rescale"] += parallelism != cluster.parallelism
        cluster.start(parallelism)
    return True


def drain(cluster: Cluster) -> None:
    """Deliver whatever can be delivered."""
    while cluster.deliverable:
        cluster.deliver(*cluster.deliverable[0])


def checkpoint(cluster: Cluster) -> None:
    """Make a checkpoint from beginning to end."""
    if not cluster.is_checkpointing:
        cluster.begin_checkpoint()
    for place in cluster.unsnapped:
        cluster.snap_source(place)
    drain(cluster)


def finish(cluster: Cluster) -> None:
    """Read and deliver all, let whatever waits go on, and commit."""
    for place in cluster.unread:
        cluster.read(place, sys.maxsize)
    for place, lane in cluster.pending:
        cluster.send(place, lane)
    for _ in range(3):
        drain(cluster)
        cluster.tick(3_600_000)
    checkpoint(cluster)
    checkpoint(cluster)
    cluster.commit()


def judged(cluster: Cluster, pipeline: Pipeline, folder: Path, faults: Counter[str]) -> Outcome:
    """Check that every input has its one end, and that features are those of the stamped order."""
    names = feature_columns(pipeline)
    observed: dict[Origin, Observed] = {}
    ends: Counter[Origin] = Counter()
    late: list[Origin] = []
    kept: set[Origin] = set()
    letters = 0
    for piece in cluster.committed:
        for row in piece.rows.to_pylist():
            origin = Origin(EVENTS, row[PARTITION], row[OFFSET])
            observed[origin] = Observed(dict(stamps(row)), {name: row[name] for name in names})
            ends[origin] += 1
        for letter in piece.letters.to_pylist():
            origin = Origin(letter["topic"], letter["partition"], letter["offset"])
            order = {entity: (place[0], place[1]) for entity, place in json.loads(letter["order"]).items()}
            observed[origin] = Observed(order, None)
            letters += 1
            if letter["kind"] == "late":
                late.append(origin)
                continue
            ends[origin] += 1
            if letter["kind"] == "order":
                kept.add(origin)
    ends.update(origin for origin in late if origin not in kept)
    inputs = {
        Origin(topic, partition, one.offset)
        for (topic, partition), records in cluster.topics.records.items()
        for one in records
    }
    wrong = {origin: ends[origin] for origin in inputs | set(ends) if ends[origin] != 1 or origin not in inputs}
    assert not wrong, f"not once: {wrong}"
    report = check_parity(pipeline, folder, batches(cluster.topics), observed)
    assert (report.mismatches, report.missing, report.gaps) == (0, 0, 0), report.examples or report
    return Outcome(report.rows, letters, faults)


def batches(topics: Topics) -> list[RawBatch]:
    """Return all records, partition by partition."""
    return [
        RawBatch(
            topic,
            [one.value for one in records],
            [one.key for one in records],
            [partition] * len(records),
            [one.offset for one in records],
            [one.timestamp_ms for one in records],
        )
        for (topic, partition), records in topics.records.items()
    ]


def main(arguments: list[str]) -> None:
    """Run one seed, or fresh ones for some time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--seconds", type=float, default=60.0, help="run fresh seeds for so long")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        if chosen.seed is not None:
            done: object = simulate(chosen.seed, Path(scratch))
        else:
            done = run_for(chosen.seconds, Path(scratch), random.SystemRandom().randrange(10**9))
    sys.stdout.write(f"{done}\n")


def run_for(seconds: float, scratch: Path, first_seed: int) -> Counter[str]:
    """Run seeds for some time; return how often what happened.

    Raises
    ------
    AssertionError : with the seed that failed
    """
    met: Counter[str] = Counter()
    deadline_s, seed = time.monotonic() + seconds, first_seed
    while time.monotonic() < deadline_s:
        try:
            outcome = simulate(seed, scratch)
        except Exception as error:
            msg = f"seed {seed}: python -m tests.simulator.run --seed {seed}"
            raise AssertionError(msg) from error
        met += outcome.faults + Counter(runs=1, predictions=outcome.predictions, letters=outcome.letters)
        seed += 1
    return met


if __name__ == "__main__":
    main(sys.argv[1:])
