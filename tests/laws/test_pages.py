"""Keys that memory has no room for: paged out, brought back, and never seen in a result."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.samples import RATE_JOIN, SHOP_FEATURES, Passage, cut, random_payments, small_pipeline, with_rates
from udfs.core.cells.keyed import CELL_BYTES
from udfs.core.cells.pages import KEY_BYTES
from udfs.core.declare.definition import Pipeline
from udfs.core.plan.features import plan_stages
from udfs.core.rows.ingest import ingest_of_topics
from udfs.core.stage.lane import Lane

FEATURES: tuple[dict[str, Any], ...] = (
    {"entity": "user", "of": "amount", "take": ["sum", "std", "distinct"], "over": ["4s", "lifetime"], "slide": "1s"},
    {"entity": "user", "of": "units", "take": ["last", {"lag": 1}], "over": [{"last": 3}, {"session": "1s"}]},
)


def users() -> Pipeline:
    return small_pipeline(features=FEATURES)


class Paged:
    """A lane with little memory, and its durable state."""

    def __init__(self, pipeline: Pipeline, limit_bytes: int, entity: str = "user") -> None:
        self.pipeline, self.limit_bytes = pipeline, limit_bytes
        self.stage = next(stage for stage in plan_stages(pipeline) if stage.entity == entity)
        self.log: dict[int, bytes] = {}
        self.pages: dict[str, bytes] = {}
        self.ingests = ingest_of_topics(pipeline, Path())
        self.most_paged = 0
        self.seen: set[str] = set()
        self.restart()

    def restart(self) -> None:
        self.lane = Lane(self.pipeline, self.stage, 3, self.log, self.pages, self.limit_bytes)

    def feed(self, batches: Any, restarts: frozenset[int] = frozenset()) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for number, raw in enumerate(batches):
            if number in restarts:
                self.restart()
            rows += self.lane.process(self.ingests[raw.topic].process(raw)).rows.to_pylist()
            self.seen |= self.pages.keys()
            self.most_paged = max(self.most_paged, self.lane.paged_keys)
        return rows


@given(st.integers(0, 2**32), st.sets(st.integers(1, 299)), st.frozensets(st.integers(0, 40), max_size=4))
def test_a_limit_changes_no_row(seed: int, cuts: set[int], restarts: frozenset[int]) -> None:
    sent = random_payments(seed, 300, users=25)
    free = Passage(users(), "user").feed(cut(sent, cuts)).rows
    paged = Paged(users(), 4_000)
    assert repr(paged.feed(cut(sent, cuts), restarts)) == repr(free)


def test_keys_are_paged_out_and_memory_stays_within_its_limit() -> None:
    sent = random_payments(4, 600, users=40, step_ms=20)
    paged = Paged(users(), 8_000)
    paged.feed(cut(sent, range(0, 600, 20)))
    assert paged.most_paged > 10
    (store,) = paged.lane._stores.values()
    assert store.pages is not None
    assert store.pages.memory_bytes <= 8_000
    # What is paged out is out of the log, too: a restart does not bring it back into memory.
    paged.restart()
    (store,) = paged.lane._stores.values()
    assert store.pages is not None
    assert store.pages.memory_bytes <= 12_000, "the log may bring back cells that memory had dropped"
    assert not set(store.cells.index) & {name.removeprefix("0:") for name in paged.pages}


SKETCHES: tuple[dict[str, Any], ...] = (
    {"entity": "user", "of": "shop", "take": ["distinct", {"top_k": 2}, {"last_n": 3}], "over": ["lifetime"]},
    {"entity": "user", "of": "amount", "by": "shop", "take": ["sum"], "over": ["lifetime"]},
    {"entity": "user", "of": "amount", "take": [{"quantile": 0.5}], "over": ["lifetime"]},
)


def test_sketches_and_texts_count_too() -> None:
    patient = {"allowed_lateness": "1500ms", "future_tolerance": "1d", "forget_idle_after": "1d"}
    pipeline = small_pipeline(features=SKETCHES, time=patient)
    sent = random_payments(8, 600, users=40, step_ms=20)
    batches = list(cut(sent, range(0, 600, 20)))
    roomy, paged = Paged(pipeline, 10**9), Paged(pipeline, 50_000)
    assert repr(paged.feed(batches, frozenset({7, 19}))) == repr(roomy.feed(batches))
    (all_in,) = roomy.lane._stores.values()
    assert all_in.pages is not None
    cells = sum(track.live * (CELL_BYTES + 8 * track.layout.width) for track in all_in.cells.tracks)
    assert cells + KEY_BYTES * len(all_in.cells.index) < 50_000 < all_in.pages.memory_bytes / 2
    (store,) = paged.lane._stores.values()
    assert store.pages is not None
    assert paged.most_paged > 10
    assert store.pages.memory_bytes <= 50_000
    # What a restored sketch takes is known before a row asks for it.
    before = all_in.pages.memory_bytes
    roomy.restart()
    (again,) = roomy.lane._stores.values()
    assert again.pages is not None
    assert again.pages.memory_bytes == before


def test_pages_of_keys_that_stay_away_are_dropped() -> None:
    paged = Paged(users(), 4_000)
    paged.feed(cut(random_payments(5, 300, users=30, step_ms=20), range(0, 300, 20)))
    assert len(paged.pages) > 5
    later = random_payments(6, 400, users=2, start_ms=10**6, step_ms=400)
    paged.feed(cut(later, range(0, 400, 10)))
    assert paged.pages.keys() <= {"0:u0", "0:u1"}


def test_rows_of_other_streams_are_paged_as_well() -> None:
    pipeline = small_pipeline(enrichments=[RATE_JOIN], features=SHOP_FEATURES)
    sent = with_rates(random_payments(7, 300), 8)
    free = Passage(pipeline, "shop").feed(cut(sent, range(0, len(sent), 15)))
    paged = Paged(pipeline, 300, "shop")
    assert repr(paged.feed(cut(sent, range(0, len(sent), 15)), frozenset({5, 9}))) == repr(free.rows)
    assert any(name.startswith("1:") for name in paged.seen)
