"""A model that must not score is refused, and the reason is a word; what looking cannot tell, a trial run does."""

import json
import os
import random
import re
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models import trial
from models.check import IR_VERSIONS, OPSETS, check_model
from models.formats import refuse_other_formats, refuse_pickle_names
from models.golden import Golden
from models.onnx_wire import references
from models.package import Package
from models.registry import ResolvedModel, verify
from models.versions import safe_source
from tests import hostile
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.files import FILES, MAX_BYTES, read_file, sha256
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import Scorer

ROWS = np.array([[1, 2], [-3, 4], [0, 0], [5, -6], [0.5, 0.25]], np.float64)
BIT_FLIPS = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed model."""
    data = hostile.data()
    Package.seal(data, hostile.contract_of(data), ROWS).write(tmp_path)
    return tmp_path


def digests(folder: Path) -> dict[str, str]:
    return {file: sha256((folder / file).read_bytes()) for file in FILES}


def reason_of(error: pytest.ExceptionInfo[ModelRefusedError]) -> Refusal:
    assert str(error.value).endswith(f"[{error.value.reason}]")
    return error.value.reason


def test_a_plain_model_passes(folder: Path) -> None:
    package = Package.read(folder)
    assert package.contract.takes_nulls
    assert len(package.golden.inputs) == len(ROWS) + 1
    expected = 1 / (1 + np.exp(-(ROWS.sum(axis=1) + 0.5)))
    np.testing.assert_allclose(package.golden.scores[:-1], expected, rtol=1e-6)
    assert package.contract.files.keys() == {"model.onnx", "golden.json"}
    assert set(digests(folder)) == set(FILES)


@pytest.mark.parametrize(("make", "reason"), hostile.FILES.values(), ids=hostile.FILES)
def test_a_hostile_file_is_refused(make: object, reason: Refusal) -> None:
    content = make() if callable(make) else b""
    began_s = time.monotonic()
    with pytest.raises(ModelRefusedError, match=r"^model m version 3: ") as error:
        Package.seal(content, hostile.contract_of(content), ROWS)
    assert reason_of(error) is reason
    assert time.monotonic() - began_s < 5


def test_every_reason_has_a_test() -> None:
    texts = [path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py")]
    named = {name for text in texts for name in re.findall(r"\bRefusal\.([A-Z_]+)", text)}
    assert {reason.name for reason in Refusal} == named | {reason.name for _, reason in hostile.FILES.values()}


def test_a_model_that_never_ends_is_given_up() -> None:
    data = hostile.data(hostile.endless)
    scorer = Scorer(data, hostile.contract_of(data))
    began_s = time.monotonic()
    with pytest.raises(ModelRefusedError, match=r"a batch of 5 rows took more than 0\.2 s") as error:
        trial.trial(scorer, ROWS.astype(np.float32), limit_s=0.2)
    assert reason_of(error) is Refusal.TIMEOUT
    assert time.monotonic() - began_s < 3


def test_a_large_file_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_BYTES, "model.onnx", 100)
    data = hostile.data()
    with pytest.raises(ModelRefusedError, match=r"has \d+ bytes; at most 100 are allowed") as error:
        check_model(data, hostile.contract_of(data))
    assert reason_of(error) is Refusal.TOO_LARGE


def test_deep_nesting_is_refused() -> None:
    graph = b""
    for number in (6, 5, 1) * 25:  # graph of an attribute of a node of a graph
        graph = bytes([number << 3 | 2]) + varint(len(graph)) + graph
    with pytest.raises(ModelRefusedError, match="messages nested deeper than 64") as error:
        references(bytes([7 << 3 | 2]) + varint(len(graph)) + graph)
    assert reason_of(error) is Refusal.NOT_ONNX


def varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7])


def test_every_cut_of_a_file_is_refused() -> None:
    """Only the file's last field, its metadata, can be cut off whole; what is left is a model, but not that one."""
    data = hostile.data()
    reasons = []
    for end in range(len(data)):
        with pytest.raises(ModelRefusedError) as error:
            check_model(data[:end], hostile.contract_of(data))
        reasons.append(error.value.reason)
    assert set(reasons) == {Refusal.TRUNCATED, Refusal.DIGEST}
    assert reasons.count(Refusal.DIGEST) == 1


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_bit_is_refused(folder: Path, file: str) -> None:
    registered = digests(folder)
    original = (folder / file).read_bytes()
    chance = random.Random(1)
    for position in chance.sample(range(8 * len(original)), min(BIT_FLIPS, 8 * len(original))):
        flipped = bytearray(original)
        flipped[position // 8] ^= 1 << position % 8
        (folder / file).write_bytes(flipped)
        found = ResolvedModel(folder, hostile.contract_of(b""), digests(folder))
        with pytest.raises(ModelRefusedError, match=f"{file} has sha256") as error:
            verify(found, registered)
        assert reason_of(error) is Refusal.DIGEST
    (folder / file).write_bytes(original)
    verify(ResolvedModel(folder, hostile.contract_of(b""), digests(folder)), registered)


@pytest.mark.parametrize("file", ["model.onnx", "golden.json"])
def test_a_file_that_is_not_the_contract_s_is_refused(folder: Path, file: str) -> None:
    path = folder / file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelRefusedError, match=rf"{file} has sha256 \w+; its contract says \w+") as error:
        Package.read(folder)
    assert reason_of(error) is Refusal.DIGEST


@pytest.mark.parametrize("file", FILES)
def test_a_symbolic_link_is_refused_even_to_the_right_bytes(folder: Path, tmp_path: Path, file: str) -> None:
    target = tmp_path / "elsewhere"
    (folder / file).rename(target)
    (folder / file).symlink_to(target)
    with pytest.raises(ModelRefusedError, match=f"{file}: is a symbolic link") as error:
        Package.read(folder)
    assert reason_of(error) is Refusal.SYMLINK
    if file != "golden.json":
        with pytest.raises(ModelRefusedError, match="is a symbolic link"):
            Scorer.load(folder)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", "..", "", ".", "a\\b", "a\0b", "a\nb"])
def test_a_name_that_leads_elsewhere_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ModelRefusedError, match="a plain name is expected") as error:
        read_file(folder, name, 100)
    assert reason_of(error) is Refusal.PATH


def test_a_pipe_or_a_folder_in_place_of_a_file_is_refused_at_once(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "inner").mkdir()
    for name in ("pipe", "inner"):
        began_s = time.monotonic()
        with pytest.raises(ModelRefusedError, match=r"is no regular file|cannot be read") as error:
            read_file(folder, name, 100)
        assert reason_of(error) is Refusal.PATH
        assert time.monotonic() - began_s < 1


def test_a_sparse_file_of_a_terabyte_is_not_read(folder: Path) -> None:
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(ModelRefusedError, match=r"has 1099511627776 bytes; at most") as error:
        Scorer.load(folder)
    assert reason_of(error) is Refusal.TOO_LARGE


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "golden.json").unlink()
    with pytest.raises(ModelRefusedError, match=r"golden\.json: cannot be read: No such file") as error:
        Package.read(folder)
    assert reason_of(error) is Refusal.MISSING_FILE


GOLDENS = {
    "empty": b"",
    "text": b"text",
    "deep": b"[" * 100_000,
    "a zip bomb": hostile.zip_bomb(),
    "a pickle": hostile.pickled("/dev/null"),
    "one score less": b'{"inputs":[[1,2],[3,4]],"scores":[[0.5]]}',
    "no rows": b'{"inputs":[],"scores":[]}',
    "more": b'{"inputs":[[1,2]],"scores":[[0.5]],"code":"x"}',
}


@pytest.mark.parametrize("content", GOLDENS.values(), ids=GOLDENS)
def test_what_is_no_golden_batch_is_refused(content: bytes) -> None:
    with pytest.raises(ModelRefusedError, match=r"golden\.json") as error:
        Golden.decode(content, hostile.contract_of(b""))
    assert reason_of(error) is Refusal.GOLDEN


def test_a_golden_batch_of_another_width_is_refused() -> None:
    with pytest.raises(ModelRefusedError, match=r"got rows of \[1, 2\] numbers; the contract says 2") as error:
        Golden.decode(b'{"inputs":[[1,2],[1]],"scores":[[0.5],[0.5]]}', hostile.contract_of(b""))
    assert reason_of(error) is Refusal.SHAPE


def test_other_scores_than_at_registration_are_refused(folder: Path) -> None:
    package = Package.read(folder)
    changed = package.golden.scores.copy()
    changed[2] += 2e-6
    golden = Golden(package.golden.inputs, changed)
    with pytest.raises(
        ModelRefusedError, match=r"row 2 of the golden batch scores .*; at registration it was"
    ) as error:
        check_model(package.onnx, package.contract, golden)
    assert reason_of(error) is Refusal.GOLDEN


def test_other_scores_than_the_trainer_s_are_refused() -> None:
    data = hostile.data()
    expected = 1 / (1 + np.exp(-(ROWS.sum(axis=1) + 0.5)))
    Package.seal(data, hostile.contract_of(data), ROWS, expected)
    expected[3] += 1e-3
    with pytest.raises(ModelRefusedError, match=r"row 3 scores .* are the features in the order of training") as error:
        Package.seal(data, hostile.contract_of(data), ROWS, expected)
    assert reason_of(error) is Refusal.GOLDEN


def test_golden_rows_come_back_bit_by_bit() -> None:
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(50, 2)).astype(np.float32) * np.float32(10.0) ** rng.integers(-30, 30, (50, 2))
    inputs[::7, 1] = np.nan
    golden = Golden(inputs.astype(np.float32), rng.random(50).astype(np.float32))
    again = Golden.decode(golden.encode(), hostile.contract_of(b""))
    assert again.inputs.tobytes() == golden.inputs.tobytes()
    assert again.scores.tobytes() == golden.scores.tobytes()


def test_a_contract_that_names_other_features_is_refused_though_its_model_is_whole() -> None:
    data = hostile.data()
    swapped = hostile.contract_of(data, tensors=[Tensor(hostile.INPUT, "float32", ["b", "a"])])
    with pytest.raises(ModelRefusedError, match=r"model\.onnx names its features") as error:
        check_model(data, swapped)
    assert reason_of(error) is Refusal.ORDER


def test_rows_without_numbers_are_refused() -> None:
    data = hostile.data()
    for rows, reason in ((np.array([[1.0, np.inf]]), Refusal.NOT_FINITE), (np.zeros((0, 2)), Refusal.SHAPE)):
        with pytest.raises(ModelRefusedError) as error:
            Package.seal(data, hostile.contract_of(data), rows)
        assert reason_of(error) is reason


def test_a_damaged_onnx_file_never_gets_past_the_checks_unnoticed() -> None:
    """One flipped bit may leave another valid model; then its golden batch, its digest or nothing at all tells."""
    data = hostile.data()
    registered = hostile.contract_of(data)
    chance = random.Random(2)
    for position in chance.sample(range(8 * len(data)), 60):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(ModelRefusedError):
            check_model(bytes(flipped), registered)


def test_nothing_of_a_pickle_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for content in (hostile.pickled(str(trace)), hostile.pickled(str(trace), 0), hostile.torch_archive(str(trace))):
        with pytest.raises(ModelRefusedError):
            refuse_other_formats(content, "m")
        with pytest.raises(ModelRefusedError):
            Golden.decode(content, hostile.contract_of(b""))
        with pytest.raises(ModelRefusedError):
            ModelContract.decode(content)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["model.pkl", "MODEL.PT", "python_model.joblib", "x.pth", "m.skops"])
def test_a_file_whose_name_says_pickle_is_refused(name: str) -> None:
    with pytest.raises(ModelRefusedError, match="Python objects") as error:
        refuse_pickle_names(["MLmodel", name], "m")
    assert reason_of(error) is Refusal.PICKLE


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc",
        "/etc",
        "relative/path",
        "",
        "ftp://host/x",
        "mlflow-artifacts:/1/../../2/artifacts",
        "mlflow-artifacts:/1/%2e%2e/2",
        "mlflow-artifacts:/1/%252e%252e/2",
        "mlflow-artifacts:/1/a\\..\\b",
        "mlflow-artifacts://other:5000/1/abc",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:5000/x?path=../..",
        "runs:/abc/model",
    ],
)
def test_a_source_on_this_machine_or_elsewhere_is_refused(source: str) -> None:
    with pytest.raises(ModelRefusedError, match="does not read from there") as error:
        safe_source(source, "http://127.0.0.1:5000")
    assert reason_of(error) is Refusal.PATH


@pytest.mark.parametrize(
    "source", ["mlflow-artifacts:/1/a/artifacts/m", "s3://bucket/1/a/m/", "http://127.0.0.1:5000/a"]
)
def test_a_source_of_the_registry_or_a_bucket_is_taken(source: str) -> None:
    assert safe_source(source, "http://127.0.0.1:5000/") == source.rstrip("/")


def test_the_limits_are_those_of_the_libraries_in_use() -> None:
    """Whatever the check lets through, ONNX Runtime loads without complaint."""
    for opset in range(13, OPSETS[""][1] + 1):
        data = hostile.data(opset=opset)
        check_model(data, hostile.contract_of(data))
    for version in (IR_VERSIONS[0], IR_VERSIONS[1]):
        data = hostile.data(ir=version)
        check_model(data, hostile.contract_of(data))


def test_the_reader_of_bytes_agrees_with_the_onnx_package() -> None:
    import onnx

    data = hostile.data(domain="com.example")
    parsed, found = onnx.load_from_string(data), references(data)
    assert found.domains | {""} == {one.domain for one in parsed.opset_import} | {n.domain for n in parsed.graph.node}
    assert found.opsets == {one.domain: one.version for one in parsed.opset_import}
    assert (found.ir_version, found.producer) == (parsed.ir_version, "tests")
    assert found.metadata == {"headrace.features": json.dumps(hostile.FEATURES)}


def test_a_vector_model_is_sealed_with_all_its_numbers() -> None:
    data = hostile.data()
    contract = hostile.contract_of(data, output=Output(hostile.OUTPUT, "vector", None, 1), threshold=None)
    package = Package.seal(data, contract, ROWS)
    assert package.golden.scores.shape == (len(ROWS) + 1, 1)
    again = Golden.decode(package.golden.encode(), package.contract)
    assert again.scores.shape == package.golden.scores.shape
    check_model(data, package.contract, again)


def test_digests_of_a_package_name_all_its_files(folder: Path) -> None:
    contract = ModelContract.read(folder)
    assert contract.files == {file: digests(folder)[file] for file in ("model.onnx", "golden.json")}
    other = msgspec.structs.replace(contract, files={})
    with pytest.raises(ModelRefusedError, match="its contract says ;"):
        check_model((folder / "model.onnx").read_bytes(), other)
