"""`headrace online write` on a real server: the newest row of each key of a backfill, fenced, by the command."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from flink_jobs.cli import app
from models.backfill import write_backfill
from models.history import write_history
from models.inputs import Files
from tests.e2e.redis_server import free_port, redis_server
from tests.samples import FLIGHTS, Sent, cut, declaration, payment, random_payments
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import load_pipeline
from udfs.core.offline.featurize import featurize_offline
from udfs.core.plan.features import feature_set_hash
from udfs.online.backfill import write_online
from udfs.online.reader import OnlineStore

PREFIX = "shop"
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    number = free_port()
    with redis_server(number):
        yield number


@pytest.fixture
def store(port: int) -> Iterator[Redis]:
    """An empty store."""
    with Redis(port=port, decode_responses=True) as client:
        client.flushall()
        yield client


def declared(folder: Path, **changes: object) -> Pipeline:
    """Write the pipeline's folder and load it."""
    folder.mkdir(exist_ok=True)
    document = declaration(**changes)
    document["sinks"] |= {"online_store": {"prefix": PREFIX}} if "sinks" not in changes else {}
    (folder / "pipeline.yaml").write_text(json.dumps(document), encoding="utf-8")
    return load_pipeline(folder)


def stream(days: int = 3) -> list[Sent]:
    """Return payments of some days, and two of one time at the end of each: the later one counts."""
    sent: list[Sent] = []
    for day in range(days):
        sent += random_payments(day, 60, start_ms=day * DAY_MS)
        last_ms = day * DAY_MS + 10**7
        sent += [payment(i, last_ms, "u0", shop="s0", amount=float(i), units=i) for i in range(2)]
    return [Sent(one.topic, one.key, one.row | {"id": f"e{i}"}) for i, one in enumerate(sent)]


def backfilled(folder: Path, out: Path, sent: list[Sent]) -> None:
    history = out.with_suffix(".parquet")
    keys = [one.key.encode() if one.key else None for one in sent]
    values = [json.dumps(one.row).encode() for one in sent]
    write_history(history, [one.topic for one in sent], keys, values, [10**9] * len(sent))
    write_backfill(load_pipeline(folder), folder, Files((history,), {}), out, 2)


def written(rows: Path, folder: Path, redis_url: str, variables: dict[str, str] | None = None) -> Result:
    """Call the command as a user does."""
    environment = folder / "environment.json"
    flink = {"rest_url": "http://nowhere", "checkpoints": "file:///c", "savepoints": "file:///s"}
    document = {
        "kafka": {"bootstrap_servers": "nowhere:9092"},
        "redis": {"url": redis_url},
        "mlflow": {"tracking_uri": "http://nowhere"},
        "flink": flink,
    }
    environment.write_text(json.dumps(document), encoding="utf-8")
    arguments = ["online", "write", str(rows), "--pipeline", str(folder), "--environment", str(environment)]
    return CliRunner().invoke(app, arguments, env=variables)


def test_the_newest_row_of_each_key_is_readable_and_a_newer_one_stays(store: Redis, port: int, tmp_path: Path) -> None:
    folder, sent, url = tmp_path / "shop", stream(), f"redis://127.0.0.1:{port}/0"
    pipeline = declared(folder)
    backfilled(folder, tmp_path / "rows", sent)
    done = written(tmp_path / "rows", folder, "redis://127.0.0.1:${env:STORE_PORT}/0", {"STORE_PORT": str(port)})
    assert done.exit_code == 0, done.output
    assert "rows written, 0 older than what is there" in done.stdout
    live = featurize_offline(pipeline, FLIGHTS, cut(sent)).rows
    found = newest(live)
    assert found["u0"]["units"] == 1, "of two events of one time the later one"
    names = [name for name in live.column_names if name.startswith("user_")]
    with OnlineStore.connect(url, PREFIX) as reader:
        for key, row in found.items():
            read = reader.read("user", key, now_ms=row["at_ms"])
            assert [read.values[name] for name in names] == [row[name] for name in names]

    # A job has gone on meanwhile, with one user: its row stays.
    later = featurize_offline(pipeline, FLIGHTS, cut([payment(0, 4 * DAY_MS, "u0", shop="s0", amount=7.0)])).rows
    write_online(url, PREFIX, pipeline, feature_set_hash(pipeline, folder), later)
    before = {key: store.get(key) for key in ("shop:user:{u0}", "shop:shop:{s0}")}
    again = written(tmp_path / "rows", folder, url)
    assert again.exit_code == 0, again.output
    assert ", 0 older" not in again.stdout
    assert {key: store.get(key) for key in before} == before


def newest(rows: pa.Table) -> dict[str, dict[str, Any]]:
    """Return the last row of each user, found the plain way."""
    ordered = sorted(rows.to_pylist(), key=lambda row: (row["at_ms"], row["_seq_user"]))
    return {row["user"]: row for row in ordered if row["user"] is not None}


def test_rows_of_other_features_are_refused(port: int, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    declared(folder)
    backfilled(folder, tmp_path / "rows", stream(1))
    declared(folder, features=[{"entity": "user", "take": ["count"], "over": ["8s"]}])
    done = written(tmp_path / "rows", folder, f"redis://127.0.0.1:{port}/0")
    assert done.exit_code == 1
    assert "is of feature set" in done.stderr
    assert "run the backfill again" in done.stderr


def test_a_pipeline_without_a_store_and_a_folder_of_somebody_else_are_refused(port: int, tmp_path: Path) -> None:
    folder, url = tmp_path / "shop", f"redis://127.0.0.1:{port}/0"
    declared(folder)
    done = written(tmp_path, folder, url)
    assert (done.exit_code, "_provenance.json: cannot be read" in done.stderr) == (1, True)
    declared(folder, sinks=declaration()["sinks"])
    done = written(tmp_path, folder, url)
    assert (done.exit_code, "the pipeline has no online store" in done.stderr) == (1, True)


def test_a_store_that_is_away_is_said_without_its_password(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    declared(folder)
    backfilled(folder, tmp_path / "rows", stream(1))
    done = written(tmp_path / "rows", folder, f"redis://:hidden@127.0.0.1:{free_port()}/0")
    assert done.exit_code == 1
    assert "call it again when the store is back" in done.stderr
    assert "hidden" not in done.output
