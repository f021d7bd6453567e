"""The registry goes away: the version that was resolved last is used, if that is allowed, checked again, and said."""

import datetime as dt
import json
import logging
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flink_jobs.config import MLflow
from models.cache import KEPT, Known, ModelCache
from models.lifecycle import Outcome, train_and_register
from models.registry import ResolvedModel, resolve
from models.tracking import RegistryDownError, connect
from scripts.services.endpoints import Endpoints
from tests import synthetic
from udfs.core.model.contract import ModelContract
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import Scorer

LIMIT_S = 15


class Line:
    """A line to the registry that can be cut and mended: a TCP relay on loopback."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target, self._port, self._server = target, 0, socket.socket()
        self.mend()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def mend(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self._port))
        self._port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def cut(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(self._target)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while content := one.recv(65_536):
                other.sendall(content)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def name() -> str:
    return f"shop-cached-{time.time_ns()}"


@pytest.fixture(scope="module")
def outcomes(
    services: Endpoints, name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Outcome, Outcome]]:
    folder = synthetic.write_pipeline(tmp_path_factory.mktemp("cached") / "shop")
    file = folder / "pipeline.yaml"
    file.write_text(file.read_text().replace("shop-refund", name))
    history = synthetic.write_orders(folder / "history.parquet")
    days = (dt.date(2023, 11, 19), dt.date(2023, 11, 21))

    def register(trees: int) -> Outcome:
        parameters = replace(synthetic.QUICK, num_iterations=trees)
        return train_and_register(folder, history, *days, services.mlflow, None, parameters)

    first, second = register(10), register(5)
    with connect(services.mlflow) as client:
        client.set_registered_model_alias(name, "champion", first.registered.version)
    yield first, second
    with connect(services.mlflow) as client:
        client.delete_registered_model(name)


@pytest.fixture
def line(services: Endpoints) -> Iterator[Line]:
    host, _, port = services.mlflow.removeprefix("http://").partition(":")
    line = Line((host, int(port)))
    yield line
    line.cut()


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache")


@pytest.fixture
def kept(outcomes: tuple[Outcome, Outcome], line: Line, name: str, cache: ModelCache, tmp_path: Path) -> ResolvedModel:
    """Resolve while the line is up, then cut it."""
    found = resolve(name, "champion", line.uri, outcomes[0].trained.feature_set, into=tmp_path, cache=cache)
    assert not found.contract.from_cache
    line.cut()
    return found


def test_the_last_known_version_is_used_and_said(
    kept: ResolvedModel,
    outcomes: tuple[Outcome, Outcome],
    line: Line,
    name: str,
    cache: ModelCache,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    feature_set = outcomes[0].trained.feature_set
    began_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        found = resolve(name, "champion", line.uri, feature_set, into=tmp_path, cache=cache)
    assert time.monotonic() - began_s < LIMIT_S
    assert (found.contract.from_cache, found.digests) == (True, kept.digests)
    assert ModelContract.read(found.folder).from_cache
    assert found.contract.version == outcomes[0].registered.version
    [record] = caplog.records
    for words in ("no MLflow at", f"model {name}@champion is taken from the cache: version 1", found.contract.sha256):
        assert words in record.getMessage()
    rows = outcomes[0].trained.test.select(outcomes[0].trained.model.columns)
    assert (Scorer.load(found.folder).score(rows) == Scorer.load(kept.folder).score(rows)).all()
    # Whoever resolved the alias hands the number on; nobody asked for it while the registry was up.
    by_number = resolve(name, "champion", line.uri, feature_set, version="1", into=tmp_path, cache=cache)
    assert by_number.digests == kept.digests


def test_without_a_cache_a_registry_that_is_down_is_an_error(
    kept: ResolvedModel, line: Line, name: str, tmp_path: Path
) -> None:
    with pytest.raises(RegistryDownError, match="no MLflow at"):
        resolve(name, "champion", line.uri, kept.contract.feature_set, into=tmp_path)


def test_what_was_never_resolved_is_not_known(
    kept: ResolvedModel, line: Line, name: str, cache: ModelCache, tmp_path: Path
) -> None:
    for asked in ((name, "challenger", line.uri), (f"{name}x", "champion", line.uri), (name, "champion", "http://x:1")):
        with pytest.raises(RegistryDownError):
            resolve(*asked, kept.contract.feature_set, into=tmp_path, cache=cache)


def test_what_the_cache_holds_is_checked_again(
    kept: ResolvedModel, line: Line, name: str, cache: ModelCache, tmp_path: Path
) -> None:
    feature_set = kept.contract.feature_set
    with pytest.raises(ModelRefusedError, match="was trained on feature set") as error:
        resolve(name, "champion", line.uri, "another", into=tmp_path, cache=cache)
    assert error.value.reason is Refusal.FEATURE_SET
    expected = {"contract.json": "0" * 64}
    with pytest.raises(ModelRefusedError, match="the one expected is") as error:
        resolve(name, "champion", line.uri, feature_set, into=tmp_path, cache=cache, expected_digests=expected)
    assert error.value.reason is Refusal.DIGEST
    [folder] = (cache.root / "versions").iterdir()
    model = folder / "model.onnx"
    original = model.read_bytes()
    model.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(ModelRefusedError, match=r"model\.onnx: has sha256 .* when it was kept") as error:
        resolve(name, "champion", line.uri, feature_set, into=tmp_path, cache=cache)
    assert error.value.reason is Refusal.DIGEST
    model.unlink()
    model.symlink_to(kept.folder / "model.onnx")
    with pytest.raises(ModelRefusedError) as error:
        resolve(name, "champion", line.uri, feature_set, into=tmp_path, cache=cache)
    assert error.value.reason is Refusal.SYMLINK


def test_a_cache_that_others_can_write_to_is_not_used(
    kept: ResolvedModel, line: Line, name: str, cache: ModelCache, tmp_path: Path
) -> None:
    cache.root.chmod(0o777)
    with pytest.raises(ModelRefusedError, match="nobody else can write to") as error:
        resolve(name, "champion", line.uri, kept.contract.feature_set, into=tmp_path, cache=cache)
    assert error.value.reason is Refusal.PATH


def test_a_cache_that_cannot_be_written_to_stops_nobody(
    outcomes: tuple[Outcome, Outcome], line: Line, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    cache = ModelCache(tmp_path / "file" / "cache")
    found = resolve(name, "champion", line.uri, outcomes[0].trained.feature_set, into=tmp_path, cache=cache)
    assert found.contract.version == "1"
    assert "is not kept for when the registry is down" in caplog.text


def test_the_registry_is_asked_first_and_its_no_counts(
    kept: ResolvedModel, outcomes: tuple[Outcome, Outcome], line: Line, name: str, cache: ModelCache, tmp_path: Path
) -> None:
    line.mend()
    feature_set = kept.contract.feature_set
    with pytest.raises(ModelRefusedError, match="has no alias 'gone'") as error:
        resolve(name, "gone", line.uri, feature_set, into=tmp_path, cache=cache)
    assert error.value.reason is Refusal.UNKNOWN
    with connect(line.uri) as client:
        client.set_registered_model_alias(name, "champion", outcomes[1].registered.version)
    try:
        moved = resolve(name, "champion", line.uri, feature_set, into=tmp_path, cache=cache)
        assert (moved.contract.version, moved.contract.from_cache) == (outcomes[1].registered.version, False)
        line.cut()
        again = resolve(name, "champion", line.uri, feature_set, into=tmp_path, cache=cache)
        assert (again.contract.version, again.contract.from_cache) == (outcomes[1].registered.version, True)
        older = resolve(name, "", line.uri, feature_set, version="1", into=tmp_path, cache=cache)
        assert older.digests == kept.digests
    finally:
        line.mend()
        with connect(line.uri) as client:
            client.set_registered_model_alias(name, "champion", outcomes[0].registered.version)


@contextmanager
def failing(status: int) -> Iterator[str]:
    """A gateway with nobody behind it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" and status == 500 else status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name of the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_registry_that_only_fails_counts_as_down(status: int) -> None:
    began_s = time.monotonic()
    with failing(status) as address, pytest.raises(RegistryDownError):
        resolve("m", "champion", address, None)
    assert time.monotonic() - began_s < LIMIT_S


@pytest.mark.parametrize("status", [401, 403])
def test_a_registry_that_says_no_does_not_count_as_down(status: int, cache: ModelCache) -> None:
    from models.tracking import RegistryError

    with failing(status) as address, pytest.raises(RegistryError) as error:
        resolve("m", "champion", address, None, cache=cache)
    assert not isinstance(error.value, RegistryDownError)


def test_old_answers_are_forgotten_and_the_folder_stays_small(cache: ModelCache) -> None:
    files = {"model.onnx": b"m", "contract.json": b"c", "golden.json": b"g"}
    for i in range(KEPT + 5):
        digests = dict.fromkeys(files, f"{i:064x}")
        cache.remember(Known("http://r", f"m{i}", "@champion", "1", digests, i), files)
    assert len(list((cache.root / "known").iterdir())) == KEPT
    assert cache.recall("http://r", "m0", "@champion") is None
    with pytest.raises(ModelRefusedError, match="when it was kept"):
        cache.recall("http://r", f"m{KEPT + 4}", "@champion")
    assert cache.root.stat().st_mode & 0o777 == 0o700


def test_the_policy_is_the_environment_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_MODEL_CACHE", str(tmp_path / "c"))
    assert MLflow.model_validate({"tracking_uri": "http://r"}).cache is None
    allowed = MLflow.model_validate({"tracking_uri": "http://r", "when_down": "last_known_good"})
    assert allowed.cache == ModelCache(tmp_path / "c")
    assert json.loads(allowed.model_dump_json())["when_down"] == "last_known_good"
    shutil.rmtree(tmp_path / "c", ignore_errors=True)
