"""Training sets: the label that was known, of the events that have one, with features as of the event."""

import datetime as dt
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.backfill import write_backfill
from models.dataset import LABEL, LABEL_TIME_MS, LABEL_VALUE, SPLIT, Split, write_dataset
from models.days import read_provenance
from models.examples import read_examples
from models.inputs import Files, InputError
from models.labels import Labels, Rules
from tests import synthetic
from udfs.core.declare.declarations import Label
from udfs.core.declare.loading import load_pipeline
from udfs.core.errors import DefinitionError, ModelError
from udfs.core.offline.backfill import Part
from udfs.core.rows.batches import RawBatch

LABEL_SPEC = Label.model_validate(
    {
        "topic": "l",
        "of": "y",
        "above": 1,
        "contract": {"id": "id", "time": "t", "fields": {"id": "string", "t": "int64", "y": "float64?"}},
    }
)
ALL, LATER = Rules(), dt.date(2023, 11, 19)


def labels_of(rows: list[tuple[str, int, float | None]], rules: Rules = ALL) -> Labels:
    values = [b'{"id":"%s","t":%d,"y":%s}' % (i.encode(), t, b"null" if y is None else b"%f" % y) for i, t, y in rows]
    raw = RawBatch("l", values, [None] * len(rows), [0] * len(rows), list(range(len(rows))), [0] * len(rows))
    return Labels(LABEL_SPEC, [[Part(raw, np.arange(len(rows)))]], rules)


def joined(labels: Labels, events: list[tuple[str, int]]) -> list[tuple[bool | None, float | None, int | None]]:
    found = labels.join(pa.array([i for i, _ in events], pa.string()), np.array([t for _, t in events], np.int64))
    return list(zip(found.positive.to_pylist(), found.value.to_pylist(), found.time_ms.to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("rules", "rows", "wanted"),
    [
        (ALL, [("a", 11, 2.0)], (True, 2.0, 11)),
        (ALL, [("a", 11, 1.0)], (False, 1.0, 11)),
        (ALL, [("a", 10, 2.0)], (None, None, None)),  # not later than its event: no truth that arrived later
        (ALL, [("a", 11, 2.0), ("a", 12, 0.0)], (False, 0.0, 12)),
        (ALL, [("a", 12, 0.0), ("a", 11, 2.0)], (False, 0.0, 12)),  # by event time, not by arrival
        (ALL, [("a", 12, 0.0), ("a", 12, 2.0)], (True, 2.0, 12)),  # at one time the last that came
        (ALL, [("a", 11, 2.0), ("a", 12, None)], (None, None, 12)),  # taken back
        (ALL, [("b", 11, 2.0)], (None, None, None)),
        (ALL, [], (None, None, None)),
        (Rules(as_of_ms=11), [("a", 11, 2.0), ("a", 12, 0.0)], (True, 2.0, 11)),
        (Rules(as_of_ms=10), [("a", 11, 2.0)], (None, None, None)),
        (Rules(window_ms=5), [("a", 15, 2.0), ("a", 16, 0.0)], (True, 2.0, 15)),
        (Rules(window_ms=5), [("a", 16, 2.0)], (None, None, None)),
        (Rules(20, 5, unlabelled_is_negative=True), [("a", 16, 2.0)], (False, None, 15)),
        (Rules(15, 5, unlabelled_is_negative=True), [], (False, None, 15)),
        (Rules(14, 5, unlabelled_is_negative=True), [], (None, None, None)),  # the window is not over
        (Rules(None, 5, unlabelled_is_negative=True), [("b", 15, 2.0)], (False, None, 15)),
        (Rules(20, 5, unlabelled_is_negative=True), [("a", 12, None)], (None, None, 12)),
    ],
)
def test_which_label_counts(
    rules: Rules, rows: list[tuple[str, int, float | None]], wanted: tuple[bool | None, float | None, int | None]
) -> None:
    assert joined(labels_of(rows, rules), [("a", 10)]) == [wanted]


@given(st.integers(0, 10**6), st.sampled_from([None, 0, 3, 10]), st.sampled_from([None, 12, 25]))
def test_the_join_is_that_of_a_plain_loop(seed: int, window_ms: int | None, as_of_ms: int | None) -> None:
    chance = random.Random(seed)
    rows = [(f"e{chance.randrange(6)}", chance.randrange(30), float(chance.randrange(3))) for _ in range(25)]
    events = [(f"e{chance.randrange(7)}", chance.randrange(30)) for _ in range(20)]
    wanted: list[Any] = []
    for name, at in events:
        known = [
            (t, n, y)
            for n, (i, t, y) in enumerate(rows)
            if i == name and at < t <= (at + window_ms if window_ms is not None else 99) and t <= (as_of_ms or 99)
        ]
        last = max(known, default=None)
        wanted.append((None, None, None) if last is None else (last[2] > 1, last[2], last[0]))
    labels = labels_of([(i, t, y) for i, t, y in rows], Rules(as_of_ms, window_ms))
    assert joined(labels, events[:13]) + joined(labels, events[13:]) == wanted
    counts = labels.counts
    assert counts.positive + counts.negative + counts.unlabelled == len(events)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_pipeline(tmp_path_factory.mktemp("dataset") / "shop")


@pytest.fixture(scope="module")
def history(folder: Path) -> Path:
    return synthetic.write_orders(folder / "history.parquet")


def test_a_training_set_is_read_as_the_history_it_was_made_from(folder: Path, history: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(folder)
    split = Split(LATER, dt.date(2023, 11, 21))
    made = write_dataset(pipeline, folder, Files((history,), {}), tmp_path / "set", ALL, split, 2)
    found, wanted = read_examples(pipeline, folder, tmp_path / "set"), read_examples(pipeline, folder, history)
    np.testing.assert_array_equal(found.matrix, wanted.matrix)
    for name in ("positive", "event_time_ms", "label_time_ms"):
        assert (getattr(found, name) == getattr(wanted, name)).all()
    rows = ds.dataset(tmp_path / "set").to_table()
    assert rows.column_names == [
        "order_id", "at_ms", *found.columns, LABEL, LABEL_VALUE, LABEL_TIME_MS, SPLIT,
    ]  # fmt: skip
    until_ms = int(dt.datetime(2023, 11, 19, tzinfo=dt.UTC).timestamp() * 1000)
    sides = np.array(rows[SPLIT].to_pylist(), object)
    train = (found.event_time_ms < until_ms) & (found.label_time_ms < until_ms)
    assert ((sides == "train") == train).all()
    # Known only when the test has begun: in neither.
    assert (sides[(found.event_time_ms < until_ms) & ~train] == None).all()  # noqa: E711  element by element
    provenance = read_provenance(tmp_path / "set")
    assert provenance["counts"]["labels"] == {
        "positive": int(found.positive.sum()), "negative": int((~found.positive).sum()), "assumed_negative": 0,
        "unlabelled": synthetic.EVENTS // 50, "null": made.labels.counts.null,
    }  # fmt: skip
    assert provenance["labels"] == {"as_of_ms": None, "window_ms": None, "unlabelled_is_negative": False}


def test_a_training_set_of_other_features_is_refused(folder: Path, history: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(folder)
    write_dataset(pipeline, folder, Files((history,), {}), tmp_path / "set", ALL, None, 1)
    other = pipeline.model_copy(update={"model": pipeline.model.model_copy(update={"inputs": ("amount",)})})
    with pytest.raises(
        ModelError, match=r"set: has feature set \w+; the pipeline has \w+; write a training set with: headrace"
    ):
        read_examples(other, folder, tmp_path / "set")
    write_dataset(pipeline, folder, Files((history,), {}), tmp_path / "set", Rules(as_of_ms=0), None, 1)
    with pytest.raises(ModelError, match="the training set has no row"):
        read_examples(pipeline, folder, tmp_path / "set")
    write_backfill(pipeline, folder, Files((history,), {}), tmp_path / "set", 1)
    with pytest.raises(ModelError, match="is a backfill, which has no labels"):
        read_examples(pipeline, folder, tmp_path / "set")


def test_labels_come_from_a_file_beside_files_of_columns_and_must_be_declared(
    folder: Path, history: Path, tmp_path: Path
) -> None:
    pipeline = load_pipeline(folder)
    (tmp_path / "o.csv").write_text("order_id,at_ms,user,amount,discount\na,1000,u,5,\nb,2000,u,7,1\n")
    (tmp_path / "r.csv").write_text("order_id,at_ms,refund\na,1970-01-01 00:01:00,12\nb,1970-01-01 00:00:01,12\n")
    files = Files((tmp_path / "o.csv",), {"risk": ()}, labels=(tmp_path / "r.csv",))
    write_dataset(pipeline, folder, files, tmp_path / "set", ALL, None, 1)
    rows = ds.dataset(tmp_path / "set").to_table().to_pylist()
    assert [(row["order_id"], row[LABEL], row[LABEL_TIME_MS]) for row in rows] == [("a", True, 60_000)]
    with pytest.raises(
        InputError, match="labels: missing; give --labels FILE with the columns order_id, at_ms, refund"
    ):
        write_dataset(pipeline, folder, Files(files.source, {"risk": ()}), tmp_path / "x", ALL, None, 1)
    with pytest.raises(InputError, match=r"is a history, which holds all topics; leave .*r\.csv out"):
        write_dataset(pipeline, folder, Files((history,), {}, labels=files.labels), tmp_path / "x", ALL, None, 1)
    bare = pipeline.model_copy(update={"label": None})
    with pytest.raises(DefinitionError, match="pipeline shop: label: missing"):
        write_dataset(bare, folder, files, tmp_path / "x", ALL, None, 1)
