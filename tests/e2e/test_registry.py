"""The registry for real: register, resolve, move the alias, and every way in which a model is refused."""

import datetime as dt
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec import structs
from typer.testing import CliRunner

from flink_jobs.cli import app
from models.catalog import describe, list_models
from models.lifecycle import Outcome, train_and_register
from models.registry import ResolvedModel, resolve, verify
from models.tracking import RegistryDownError, RegistryError, connect
from models.versions import digest_tag
from scripts.services.endpoints import Endpoints
from tests import hostile, synthetic
from udfs.core.model.contract import ModelContract
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import Scorer

TRAIN_UNTIL, TEST_UNTIL = dt.date(2023, 11, 19), dt.date(2023, 11, 21)
LIMIT_S = 15  # a refusal that takes longer would look like a hang


@pytest.fixture(scope="module")
def uri(services: Endpoints) -> str:
    return services.mlflow


@pytest.fixture(scope="module")
def name() -> str:
    return f"shop-refund-{time.time_ns()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    folder = synthetic.write_pipeline(tmp_path_factory.mktemp("registry") / "shop")
    file = folder / "pipeline.yaml"
    file.write_text(file.read_text().replace("shop-refund", name))
    synthetic.write_orders(folder / "history.parquet")
    return folder


def register(folder: Path, uri: str, alias: str | None = "champion", trees: int = 20) -> Outcome:
    parameters = replace(synthetic.QUICK, num_iterations=trees)
    return train_and_register(folder, folder / "history.parquet", TRAIN_UNTIL, TEST_UNTIL, uri, alias, parameters)


@pytest.fixture(scope="module")
def first(folder: Path, uri: str, name: str) -> Iterator[Outcome]:
    yield register(folder, uri)
    with connect(uri) as client:
        client.delete_registered_model(name)


@pytest.fixture
def resolved(first: Outcome, uri: str, name: str, tmp_path: Path) -> ResolvedModel:
    return resolve(name, "champion", uri, first.trained.feature_set, into=tmp_path)


def overwrite(uri: str, outcome: Outcome, file: str, content: bytes) -> None:
    """Replace a file of a registered version, as anybody with access to the server can."""
    with connect(uri) as client:
        run = client.get_run(outcome.registered.run_id).info
    path = run.artifact_uri.removeprefix("mlflow-artifacts:/")
    url = f"{uri}/api/2.0/mlflow-artifacts/artifacts/{path}/model/{file}"
    with urllib.request.urlopen(urllib.request.Request(url, content, method="PUT"), timeout=10) as reply:
        assert reply.status == 200


def test_what_was_registered_is_what_comes_back(first: Outcome, resolved: ResolvedModel) -> None:
    contract = first.model.exported.contract
    assert resolved.contract.version == first.registered.version
    assert (resolved.contract.tensors, resolved.contract.sha256) == (contract.tensors, contract.sha256)
    assert resolved.digests == first.registered.digests
    assert ModelContract.read(resolved.folder) == resolved.contract
    assert sorted(file.name for file in resolved.folder.iterdir()) == ["contract.json", "golden.json", "model.onnx"]
    assert resolved.folder.stat().st_mode & 0o777 == 0o700
    rows = first.trained.test.select(first.trained.model.columns)
    again = Scorer(first.model.exported.onnx, contract).score(rows)
    assert (Scorer.load(resolved.folder).score(rows) == again).all()


def test_the_baseline_comes_back_too(first: Outcome, uri: str, name: str, tmp_path: Path) -> None:
    found = resolve(name, "champion", uri, first.trained.feature_set, into=tmp_path, baseline=True)
    assert found.contract.inputs == ["amount", "discount", "risk"]
    assert found.contract.sha256 == first.baseline.exported.contract.sha256


def test_the_light_client_is_enough(first: Outcome, uri: str, name: str) -> None:
    code = f"""
        import sys
        from importlib.machinery import PathFinder

        HEAVY = set("onnx onnxmltools skl2onnx lightgbm sklearn scipy pandas flask sqlalchemy alembic graphene".split())

        class Light(PathFinder):
            @classmethod
            def find_spec(cls, module, path=None, target=None):
                return None if module.split(".")[0] in HEAVY else PathFinder.find_spec(module, path, target)

        sys.meta_path = [Light if finder is PathFinder else finder for finder in sys.meta_path]
        from models.registry import resolve
        print(resolve({name!r}, "champion", {uri!r}, {first.trained.feature_set!r}).folder)
        assert not HEAVY & set(sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    folder = Path(done.stdout.strip())
    assert (folder / "model.onnx").exists()
    shutil.rmtree(folder)


def test_an_alias_moves_and_a_resolved_model_stays(
    first: Outcome, resolved: ResolvedModel, folder: Path, uri: str, name: str, tmp_path: Path
) -> None:
    before = (resolved.folder / "model.onnx").read_bytes()
    second = register(folder, uri, alias=None, trees=10)
    feature_set = first.trained.feature_set
    assert resolve(name, "champion", uri, feature_set, into=tmp_path).contract == resolved.contract
    with connect(uri) as client:
        client.set_registered_model_alias(name, "champion", second.registered.version)
    moved = resolve(name, "champion", uri, feature_set, into=tmp_path)
    assert moved.contract.version == second.registered.version
    assert moved.contract.sha256 != resolved.contract.sha256
    older = resolve(name, "champion", uri, feature_set, version=first.registered.version, into=tmp_path)
    assert (older.folder / "model.onnx").read_bytes() == before
    with connect(uri) as client:
        client.set_registered_model_alias(name, "champion", first.registered.version)


def test_unknown_names_are_refused_with_the_nearest_known_one(first: Outcome, uri: str, name: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(ModelRefusedError, match=r"no alias 'champoin' \(aliases: champion -> version 1\);") as error:
        resolve(name, "champoin", uri, first.trained.feature_set)
    assert error.value.reason is Refusal.UNKNOWN
    with pytest.raises(ModelRefusedError, match=f"no registered model '{name}x'; did you mean '{name}'"):
        resolve(f"{name}x", "champion", uri, first.trained.feature_set)
    with pytest.raises(ModelRefusedError, match=r"has no version '99'; versions: 1"):
        resolve(name, "champion", uri, first.trained.feature_set, version="99")
    assert time.monotonic() - began_s < LIMIT_S


def test_another_feature_set_is_refused_and_leaves_nothing(first: Outcome, uri: str, name: str, tmp_path: Path) -> None:
    text = (
        f"trained on feature set {first.trained.feature_set}; the pipeline has 0123456789abcdef; retrain .* or restore"
    )
    with pytest.raises(ModelRefusedError, match=text) as error:
        resolve(name, "champion", uri, "0123456789abcdef", into=tmp_path)
    assert error.value.reason is Refusal.FEATURE_SET
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["model.onnx", "contract.json", "golden.json"])
def test_a_file_changed_in_the_registry_is_refused(
    first: Outcome, resolved: ResolvedModel, uri: str, name: str, tmp_path: Path, file: str
) -> None:
    original = first.model.exported.onnx if file == "model.onnx" else download(uri, first, file)
    changed = original.replace(b"0.5", b"0.9") if file == "contract.json" else original[:-1] + bytes([original[-1] ^ 1])
    overwrite(uri, first, file, changed)
    try:
        text = rf"{file} has sha256 \w+; the version's tag .* was changed after registration"
        with pytest.raises(ModelRefusedError, match=text) as error:
            resolve(name, "champion", uri, first.trained.feature_set, into=tmp_path)
        assert error.value.reason is Refusal.DIGEST
    finally:
        overwrite(uri, first, file, original)
    assert resolve(name, "champion", uri, first.trained.feature_set, into=tmp_path).contract == resolved.contract


def download(uri: str, outcome: Outcome, file: str) -> bytes:
    with connect(uri) as client:
        path = client.get_run(outcome.registered.run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    with urllib.request.urlopen(f"{uri}/api/2.0/mlflow-artifacts/artifacts/{path}/model/{file}", timeout=10) as reply:
        content: bytes = reply.read()
    return content


def test_a_digest_that_fits_the_tag_but_not_the_contract_is_refused(
    folder: Path, uri: str, name: str, tmp_path: Path
) -> None:
    outcome = register(folder, uri, alias=None)
    other = outcome.baseline.exported.onnx
    overwrite(uri, outcome, "model.onnx", other)
    version = outcome.registered.version
    with connect(uri) as client:
        client.set_model_version_tag(name, version, "sha256", hashlib.sha256(other).hexdigest())
    with pytest.raises(ModelRefusedError, match=r"its contract says .* the file was changed after registration"):
        resolve(name, "champion", uri, outcome.trained.feature_set, version=version, into=tmp_path)


def test_a_model_that_headrace_did_not_register_is_refused(uri: str, name: str, first: Outcome, tmp_path: Path) -> None:
    with connect(uri) as client:
        run = client.get_run(first.registered.run_id).info
        empty = client.create_model_version(name, f"{run.artifact_uri}/elsewhere", run.run_id)
    with pytest.raises(ModelRefusedError, match=r"file model\.onnx is missing in the registry \(has: none\); register"):
        resolve(name, "champion", uri, first.trained.feature_set, version=str(empty.version), into=tmp_path)


def test_files_tags_and_contract_changed_together_are_told_by_digests_kept_elsewhere(
    folder: Path, uri: str, name: str, tmp_path: Path
) -> None:
    """Who may write to the registry can make a version whole again; a record of one's own still knows better."""
    outcome, other = register(folder, uri, alias=None), register(folder, uri, alias=None, trees=5)
    version, feature_set = outcome.registered.version, outcome.trained.feature_set
    for file in ("model.onnx", "contract.json", "golden.json"):
        content = download(uri, other, file)
        overwrite(uri, outcome, file, content)
        with connect(uri) as client:
            client.set_model_version_tag(name, version, digest_tag(file), hashlib.sha256(content).hexdigest())
    found = resolve(name, "champion", uri, feature_set, version=version, into=tmp_path)
    for check in (
        lambda: verify(found, outcome.registered.digests),
        lambda: verify(found, {"contract.json": outcome.registered.digests["contract.json"]}),
        lambda: resolve(
            name, "", uri, feature_set, version=version, into=tmp_path, expected_digests=outcome.registered.digests
        ),
    ):
        with pytest.raises(ModelRefusedError, match=r"has sha256 \w+; the one expected is \w+") as error:
            check()
        assert error.value.reason is Refusal.DIGEST
    verify(found, other.registered.digests)


def test_a_pickle_in_a_version_is_refused_though_nothing_reads_it(uri: str, name: str, first: Outcome) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LogisticRegression

    estimator, pickled = LogisticRegression().fit([[0.0], [1.0]], [0, 1]), f"{name}-pickle"
    with connect(uri) as client:
        path = client.get_run(first.registered.run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")
        mlflow.set_tracking_uri(uri)
        mlflow.sklearn.log_model(estimator, name="m", registered_model_name=pickled, serialization_format="pickle")
    with pytest.raises(ModelRefusedError, match=r"has model\.pkl: Python objects") as error:
        resolve(pickled, "", uri, None, version="1")
    assert error.value.reason is Refusal.PICKLE
    # One file beside a version that is otherwise whole.
    version = first.registered.version
    url = f"{uri}/api/2.0/mlflow-artifacts/artifacts/{path}/model/python_model.pkl"
    urllib.request.urlopen(urllib.request.Request(url, b"cos\nsystem\n.", method="PUT"), timeout=10).close()
    try:
        with pytest.raises(ModelRefusedError, match=r"has python_model\.pkl: Python objects"):
            resolve(name, "", uri, None, version=version)
    finally:
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10).close()
        with connect(uri) as client:
            client.delete_registered_model(pickled)
    shutil.rmtree(resolve(name, "", uri, None, version=version).folder)


def test_a_hostile_file_that_is_whole_for_the_registry_is_refused(
    folder: Path, uri: str, name: str, tmp_path: Path
) -> None:
    """Digests, tags and contract fit; only what the file is tells."""
    outcome = register(folder, uri, alias=None)
    version = outcome.registered.version
    contract = ModelContract.decode(download(uri, outcome, "contract.json"))
    for make, reason in (hostile.FILES[kind] for kind in ("external data", "a pickle", "an opset of the future")):
        content = make()
        files = contract.files | {"model.onnx": hashlib.sha256(content).hexdigest()}
        stored = {"model.onnx": content, "contract.json": structs.replace(contract, files=files).encode()}
        for file, changed in stored.items():
            overwrite(uri, outcome, file, changed)
            with connect(uri) as client:
                client.set_model_version_tag(name, version, digest_tag(file), hashlib.sha256(changed).hexdigest())
        with pytest.raises(ModelRefusedError) as error:
            resolve(name, "", uri, None, version=version, into=tmp_path)
        assert error.value.reason is reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "source", "text"),
    [
        ("1", "file:///etc", "does not read from there"),
        ("1", "mlflow-artifacts:/1/../../x", "does not read from there"),
        ("../../1", "mlflow-artifacts:/1/x", r"calls its version '\.\./\.\./1'; a number is expected"),
    ],
)
def test_a_registry_that_leads_elsewhere_is_refused(number: str, source: str, text: str, tmp_path: Path) -> None:
    with hostile_registry(number, source) as address:
        with pytest.raises(ModelRefusedError, match=text) as error:
            resolve("m", "champion", address, None, into=tmp_path)
        assert error.value.reason is Refusal.PATH
    assert list(tmp_path.iterdir()) == []


@contextmanager
def hostile_registry(number: str, source: str) -> Iterator[str]:
    """A server that speaks MLflow's protocol and answers with places that a client should not go to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body: dict[str, object] = {}
            if "registered-models/get" in self.path:
                body = {"registered_model": {"name": "m", "aliases": [{"alias": "champion", "version": number}]}}
            elif "model-versions/get-download-uri" in self.path:
                body = {"artifact_uri": source}
            elif "model-versions/get" in self.path:
                body = {"model_version": {"name": "m", "version": number, "creation_timestamp": 1}}
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name of the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_is_not_mlflow_is_refused(services: Endpoints) -> None:
    began_s = time.monotonic()
    with pytest.raises(RegistryError, match="is it an MLflow server"):
        resolve("m", "champion", services.flink, "f")
    assert time.monotonic() - began_s < LIMIT_S


def test_a_server_that_hangs_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began_s = time.monotonic()
        with pytest.raises(RegistryDownError, match=r"no MLflow at .* timed out"):
            resolve("m", "champion", f"http://127.0.0.1:{server.getsockname()[1]}", "f")
        assert time.monotonic() - began_s < LIMIT_S


def test_people_can_look(first: Outcome, uri: str, name: str) -> None:
    [entry] = [one for one in list_models(uri) if one.name == name]
    assert entry.aliases == {"champion": first.registered.version}
    found = describe(f"{name}@champion", uri)
    assert (found.sha256, found.pipeline) == (first.model.exported.contract.sha256, "shop")
    assert found.metrics["auc"] == pytest.approx(first.model.evaluation.auc)
    run = CliRunner().invoke(app, ["models", "show", f"{name}@champion", "--mlflow", uri])
    assert (run.exit_code, found.sha256 in run.output) == (0, True)
    wrong = CliRunner().invoke(app, ["models", "show", f"{name}@champ", "--mlflow", uri])
    assert (wrong.exit_code, "has no alias 'champ'" in wrong.output) == (1, True)
