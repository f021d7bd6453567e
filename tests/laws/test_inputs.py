"""What a backfill reads and writes: files of every kind in, one folder out, and where its rows are from."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from models.backfill import write_backfill
from models.days import DayFolder, FolderError, read_provenance
from models.history import HistoryError, write_history
from models.inputs import Files, InputError, Order, find_files
from models.provenance import describe_files
from tests.samples import EVENTS, FLIGHTS, RATE_JOIN, RATES, Sent, payment, raw_batch, small_pipeline, with_rates
from tests.samples import random_payments as payments
from udfs.core.plan.features import feature_set_hash
from udfs.core.rows.ingest import ingest_of_topics

PIPELINE = small_pipeline(enrichments=[RATE_JOIN])
SENT = with_rates(payments(5, 80, disorder_ms=1), 5)


def time_of(one: Sent) -> int:
    return int(one.row.get("at_ms") or one.row.get("seen_ms") or 0)


IN_TIME = sorted(SENT, key=lambda one: (time_of(one), one.topic == EVENTS))


def history(path: Path, sent: list[Sent]) -> Files:
    keys = [one.key.encode() if one.key else None for one in sent]
    write_history(
        path,
        [one.topic for one in sent],
        keys,
        [json.dumps(one.row).encode() for one in sent],
        [time_of(one) for one in sent],
    )
    return Files((path,), {})


def columns(topic: str) -> pa.Table:
    batch = raw_batch(topic, [one for one in IN_TIME if one.topic == topic])
    rows = ingest_of_topics(PIPELINE, FLIGHTS)[topic].decode(batch).rows
    return pa.table({name: rows[name] for name in rows.schema.names if not name.startswith("_")})


def features(files: Files, out: Path) -> pa.Table:
    write_backfill(PIPELINE, FLIGHTS, files, out, 2)
    found = ds.dataset(out).to_table()
    return found.select([name for name in found.column_names if not name.startswith("_")])


def test_every_kind_of_input_gives_the_same_rows(tmp_path: Path) -> None:
    wanted = features(history(tmp_path / "h.parquet", IN_TIME), tmp_path / "a")
    assert wanted.num_rows == 80
    assert wanted["rate"].null_count < 80
    backwards = history(tmp_path / "back.parquet", IN_TIME[::-1])
    by_time: Order = "event-time"
    assert features(Files(backwards.source, {}, by_time), tmp_path / "b").sort_by("id").equals(wanted.sort_by("id"))
    pq.write_table(columns(EVENTS), tmp_path / "events.parquet")
    pq.write_table(columns(RATES).slice(0, 9), tmp_path / "rates-0.parquet")
    pq.write_table(columns(RATES).slice(9), tmp_path / "rates-1.parquet")
    rates = (tmp_path / "rates-0.parquet", tmp_path / "rates-1.parquet")
    assert features(Files((tmp_path / "events.parquet",), {"rates": rates}), tmp_path / "c").equals(wanted)
    for topic, name in ((EVENTS, "events.csv"), (RATES, "rates.csv")):
        pa.csv.write_csv(columns(topic), tmp_path / name)
    csv = Files((tmp_path / "events.csv",), {"rates": (tmp_path / "rates.csv",)})
    assert features(csv, tmp_path / "d").equals(wanted)


def test_a_folder_says_what_it_was_made_from(tmp_path: Path) -> None:
    files = history(tmp_path / "h.parquet", [*IN_TIME, Sent(EVENTS, "u1", {"id": "x"})])
    counts = write_backfill(PIPELINE, FLIGHTS, files, tmp_path / "out", 1, arguments={"order": None})
    found = read_provenance(tmp_path / "out")
    assert found["feature_set"] == feature_set_hash(PIPELINE, FLIGHTS)
    assert found["inputs"][0] | {"role": "source"} == found["inputs"][0]
    assert found["inputs"][0]["bytes"] == (tmp_path / "h.parquet").stat().st_size
    assert found["counts"] == counts.as_dict()
    assert found["counts"]["records"] == {EVENTS: 81, RATES: len(SENT) - 80}
    assert found["counts"]["rejects"] == {"missing_field": 1}
    assert pq.read_table(tmp_path / "out" / "_letters.parquet")["reason"].to_pylist() == ["missing_field"]
    assert {"version", "kernels"} <= found["code"].keys()


def test_rows_before_a_day_only_fill_the_windows(tmp_path: Path) -> None:
    midnight_ms = 86_400_000
    sent = [payment(i, midnight_ms - 500 + 700 * i, "u0") for i in range(2)]
    counts = write_backfill(
        PIPELINE, FLIGHTS, history(tmp_path / "h.parquet", sent), tmp_path / "out", 1, dt.date(1970, 1, 2)
    )
    rows = ds.dataset(tmp_path / "out").to_table().to_pylist()
    assert (counts.rows, counts.written) == (2, 1)
    assert [row["user_count_4s"] for row in rows] == [2.0]


def test_an_older_folder_is_replaced_and_a_stranger_is_not(tmp_path: Path) -> None:
    files = history(tmp_path / "h.parquet", IN_TIME[:20])
    for _ in range(2):
        write_backfill(PIPELINE, FLIGHTS, files, tmp_path / "out", 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all there is")
    with pytest.raises(FolderError, match=r"mine: is there already, and not by headrace"):
        write_backfill(PIPELINE, FLIGHTS, files, tmp_path / "mine", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.parquet", "mine", "out"]


def test_a_run_that_fails_leaves_the_older_folder(tmp_path: Path) -> None:
    files = history(tmp_path / "h.parquet", IN_TIME)
    write_backfill(PIPELINE, FLIGHTS, files, tmp_path / "out", 1)
    before = read_provenance(tmp_path / "out")

    def stop(_read: int, _rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_backfill(PIPELINE, FLIGHTS, files, tmp_path / "out", 1, progress=stop)
    assert read_provenance(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.parquet", "out"]


def test_days_are_partitions_in_the_order_of_the_rows(tmp_path: Path) -> None:
    times = [0, 86_400_000, 5, 86_400_001, 90 * 86_400_000]
    with DayFolder(tmp_path / "out", "t") as days:
        days.write(pa.RecordBatch.from_pydict({"t": times, "n": [0, 1, 2, 3, 4]}))
        days.write(pa.RecordBatch.from_pydict({"t": [6], "n": [5]}))
        days.finish({"made": True})
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "_provenance.json", "day=1970-01-01", "day=1970-01-02", "day=1970-04-01",
    ]  # fmt: skip
    assert ds.dataset(tmp_path / "out").to_table()["n"].to_pylist() == [0, 2, 5, 1, 3, 4]


def test_row_groups_do_not_depend_on_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.days.ROW_GROUP_ROWS", 10)
    rows = pa.RecordBatch.from_pydict({"t": list(range(35))})
    found = []
    for name, cut in (("a", 35), ("b", 4)):
        with DayFolder(tmp_path / name, "t") as days:
            for start in range(0, 35, cut):
                days.write(rows.slice(start, cut))
            days.finish({})
        found.append((tmp_path / name / "day=1970-01-01" / "part-0.parquet").read_bytes())
    assert found[0] == found[1]
    metadata = pq.read_metadata(tmp_path / "b" / "day=1970-01-01" / "part-0.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [10, 10, 10, 5]


@pytest.mark.parametrize(
    ("enrichments", "message"),
    [
        ({}, "enrichment 'rates': missing; give --enrichment rates=FILE, or rates=none for nulls"),
        ({"rate": ()}, "enrichment 'rate': the pipeline has none of this name; did you mean 'rates'?"),
    ],
)
def test_enrichments_are_named_or_left_out_on_purpose(
    enrichments: dict[str, tuple[Path, ...]], message: str, tmp_path: Path
) -> None:
    pq.write_table(columns(EVENTS), tmp_path / "events.parquet")
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        write_backfill(PIPELINE, FLIGHTS, Files((tmp_path / "events.parquet",), enrichments), tmp_path / "out", 1)
    found = features(Files((tmp_path / "events.parquet",), {"rates": ()}), tmp_path / "out")
    assert found["rate"].null_count == found.num_rows == 80


def test_files_are_found_in_order_and_errors_say_what_is_near(tmp_path: Path) -> None:
    for name in ("b/day=2/x.parquet", "b/day=1/y.parquet", "b/_letters.parquet", "b/.draft/z.parquet", "c/t.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_files(tmp_path / "b")] == ["y.parquet", "x.parquet"]
    with pytest.raises(InputError, match=r"holds both \.parquet and \.csv files"):
        find_files(tmp_path)
    with pytest.raises(InputError, match=r"t\.cvs: no such file or folder; did you mean 't\.csv'\?"):
        find_files(tmp_path / "c" / "t.cvs")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"notes\.txt: is neither \.parquet nor \.csv"):
        find_files(tmp_path / "notes.txt")


def test_bad_csv_and_histories_with_files_beside_them_are_refused(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("id,at_ms,user,shop,amount,units\na,1,u,s,much,2\n")
    with pytest.raises(InputError, match=r"e\.csv: cannot be read as CSV of the contract: .*invalid value 'much'"):
        write_backfill(PIPELINE, FLIGHTS, Files((tmp_path / "e.csv",), {"rates": ()}), tmp_path / "out", 1)
    files = history(tmp_path / "h.parquet", IN_TIME)
    with pytest.raises(InputError, match=r"'rates': .*h\.parquet is a history, which holds all topics"):
        write_backfill(PIPELINE, FLIGHTS, Files(files.source, {"rates": ()}), tmp_path / "out", 1)
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(HistoryError, match="cannot be read"):
        write_backfill(PIPELINE, FLIGHTS, Files((tmp_path / "text.parquet",), {}), tmp_path / "out", 1)


def test_digests_are_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert describe_files([tmp_path / "x"])[0]["sha256"].startswith("ba7816bf8f01cfea")


def test_event_time_needs_no_history_and_kafka_order_needs_a_timestamp(tmp_path: Path) -> None:
    table = columns(EVENTS)
    pq.write_table(table, tmp_path / "e.parquet")
    with pytest.raises(Exception, match="has no column '_timestamp_ms'"):
        write_backfill(PIPELINE, FLIGHTS, Files((tmp_path / "e.parquet",), {"rates": ()}, "kafka"), tmp_path / "out", 1)
    backwards = pa.array(np.arange(table.num_rows)[::-1])
    pq.write_table(table.append_column("_timestamp_ms", backwards), tmp_path / "e.parquet")
    write_backfill(PIPELINE, FLIGHTS, Files((tmp_path / "e.parquet",), {"rates": ()}, "kafka"), tmp_path / "out", 1)
    late = read_provenance(tmp_path / "out")["counts"]["late"]
    assert late["late"] > 10
