"""The fence against a real Redis: whatever the interleaving of a job, its restarts and backfills, one end state."""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.e2e.redis_server import free_port, redis_server
from tests.samples import SHOP_FEATURES, small_pipeline
from udfs.core.online.schema import OnlineStoreError
from udfs.core.online.tables import OnlineRow, online_schema, online_tables
from udfs.online.backfill import Written, write_online
from udfs.online.writer import OnlineWriter

PREFIX, COLUMN, OTHER_COLUMN = "p", "shop_amount_count_1s", "shop_amount_sum_1s"
SCHEMA = pa.schema(
    [("at_ms", pa.int64()), ("shop", pa.string()), ("_seq_shop", pa.int64())]
    + [(name, pa.float64()) for name in (COLUMN, OTHER_COLUMN)]
)
# Feature set hash -> a pipeline with this set; the second has other columns.
PIPELINES = {
    feature_set * 16: small_pipeline(features=[{**SHOP_FEATURES[0], "take": take, "over": ["1s"]}])
    for feature_set, take in {"f": ["count"], "0": ["sum"]}.items()
}
FEATURE_SET, OTHER_SET = PIPELINES


@dataclass(frozen=True)
class Sent:
    """A batch of one writer."""

    #: None: a backfill, which is never restarted
    attempt: int | None
    started_ms: int
    #: shop, event time, sequence number, value
    rows: tuple[tuple[str, int, int, float], ...]
    feature_set: str = FEATURE_SET

    @property
    def batch(self) -> pa.RecordBatch:
        names = ("shop", "at_ms", "_seq_shop", COLUMN, OTHER_COLUMN)
        rows = [dict(zip(names, (*row, row[-1]), strict=True)) for row in self.rows]
        return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)

    @property
    def online_rows(self) -> list[OnlineRow]:
        (table,) = online_tables(PIPELINES[self.feature_set], PREFIX)
        return table.rows(table.newest(self.batch))


class Store:
    """A server and its address."""

    def __init__(self, port: int, client: Redis) -> None:
        self.url, self.client = f"redis://127.0.0.1:{port}/0", client

    def writer(self, sent: Sent) -> OnlineWriter:
        writer = OnlineWriter(self.url, PREFIX, sent.started_ms, sent.attempt or 0)
        tables = online_tables(PIPELINES[sent.feature_set], PREFIX)
        writer.begin(online_schema(tables, sent.feature_set, SCHEMA))
        return writer

    def backfill(self, sent: Sent) -> Written:
        pipeline = PIPELINES[sent.feature_set]
        return write_online(
            self.url, PREFIX, pipeline, sent.feature_set, [sent.batch], started_ms=sent.started_ms
        )  # fmt: skip

    def after(self, sequence: Sequence[Sent]) -> dict[str, Any]:
        """Write batches into the empty store, in their order; return all rows."""

        async def write() -> None:
            writers: dict[tuple[int, int, str], OnlineWriter] = {}
            for sent in sequence:
                if sent.attempt is None:
                    self.backfill(sent)
                    continue
                key = (sent.started_ms, sent.attempt, sent.feature_set)
                writer = writers.setdefault(key, self.writer(sent))
                writer.add(sent.online_rows)
                await writer.flush()
                assert writer.waiting_rows == writer.dropped_rows == 0

        self.client.flushdb()
        asyncio.run(write())
        return self.rows()

    def rows(self) -> dict[str, Any]:
        return {
            str(key): json.loads(str(self.client.get(str(key)))) for key in self.client.scan_iter(f"{PREFIX}:shop:*")
        }


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    port = free_port()
    with redis_server(port) as client:
        yield Store(port, client)


def numbered(rows: Sequence[tuple[str, int]], first_value: float) -> list[tuple[str, int, int, float]]:
    return [(shop, at_ms, seq, first_value + seq) for seq, (shop, at_ms) in enumerate(rows)]


@st.composite
def histories(draw: st.DrawFn) -> list[Sent]:
    """Return the batches of a job that restarts once (and sees its rows in another order then), and of a backfill.

    Each has numbered its rows by itself, all of them several times over the same few event times.
    """
    rows = draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-1, 1)), min_size=1, max_size=16))
    ends = st.integers(0, len(rows))
    crashed_at = draw(ends)
    again = rows[draw(st.integers(0, crashed_at)) :]
    attempts = [
        (0, 100, numbered(rows[:crashed_at], 1000.0)),
        (1, 100, numbered(draw(st.permutations(again)), 2000.0)),
        (None, draw(st.sampled_from([50, 150])), numbered(draw(st.permutations(rows)), 3000.0)),
    ]
    sent = []
    for attempt, started_ms, of_writer in attempts:
        cuts = sorted({0, *draw(st.lists(st.integers(0, len(of_writer)), max_size=3)), len(of_writer)})
        sent += [
            Sent(attempt, started_ms, tuple(of_writer[start:end]))
            for start, end in itertools.pairwise(cuts)
        ]  # fmt: skip
    return sent


@st.composite
def interleavings(draw: st.DrawFn) -> tuple[list[Sent], list[Sent]]:
    """Return batches, and a sequence that has each of them once or more, in any order."""
    sent = draw(histories())
    doubled = [one for one in sent for _ in range(draw(st.integers(1, 2)))]
    return sent, draw(st.permutations(doubled))


@settings(max_examples=150, deadline=None)
@given(interleavings())
def test_any_interleaving_of_a_job_its_restart_and_a_backfill_ends_in_the_same_rows(
    store: Store, case: tuple[list[Sent], list[Sent]]
) -> None:
    sent, sequence = case
    newest: dict[str, tuple[tuple[int, int, int, int], float]] = {}
    for one in sent:
        for shop, at_ms, seq, value in one.rows:
            mark = (at_ms, one.started_ms, one.attempt or 0, seq)
            newest[shop] = max(newest.get(shop, (mark, value)), (mark, value))
    version = online_schema(online_tables(PIPELINES[FEATURE_SET], PREFIX), FEATURE_SET, SCHEMA).version
    assert store.after(sequence) == {
        f"{PREFIX}:shop:{{{shop}}}": [*mark, version, [value]] for shop, (mark, value) in newest.items()
    }


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda at_ms, value, backfill, other: Sent(
                None if backfill else 0, 100, (("a", at_ms, 0, value),), OTHER_SET if other else FEATURE_SET
            ),
            st.sampled_from([5, 2**53, 2**53 + 1]), st.sampled_from([1.0, 2.0, 3.0]), st.booleans(), st.booleans(),
        ),
        min_size=2, max_size=5,
    ).flatmap(lambda sent: st.tuples(st.just(sent), st.permutations(sent)))
)  # fmt: skip
def test_even_writers_that_cannot_be_told_apart_end_in_the_same_row(
    store: Store, orders: tuple[list[Sent], list[Sent]]
) -> None:
    one, other = orders
    assert store.after(one) == store.after(other)


def test_a_job_and_a_backfill_that_write_at_the_same_time_end_in_the_same_rows(store: Store) -> None:
    """Threads and pipelines of a thousand rows, so that writes of both really fall between one another."""
    shops, count = [f"s{i}" for i in range(50)], 20_000
    mine = tuple((shops[i * 7 % 50], i // 50, i, float(i)) for i in range(count))
    theirs = tuple((shops[i * 11 % 50], i // 45, i, -float(i)) for i in range(count))
    live = [Sent(0, 100, mine[start : start + 500]) for start in range(0, count, 500)]
    back = [Sent(None, 50, theirs[start : start + 700]) for start in range(0, count, 700)]
    expected = store.after([*live, *back])
    assert store.after([*back, *live]) == expected
    store.client.flushdb()
    begun, ended = [], []

    def write_back() -> None:
        begun.append(time.monotonic())
        for one in back:
            store.backfill(one)
        ended.append(time.monotonic())

    async def write_live() -> None:
        writer = store.writer(live[0])
        begun.append(time.monotonic())
        for one in live:
            writer.add(one.online_rows)
            await writer.flush()
        ended.append(time.monotonic())

    backfill = threading.Thread(target=write_back)
    backfill.start()
    asyncio.run(write_live())
    backfill.join()
    assert max(begun) < min(ended), "they wrote at the same time"
    assert store.rows() == expected


def test_a_backfill_writes_the_last_rows_of_a_table_and_says_how_many(store: Store) -> None:
    store.client.flushdb()
    batches = [
        Sent(None, 0, (("a", 1, 0, 1.0), ("b", 9, 1, 2.0))).batch,
        Sent(None, 0, (("a", 3, 2, 3.0), ("a", 2, 3, 4.0))).batch,
    ]
    table = pa.Table.from_batches(batches)

    def write(rows: Any, prefix: str = PREFIX) -> Written:
        return write_online(store.url, prefix, PIPELINES[FEATURE_SET], FEATURE_SET, rows, started_ms=7)

    assert write(table) == Written(written=2, fenced=0)
    assert {key: row[5] for key, row in store.rows().items()} == {"p:shop:{a}": [3.0], "p:shop:{b}": [2.0]}
    assert write(table) == Written(written=2, fenced=0), "the same rows, once more"
    assert write(batches) == Written(written=2, fenced=1), "of batches each has its last rows"
    assert write(table.slice(0, 1)) == Written(written=0, fenced=1)
    assert write([]) == write(table.slice(0, 0)) == Written()
    store.client.set("q:shop:{a}", "something else")
    with pytest.raises(OnlineStoreError, match=r"q:shop:\{a\}: holds something else than an online row"):
        write(table, prefix="q")
    with pytest.raises(OnlineStoreError, match="the rows lack _seq_shop"):
        write(table.drop_columns(["_seq_shop"]))


def test_the_schema_of_the_writer_started_last_is_current_in_whatever_order_they_come(store: Store) -> None:
    sent = [
        Sent(attempt, started_ms, (("a", 1, 0, 1.0),), feature_set)
        for attempt, started_ms, feature_set in (
            (0, 3, FEATURE_SET),
            (None, 9, OTHER_SET),
            (0, 9, FEATURE_SET),
            (None, 1, OTHER_SET),
        )
    ]
    seen = set()
    for sequence in (sent, sent[::-1], sent * 2):
        store.after(sequence)
        started_ms, version = json.loads(str(store.client.get(f"{PREFIX}:schema")))
        assert started_ms == 9
        assert len(list(store.client.scan_iter(f"{PREFIX}:schema:*"))) == 2
        assert store.client.exists(f"{PREFIX}:schema:{version}")
        seen.add(version)
    assert len(seen) == 1
