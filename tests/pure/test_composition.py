"""Composition: ensembles, chains and models per entity answer each row once, with the same bits wherever it is cut."""

import itertools
import re
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.samples import FLIGHTS, declaration, small_pipeline
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import validate
from udfs.core.declare.model_reference import ModelReference
from udfs.core.errors import DefinitionError
from udfs.core.model.chain import refuse_unbound
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.deadline import Deadlines
from udfs.core.model.entities import EntityModels, memory_of
from udfs.core.model.files import ONNX_FILE, sha256
from udfs.core.model.predictions import KEY_SEPARATOR, RECORD_SEPARATOR
from udfs.core.model.refusals import ModelRefusedError, Refusal
from udfs.core.model.scorer import F32, Scorer
from udfs.core.model.serving import Answers, ArmsServer, ServingError
from udfs.core.model.writing import AnswerWriter
from udfs.core.plan.features import feature_columns

CLASSES = ["low", "high"]
NUMBER, SHARES = Output("y", "probability"), Output("y", "class_scores", None, 2, CLASSES)
LARGE = 3_000.0
"""An amount above it has no score."""


def linear(inputs: list[str], factor: float, output: Output = NUMBER, padding: int = 0) -> bytes:
    """Return a model that gives sigmoid(factor * sum of inputs), nothing for large sums; of two classes also the rest.

    Parameters
    ----------
    padding : bytes that make the file larger, in multiples of 4
    """
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "factor"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["plain"]),
        helper.make_node("Greater", ["sum", "large"], ["beyond"]),
        helper.make_node("Where", ["beyond", "nan", "plain"], ["yes"]),
        helper.make_node("Sub", ["one", "yes"], ["no"]),
        helper.make_node("Concat", ["no", "yes"], ["both"], axis=1),
        helper.make_node("Identity", ["both" if output.width == 2 else "yes"], ["y"]),
    ]
    numbers = {"factor": factor, "large": LARGE, "nan": np.nan, "one": 1.0}
    values = {name: np.array([value], np.float32) for name, value in numbers.items()}
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    if padding:
        constants.append(numpy_helper.from_array(np.random.default_rng(1).random(padding // 4, np.float32), "padding"))
        nodes.append(helper.make_node("Identity", ["padding"], ["unused"]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, output.width])]
    if padding:
        outputs.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, [padding // 4]))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(inputs)])],
        outputs,
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def contract(onnx: bytes, inputs: list[str], version: str, output: Output = NUMBER, **changes: Any) -> ModelContract:
    made = ModelContract(
        name="shop-model",
        version=version,
        files={ONNX_FILE: sha256(onnx)},
        feature_set="0123456789abcdef",
        tensors=[Tensor("x", "float32", inputs)],
        output=output,
        threshold=0.5 if output.meaning == "probability" else None,
    )
    return msgspec.structs.replace(made, **changes)


def scorer(
    version: str, factor: float = 1.0, inputs: tuple[str, ...] = ("amount",), output: Output = NUMBER, **changes: Any
) -> Scorer:
    onnx = linear(list(inputs), factor, output)
    return Scorer(onnx, contract(onnx, list(inputs), version, output, **changes))


def pipeline(**model: Any) -> Pipeline:
    return small_pipeline(model={"name": "shop-model"} | model)


def server(scorers: dict[str, Scorer], entities: dict[str, Path] | None = None, **model: Any) -> ArmsServer:
    made = ArmsServer(pipeline(**model), scorers, entities)
    made.warm_up()
    return made


def rows(
    count: int, users: list[str | None] | None = None, amounts: list[float | None] | None = None
) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array([f"p{i}" for i in range(count)], pa.string()),
            "at_ms": pa.array(range(count), pa.int64()),
            "user": pa.array(users or [f"u{i}" for i in range(count)], pa.string()),
            "amount": pa.array(amounts or [i / 7 - 3 for i in range(count)], pa.float64()),
        }
    )


def outcome(found: Answers, first: int = 0) -> list[tuple[Any, ...]]:
    """Return (row, arm, source, status or reason, bits or detail, bits of parts) of each row."""
    told: list[tuple[Any, ...]] = []
    for one in found.given:
        for i, row in enumerate(one.rows.tolist()):
            parts = {name: values[i].tobytes() for name, values in one.parts.items()}
            told.append((first + row, one.arm, one.source, one.status, one.scores[i].tobytes(), sorted(parts.items())))
    told += [(first + one.row, "", "", one.reason, one.detail, []) for one in found.rejected]
    return sorted(told)


def test_the_scores_of_an_ensemble_are_those_of_its_members_combined() -> None:
    models = {"champion": scorer("1", 0.5), "champion.b": scorer("2", -1.0), "champion.c": scorer("3", 2.0)}
    batch = rows(50)
    single = [one.score(one.matrix(batch)) for one in models.values()]
    exact = [one.astype(np.float64) for one in single]
    members = [{"name": "b"}, {"name": "c"}]
    weighted = [{"name": "b", "weight": 3}, {"name": "c"}]
    votes = sum((one > 0.5).astype(np.float64) for one in exact) / 3
    wanted: list[tuple[dict[str, Any], Any]] = [
        ({"combine": "mean", "members": members}, (exact[0] + exact[1] + exact[2]) / 3),
        ({"combine": "weighted_mean", "members": weighted}, (exact[0] + 3 * exact[1] + exact[2]) / 5),
        ({"combine": "max", "members": members}, np.max(exact, axis=0)),
        ({"combine": "vote", "members": members}, votes),
    ]
    for ensemble, scores in wanted:
        (given,) = server(models, ensemble=ensemble).answer(batch).given
        assert given.scores.dtype == np.float32
        assert given.scores.tobytes() == np.float32(scores).tobytes(), ensemble["combine"]
        assert {name: part.tolist() for name, part in given.parts.items()} == {
            name: one.tolist() for name, one in zip(models, single, strict=True)
        }


def test_class_scores_are_voted_on_by_the_best_class_of_each_member() -> None:
    models = {"champion": scorer("1", 1, output=SHARES), "champion.b": scorer("2", -1, output=SHARES)}
    ensemble = {"combine": "vote", "members": [{"name": "b"}]}
    (given,) = server(models, ensemble=ensemble).answer(rows(2, amounts=[5.0, -5.0])).given
    assert given.scores.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    one = server(models | {"champion.b": scorer("2", 2, output=SHARES)}, ensemble=ensemble)
    assert one.answer(rows(2, amounts=[5.0, -5.0])).given[0].scores.tolist() == [[0.0, 1.0], [1.0, 0.0]]


CHAIN: dict[str, Any] = {"chain": [{"name": "risk", "model": "shop-risk"}, {"name": "next", "model": "shop-next"}]}


def chained() -> dict[str, Scorer]:
    return {
        "champion": scorer("1", 1.0, ("amount", "next")),
        "risk": scorer("7", 0.25),
        "next": scorer("8", 2.0, ("risk",)),
    }


def test_what_a_step_gives_is_an_input_of_the_models_behind_it() -> None:
    models, batch = chained(), rows(40)
    (given,) = server(models, **CHAIN).answer(batch).given
    amount = np.asarray(batch["amount"], np.float32).reshape(-1, 1)
    risk = models["risk"].score(amount)
    following = models["next"].score(risk.reshape(-1, 1))
    assert given.scores.tobytes() == models["champion"].score(np.column_stack([amount, following])).tobytes()
    assert {name: part.tolist() for name, part in given.parts.items()} == {
        "risk": risk.tolist(), "next": following.tolist(),
    }  # fmt: skip


def test_the_classes_of_a_step_are_a_column_each() -> None:
    models = {"champion": scorer("1", 1.0, ("p_high",)), "risk": scorer("7", 0.25, output=SHARES)}
    chain = [{"name": "risk", "model": "shop-risk", "gives": ["p_low", "p_high"]}]
    batch = rows(9)
    (given,) = server(models, chain=chain).answer(batch).given
    shares = models["risk"].score(models["risk"].matrix(batch))
    assert given.scores.tobytes() == models["champion"].score(np.ascontiguousarray(shares[:, 1:])).tobytes()


def test_a_row_that_a_step_has_no_score_for_has_none_where_the_arm_takes_it() -> None:
    models = {"champion": scorer("1"), "b": scorer("2", 1.0, ("risk",)), "risk": scorer("7")}
    declared: dict[str, Any] = {"chain": CHAIN["chain"][:1], "challengers": [{"name": "b", "weight": "50%"}]}
    batch = rows(60, amounts=[LARGE + 1 if i % 3 == 0 else 1.0 for i in range(60)])
    one = server(models, **declared)
    taking = np.flatnonzero(one.router.assign(batch) == 1)
    found = one.answer(batch)
    by_step = {lost.row for lost in found.rejected if lost.detail == "step risk: score nan"}
    assert by_step == {int(row) for row in taking if row % 3 == 0}
    assert {given.arm: sorted(given.parts) for given in found.given} == {"champion": [], "b": ["risk"]}


def test_a_row_that_a_member_has_no_score_for_has_none() -> None:
    ensemble = {"combine": "max", "members": [{"name": "b"}]}
    models = {"champion": scorer("1", inputs=("at_ms",)), "champion.b": scorer("2")}
    found = server(models, ensemble=ensemble).answer(rows(4, amounts=[1.0, LARGE + 1, None, 2.0]))
    assert [(one.row, one.detail) for one in found.rejected] == [
        (1, "champion.b: score nan"), (2, "champion.b: score nan"),
    ]  # fmt: skip
    assert found.given[0].rows.tolist() == [0, 3]
    assert all(len(part) == 2 for part in found.given[0].parts.values())


class Broken(Scorer):
    """A model that gives up on everything once it is warm."""

    is_broken = False

    def score(self, *given: Any) -> F32:
        if self.is_broken:
            msg = "no memory left"
            raise RuntimeError(msg)
        return super().score(*given)


@pytest.mark.parametrize(
    ("name", "declared", "why"),
    [
        ("risk", CHAIN, "step risk: model shop-model version 9: no memory left"),
        (
            "champion.b",
            {"ensemble": {"combine": "mean", "members": [{"name": "b"}]}},
            "member champion.b: model shop-model version 9: no memory left",
        ),
    ],
)
def test_an_answer_is_of_all_its_models_or_of_the_fallback(name: str, declared: dict[str, Any], why: str) -> None:
    onnx = linear(["amount"], 1.0)
    broken = Broken(onnx, contract(onnx, ["amount"], "9"))
    models = (chained() if "chain" in declared else {"champion": scorer("1")}) | {name: broken}
    one = server(models, serving={"fallback": ["reject"]}, **declared)
    assert one.answer(rows(3)).rejected == ()
    broken.is_broken = True
    found = one.answer(rows(3))
    assert [(lost.reason, lost.detail) for lost in found.rejected] == [
        ("score_unavailable", why if "chain" not in declared else f"step next: {why}"[11:])
    ] * 3
    strict = server(models | {name: Scorer(onnx, broken.contract)}, **declared)
    strict.models[name].scorer = broken
    with pytest.raises(ServingError, match=re.escape(why)):
        strict.answer(rows(3))


WORDS = ["de", "fr", "it", "es", "pl"]


def entity_folders(folder: Path, words: list[str] = WORDS, padding: int = 0) -> dict[str, Path]:
    found = {}
    for i, word in enumerate(words):
        onnx = linear(["amount"], 0.1 * (i + 1), padding=padding)
        found[f"champion.{word}"] = made = folder / word
        made.mkdir(parents=True)
        (made / ONNX_FILE).write_bytes(onnx)
        contract(onnx, ["amount"], str(10 + i)).write(made)
    return found


def per_entity(**changes: Any) -> dict[str, Any]:
    return {"per_entity": {"key": "user", "values": WORDS, "alias": "champion-{}"} | changes}


def test_each_row_gets_the_model_of_its_entity_and_others_the_champion(tmp_path: Path) -> None:
    folders = entity_folders(tmp_path)
    one = server({"champion": scorer("1", -1.0)}, folders, **per_entity())
    users = ["fr", "xx", None, "de", "fr", "pl"]
    batch = rows(6, users)
    found = one.answer(batch)
    assert {given.source: given.rows.tolist() for given in found.given} == {
        "champion": [1, 2], "champion.de": [3], "champion.fr": [0, 4], "champion.pl": [5],
    }  # fmt: skip
    assert {given.arm for given in found.given} == {"champion"}
    own = {source: Scorer.load(folder) for source, folder in folders.items()}
    for given in found.given[1:]:
        model = own[given.source]
        assert given.scores.tolist() == model.score(model.matrix(batch))[given.rows].tolist()
    strict = server({"champion": scorer("1")}, folders, **per_entity(missing="reject"))
    lost = strict.answer(batch).rejected
    assert [(why.row, why.reason, why.detail) for why in lost] == [
        (1, "no_model", "no model for user 'xx'"), (2, "no_model", "no model for user None"),
    ]  # fmt: skip


def limited(folders: dict[str, Path], memory_mb: int) -> EntityModels:
    reference = pipeline(**per_entity(memory_mb=memory_mb)).model
    assert reference.per_entity is not None
    return EntityModels(folders, reference.per_entity, reference.serving, Deadlines(None))


def test_no_more_models_are_held_than_fit_and_the_least_recently_used_one_leaves(tmp_path: Path) -> None:
    folders = entity_folders(tmp_path, padding=40_000)
    names, size = list(folders), memory_of((tmp_path / "de" / ONNX_FILE).stat().st_size)
    assert 2 * size < 2**20 < 3 * size
    models = limited(folders, 1)
    models.warm_up()
    assert (len(models), models.loads, models.held_bytes) == (2, 2, 2 * size)
    first = models.get(names[0])
    assert models.loads == 2, "it is there"
    models.get(names[2])
    assert models.get(names[0]) is first, "the other one left"
    for name in itertools.islice(itertools.cycle(names), 40):
        models.get(name)
        assert models.held_bytes <= 2**20
        assert len(models) == 2
    assert models.loads > 35


def test_models_that_come_and_go_give_the_same_bits_whatever_the_cut_and_the_thread(tmp_path: Path) -> None:
    folders = entity_folders(tmp_path, padding=40_000)
    batch = rows(300, [WORDS[(i * i + i // 7) % 5] for i in range(300)])
    declared = per_entity(memory_mb=1)
    whole = outcome(server({"champion": scorer("1")}, folders, **per_entity()).answer(batch))
    assert len(whole) == 300
    for size in (1, 50):
        one = server({"champion": scorer("1")}, folders, **declared)
        assert sorted(
            told for at in range(0, 300, size) for told in outcome(one.answer(batch.slice(at, size)), at)
        ) == (whole)
    shared, found = server({"champion": scorer("1")}, folders, **declared), list[list[tuple[Any, ...]]]()
    threads = [threading.Thread(target=lambda: found.append(outcome(shared.answer(batch)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [whole] * 4


def test_a_model_that_was_changed_under_the_job_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    folders = entity_folders(tmp_path)
    (tmp_path / "de" / ONNX_FILE).write_bytes(linear(["amount"], 77.0))
    with pytest.raises(ModelRefusedError, match="changed after registration") as refused:
        limited(folders, 1).get("champion.de")
    assert refused.value.reason is Refusal.DIGEST


def test_a_model_that_does_not_fit_alone_is_refused(tmp_path: Path) -> None:
    folders = entity_folders(tmp_path, ["de"], padding=400_000)
    with pytest.raises(ModelRefusedError, match=r"champion\.de: .* counts as 2\.5 MB .*memory_mb allows 1 ") as refused:
        limited(folders, 1).get("champion.de")
    assert refused.value.reason is Refusal.TOO_LARGE


def test_no_outcome_of_a_composition_depends_on_the_cut_of_batches() -> None:
    declared: dict[str, Any] = CHAIN | {
        "ensemble": {"combine": "weighted_mean", "members": [{"name": "b", "weight": 0.3}]},
        "challengers": [{"name": "plain", "weight": "40%"}],
        "shadows": [{"name": "dark", "ensemble": {"combine": "max", "members": [{"name": "c"}]}}],
        "serving": {"fallback": ["reject"]},
    }
    models = chained() | {
        "champion.b": scorer("2", -1), "plain": scorer("3"), "dark": scorer("4"), "dark.c": scorer("5", 3.0, ("risk",)),
    }  # fmt: skip
    batch = rows(200, amounts=[LARGE + 1 if i % 11 == 0 else None if i % 13 == 0 else i / 9 - 8 for i in range(200)])
    one = server(models, **declared)
    whole = one.answer(batch)
    told = outcome(whole)
    assert [row for row, *_ in told] == list(range(200))
    assert {arm for _, arm, *_ in told} == {"champion", "plain", ""}
    for size in (1, 7, 64):
        parts = [one.answer(batch.slice(at, size)) for at in range(0, 200, size)]
        firsts = range(0, 200, size)
        assert sorted(row for part, at in zip(parts, firsts, strict=True) for row in outcome(part, at)) == told
        dark = np.concatenate([part.shadows["dark"] for part in parts])
        assert dark.tobytes() == whole.shadows["dark"].tobytes()


def test_a_prediction_names_the_version_and_the_score_of_each_of_its_models() -> None:
    declared = pipeline(**CHAIN, ensemble={"combine": "mean", "members": [{"name": "b"}]})
    models = chained() | {"champion.b": scorer("2", -1)}
    batch = stamped(declared, rows(3))
    answers = ArmsServer(declared, models).answer(batch)
    text = AnswerWriter(declared, {name: one.contract for name, one in models.items()}).write("shop", batch, answers)
    found = [msgspec.json.decode(record.partition(KEY_SEPARATOR)[2]) for record in text.split(RECORD_SEPARATOR)]
    (given,) = answers.given
    for i, one in enumerate(found):
        assert one["model"]["version"] == "1"
        assert "routing" not in one
        assert one["parts"] == {
            name: {
                "version": models[name].contract.version,
                "sha256": models[name].contract.sha256,
                "score": float(given.parts[name][i]),
            }
            for name in ("champion", "champion.b", "risk", "next")
        }


def stamped(declared: Pipeline, batch: pa.RecordBatch) -> pa.RecordBatch:
    count = batch.num_rows
    for entity in ("user", "shop"):
        batch = batch.append_column(f"_lane_{entity}", pa.array([0] * count, pa.int32()))
        batch = batch.append_column(f"_seq_{entity}", pa.array(range(count), pa.int64()))
    for name in ("_partition", "_offset", "_timestamp_ms"):
        batch = batch.append_column(name, pa.array(range(count), pa.int64()))
    for name in feature_columns(declared):
        if name not in batch.schema.names:
            batch = batch.append_column(name, pa.array([1.0] * count))
    return batch


def contracts(**inputs: list[str]) -> dict[str, ModelContract]:
    return {name.replace("__", "."): contract(b"", columns, "1") for name, columns in inputs.items()}


STEP: dict[str, Any] = {"name": "risk", "model": "shop-risk"}
MEAN: dict[str, Any] = {"combine": "mean", "members": [{"name": "b"}]}
UNBOUND: dict[str, tuple[dict[str, Any], dict[str, ModelContract], Refusal, str]] = {
    "an input of nobody": (
        {}, contracts(champion=["amuont"]), Refusal.NAMES,
        r"champion: model shop-model version 1 takes 'amuont', which is no feature and given by no step; did you mean",
    ),
    "a step that takes itself": (
        {"chain": [STEP]}, contracts(champion=["risk"], risk=["risk"]), Refusal.ORDER, r"step risk: .* of itself; ",
    ),
    "steps that take each other": (
        {"chain": [STEP, {"name": "next", "model": "m"}]}, contracts(champion=["next"], risk=["next"], next=["risk"]),
        Refusal.ORDER, r"step risk: .* takes 'next', of step next, which comes behind it; .* cannot be ordered",
    ),
    "a step for nobody": (
        {"chain": [STEP]}, contracts(champion=["amount"], risk=["amount"]), Refusal.NAMES, r"no model takes risk; ",
    ),
    "a step of more numbers": (
        {"chain": [STEP]},
        contracts(champion=["risk"]) | {"risk": contract(b"", ["amount"], "1", SHARES)}, Refusal.SHAPE,
        r"step risk: .* gives class_scores of low, high, 2 numbers; chain\[0\] names 1 columns: risk; name as many",
    ),
    "members of other meanings": (
        {"ensemble": MEAN},
        contracts(champion=["amount"]) | {"champion.b": contract(b"", ["amount"], "1", SHARES)}, Refusal.CONTRACT,
        r"ensemble of champion: champion\.b, .* gives class_scores of low, high; .* gives probability; only like",
    ),
    "votes without a threshold": (
        {"ensemble": MEAN | {"combine": "vote"}},
        contracts(champion=["amount"]) | {"champion.b": contract(b"", ["amount"], "1", threshold=None)},
        Refusal.CONTRACT, r"champion\.b, model shop-model version 1, has no threshold, above which it would vote yes",
    ),
    "the largest of classes": (
        {"ensemble": MEAN | {"combine": "max"}},
        {name: contract(b"", ["amount"], "1", SHARES) for name in ("champion", "champion.b")}, Refusal.CONTRACT,
        r"combine: max takes probability or value; model shop-model version 1 gives class_scores",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "found", "reason", "message"), UNBOUND.values(), ids=UNBOUND)
def test_models_that_do_not_fit_together_are_refused(
    model: dict[str, Any], found: dict[str, ModelContract], reason: Refusal, message: str
) -> None:
    with pytest.raises(ModelRefusedError, match=message) as refused:
        refuse_unbound(pipeline(**model).model, ["amount"], found)
    assert refused.value.reason is reason


PER: dict[str, Any] = {"key": "user", "values": ["de"], "alias": "champion-{}"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no members": ({"ensemble": {"combine": "mean", "members": []}}, r"model\.ensemble\.members: got \[\]"),
    "an unknown way": (
        {"ensemble": MEAN | {"combine": "median"}}, r"model\.ensemble\.combine: got 'median'.*did you mean 'mean'",
    ),
    "a member twice": (
        {"ensemble": {"combine": "mean", "members": [{"name": "b"}, {"name": "b"}]}},
        r"model\.ensemble: members\[1\]\.name: got 'b', which stands twice",
    ),
    "a weight for nothing": (
        {"ensemble": MEAN | {"own_weight": 2}}, r"own_weight: got a weight, and combine: mean; did you mean",
    ),
    "no weight": ({"ensemble": MEAN | {"combine": "weighted_mean"}}, r"combine: got weighted_mean, and no weight"),
    "the arm as its member": (
        {"ensemble": {"combine": "mean", "members": [{"name": "b", "alias": "champion"}]}},
        r"ensemble: member champion\.b is shop-model@champion, which is the arm's own already",
    ),
    "a step that is an arm": (
        {"chain": [STEP], "shadows": [{"name": "risk"}]}, r"chain\[0\]: got 'risk', which names shadows\[0\]; choose",
    ),
    "a step that is a column": (
        {"chain": [STEP | {"name": "amount"}]}, r"model\.chain\[0\]: got 'amount', which is a column already; ",
    ),
    "a step twice": ({"chain": [STEP, STEP]}, r"chain\[1\]: got 'risk', which names chain\[0\]; choose another"),
    "an entity and an ensemble": (
        {"per_entity": PER, "ensemble": MEAN}, r"per_entity: got one, and an ensemble of the champion; ",
    ),
    "no place for the word": (
        {"per_entity": PER | {"alias": "x"}}, r"model\.per_entity: got \{\} in neither model nor alias",
    ),
    "a word twice": (
        {"per_entity": PER | {"values": {"a": "x", "b": "x"}}}, r"got the word 'x' for 'a' and 'b'; each needs one",
    ),
    "a value that YAML reads as false": (
        {"per_entity": PER | {"values": [False]}}, r"per_entity\.values: got False, which is no text or whole number",
    ),
    "a word that leads elsewhere": ({"per_entity": PER | {"values": ["../x"]}}, r"model\.per_entity\.values"),
    "a key that is none": (
        {"per_entity": PER | {"key": "amount"}}, r"model\.per_entity\.key: got 'amount', which is no string or int64",
    ),
    "no values": ({"per_entity": PER | {"values": []}}, r"values: got none; list the values"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "message"), WRONG.values(), ids=WRONG)
def test_a_composition_that_contradicts_itself_is_refused(model: dict[str, Any], message: str) -> None:
    document = declaration(model={"name": "shop-model"} | model)
    with pytest.raises(DefinitionError, match=message):
        validate(FLIGHTS / "pipeline.yaml", document, Pipeline)


def test_models_are_named_by_their_arm_and_the_epoch_says_which_entities_have_one() -> None:
    reference = ModelReference.model_validate(
        {"name": "m", "chain": [STEP], "per_entity": PER | {"values": {"DE": "de", 49: "num"}, "model": "m-{}"},
         "challengers": [{"name": "b", "weight": "5%", "ensemble": {"combine": "mean", "members": [{"name": "c"}]}}]}
    )  # fmt: skip
    named = {one.name: (one.role, f"{one.model}@{one.alias}") for one in reference.models}
    assert named == {
        "champion": ("champion", "m@champion"),
        "b": ("challenger", "m@b"),
        "risk": ("step", "shop-risk@champion"),
        "b.c": ("member", "m@c"),
        "champion.de": ("entity", "m-de@champion-de"),
        "champion.num": ("entity", "m-num@champion-num"),
    }
    epochs = {
        pipeline(**one).model.routing_epoch("user")
        for one in (
            {},
            {"chain": [STEP]},
            {"ensemble": MEAN},
            {"per_entity": PER},
            {"per_entity": PER | {"missing": "reject"}},
        )
    }
    assert len(epochs) == 3, "a chain and an ensemble do not decide which arm answers"
    assert ModelReference.model_validate(msgspec.json.decode(reference.model_dump_json(by_alias=True))) == reference
