"""Serving: every row of a batch gets one answer or one reason, whatever its model does and however batches were cut."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.samples import FLIGHTS, declaration, small_pipeline
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import validate
from udfs.core.declare.serving import BreakerPolicy
from udfs.core.errors import DefinitionError
from udfs.core.model.breaker import Breaker
from udfs.core.model.contract import ModelContract, Output, Tensor
from udfs.core.model.deadline import DeadlineError, Deadlines
from udfs.core.model.files import sha256
from udfs.core.model.memory import MemoryLimit, MemoryLimitError
from udfs.core.model.scorer import F32, Matrix, Scorer
from udfs.core.model.serving import Answers, ArmsServer, ServingError

TABLE = 8
FOREVER = 1e9
INPUTS = ["amount", "units", "loops"]


def hostile(factor: float = 1.0) -> bytes:
    """Return a model that gives sigmoid(factor * amount), raises where units are not from 0 to 7, and goes in circles.

    It goes round as often as the largest of loops says; a null amount gives no number.
    """
    column = {name: np.array([i], np.int64) for i, name in enumerate(INPUTS)}
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Cos", ["in"], ["out"])],
        "circle",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("in", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("out", TensorProto.FLOAT, [1]),
        ],
    )
    nodes = [
        helper.make_node("Gather", ["x", "c_amount"], ["amount"], axis=1),
        helper.make_node("Gather", ["x", "c_units"], ["units"], axis=1),
        helper.make_node("Gather", ["x", "c_loops"], ["loops"], axis=1),
        helper.make_node("ReduceMax", ["loops"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["times"], to=TensorProto.INT64),
        helper.make_node("Loop", ["times", "true", "start"], ["end"], body=body),
        helper.make_node("Cast", ["units"], ["places"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "places"], ["picked"]),
        helper.make_node("Mul", ["amount", "factor"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["score"]),
        helper.make_node("Add", ["score", "picked"], ["some"]),
        helper.make_node("Mul", ["end", "zero"], ["nothing"]),
        helper.make_node("Add", ["some", "nothing"], ["y"]),
    ]
    values: dict[str, Any] = {f"c_{name}": index for name, index in column.items()}
    values |= {"table": np.zeros(TABLE, np.float32), "true": np.array(True), "start": np.ones(1, np.float32)}
    values |= {"factor": np.array([factor], np.float32), "zero": np.zeros(1, np.float32)}
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(INPUTS)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


class Breakable(Scorer):
    """A model that gives up on everything while it is broken, as one whose memory ran out."""

    is_broken = False
    runs = 0

    def score(self, matrix: Matrix, options: ort.RunOptions | None = None) -> F32:
        self.runs += 1
        if self.is_broken:
            msg = "no memory left"
            raise RuntimeError(msg)
        return super().score(matrix, options)


def scorer(version: str = "1", factor: float = 1.0, **changes: Any) -> Breakable:
    data = hostile(factor)
    contract = ModelContract(
        name="shop-model",
        version=version,
        files={"model.onnx": sha256(data)},
        feature_set="0123456789abcdef",
        tensors=[Tensor("x", "float32", INPUTS)],
        output=Output("y", "probability"),
    )
    return Breakable(data, msgspec.structs.replace(contract, **changes))


def pipeline(**model: Any) -> Pipeline:
    return small_pipeline(model={"name": "shop-model"} | model)


def server(scorers: dict[str, Scorer] | None = None, **model: Any) -> ArmsServer:
    made = ArmsServer(pipeline(**model), scorers or {"champion": scorer()})
    made.warm_up()
    return made


def rows(units: Sequence[int], amount: Sequence[float | None] | None = None, loops: float = 0) -> pa.RecordBatch:
    count = len(units)
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array([f"p{i}" for i in range(count)], pa.string()),
            "at_ms": pa.array(range(count), pa.int64()),
            "user": pa.array([f"u{i}" for i in range(count)], pa.string()),
            "amount": pa.array(amount or [i / 10 - 3 for i in range(count)], pa.float64()),
            "units": pa.array(units, pa.int64()),
            "loops": pa.array([loops] * count, pa.float64()),
        }
    )


def outcome(found: Answers, first: int = 0) -> Iterator[tuple[int, str, str, str, bytes]]:
    """Yield (row, arm, source, status or reason, bits or detail) of each row."""
    for one in found.given:
        for row, score in zip(one.rows.tolist(), one.scores, strict=True):
            yield first + row, one.arm, one.source, one.status, score.tobytes()
    for lost in found.rejected:
        yield first + lost.row, "", "", lost.reason, lost.detail.encode()


def test_rows_that_the_model_raises_for_are_found_and_rejected_alone() -> None:
    chance = np.random.default_rng(3)
    units = chance.integers(0, TABLE, 300)
    poison = sorted(chance.choice(300, 11, replace=False).tolist())
    units[poison] = TABLE + 5
    found = server().answer(rows(units.tolist()))
    assert sorted(one.row for one in found.rejected) == poison
    assert {one.reason for one in found.rejected} == {"score_failed"}
    assert all(one.detail.startswith("the model raised: ") and "13" in one.detail for one in found.rejected)
    (given,) = found.given
    assert given.rows.tolist() == sorted(set(range(300)) - set(poison))


def test_no_outcome_depends_on_the_cut_of_batches_and_scores_keep_their_bits() -> None:
    units = [99 if i % 17 == 3 else i % TABLE for i in range(200)]
    batch = rows(units, [None if i % 23 == 5 else i / 7 - 9 for i in range(200)])
    declared: dict[str, Any] = {"challengers": [{"name": "b", "weight": "40%"}], "serving": {"fallback": ["reject"]}}
    models: dict[str, Scorer] = {"champion": scorer(), "b": scorer("2", -1.0)}
    whole = sorted(outcome(server(models, **declared).answer(batch)))
    assert [row for row, *_ in whole] == list(range(200))
    for size in (1, 3, 64, 150):
        serving = {"fallback": ["reject"], "batch_max": 50}
        one = server(models, **declared | {"serving": serving})
        parts = [row for start in range(0, 200, size) for row in outcome(one.answer(batch.slice(start, size)), start)]
        assert sorted(parts) == whole, f"batches of {size}"


def test_a_batch_of_nothing_but_poison_is_rejected_and_no_failure_of_the_model() -> None:
    one = server(serving={"fallback": ["default_score"], "default_score": 0.5, "breaker": {"after": 1}})
    for _ in range(3):
        found = one.answer(rows([99] * 5))
        assert [lost.reason for lost in found.rejected] == ["score_failed"] * 5
        assert found.given == ()
    assert not one.models["champion"].breaker.is_open
    assert one.models["champion"].counts.poison_rows == 15


def test_a_score_that_is_not_finite_is_rejected_alone() -> None:
    found = server().answer(rows([0, 0, 0], [1.0, None, 2.0]))
    assert [(one.row, one.reason, one.detail) for one in found.rejected] == [(1, "score_failed", "score nan")]
    assert found.given[0].rows.tolist() == [0, 2]


def test_a_model_that_fails_with_no_fallback_fails_the_job() -> None:
    model = scorer()
    one = server({"champion": model})
    model.is_broken = True
    with pytest.raises(
        ServingError, match=r"arm champion: no model answered: model shop-model version 1: no memory left"
    ):
        one.answer(rows([0, 1]))


def test_the_ladder_goes_down_rung_by_rung_and_stamps_each() -> None:
    models: dict[str, Scorer] = {"champion": scorer("2"), "previous": scorer("1", 3.0)}
    newest, before = models.values()
    assert isinstance(newest, Breakable)
    assert isinstance(before, Breakable)
    ladder = ["previous_version", "default_score"]
    one = server(models, serving={"fallback": ladder, "default_score": 0.25})
    batch = rows([0, 1, 99])

    def answered() -> tuple[str, str, list[float]]:
        (given,) = one.answer(batch).given
        return given.source, given.status, given.scores.tolist()

    source, status, scores = answered()
    assert (source, status, len(scores)) == ("champion", "ok", 2)
    newest.is_broken = True
    source, status, older = answered()
    assert (source, status, len(older)) == ("previous", "previous_version", 2), "poison stays poison on every rung"
    assert older != scores
    before.is_broken = True
    assert answered() == ("champion", "default_score", [0.25] * 3), "no model looks at the rows any more"
    assert dict(one.fallen_back) == {"previous_version": 3, "default_score": 3}
    newest.is_broken = False
    assert answered() == ("champion", "ok", scores)


def test_the_last_rung_rejects_with_a_reason_of_its_own() -> None:
    model = scorer()
    one = server({"champion": model}, serving={"fallback": ["reject"]})
    model.is_broken = True
    found = one.answer(rows([0, 1]))
    assert found.given == ()
    assert [(lost.row, lost.reason) for lost in found.rejected] == [(0, "score_unavailable"), (1, "score_unavailable")]
    assert found.rejected[0].detail == "model shop-model version 1: no memory left"


def test_a_run_beyond_its_deadline_is_ended_and_the_fallback_answers() -> None:
    one = server(serving={"fallback": ["default_score"], "default_score": 0.5, "deadline": "60ms"})
    assert one.answer(rows([0, 1])).given[0].status == "ok"
    begin_s = time.monotonic()
    found = one.answer(rows([0, 1], loops=FOREVER))
    assert time.monotonic() - begin_s < 20
    assert [(given.status, given.scores.tolist()) for given in found.given] == [("default_score", [0.5, 0.5])]
    counts = one.models["champion"].counts
    assert (counts.missed_deadlines, counts.failed_batches, counts.poison_rows) == (1, 1, 0)
    assert one.answer(rows([0, 1])).given[0].status == "ok"


def test_runs_within_their_time_are_left_alone_while_others_end() -> None:
    deadlines = Deadlines(50)

    def ended() -> None:
        with deadlines.limited() as options:
            while not options.terminate:
                time.sleep(0.005)
            msg = "ended"
            raise RuntimeError(msg)

    with deadlines.limited() as first:
        with pytest.raises(DeadlineError, match="took longer than 50 ms"):
            ended()
        assert first.terminate, "it began before"
    with deadlines.limited() as quick:
        pass
    time.sleep(0.07)
    assert not quick.terminate


def test_the_thread_of_deadlines_ends_with_them() -> None:
    before = set(threading.enumerate())
    for begins in (False, True):
        deadlines = Deadlines(20)
        (thread,) = set(threading.enumerate()) - before
        if begins:
            with deadlines.limited():
                pass
        deadlines.close()
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_a_model_that_keeps_failing_is_left_alone_and_tried_again() -> None:
    model = scorer()
    serving = {"fallback": ["default_score"], "default_score": 0, "breaker": {"after": 2, "batches": 3}}
    one = server({"champion": model}, serving=serving)
    model.is_broken = True
    asked = []
    for batch in range(12):
        before = model.runs
        model.is_broken = batch < 8
        one.answer(rows([0]))
        asked.append(model.runs > before)
    # Two failures; three batches left alone; a try that fails; three more; a try that succeeds.
    assert asked == [True, True, False, False, False, True, False, False, False, True, True, True]
    assert not one.models["champion"].breaker.is_open


def test_a_failure_now_and_then_opens_no_breaker() -> None:
    breaker = Breaker(BreakerPolicy(after=2, batches=1))
    for _ in range(5):
        assert breaker.asks()
        breaker.failed()
        assert breaker.asks()
        breaker.succeeded()
    assert not breaker.is_open


def test_a_shadow_scores_all_rows_and_never_changes_an_answer() -> None:
    units = [99 if i == 4 else i % TABLE for i in range(20)]
    alone = sorted(outcome(server().answer(rows(units))))
    shadow = scorer("9", 2.0)
    one = server({"champion": scorer(), "next": shadow}, shadows=[{"name": "next"}])
    found = one.answer(rows(units))
    assert sorted(outcome(found)) == alone
    assert np.isnan(found.shadows["next"]).tolist() == [i == 4 for i in range(20)]
    shadow.is_broken = True
    found = one.answer(rows(units))
    assert sorted(outcome(found)) == alone
    assert np.isnan(found.shadows["next"]).all()


def test_a_challenger_that_fails_leaves_the_champion_alone() -> None:
    challenger = scorer("2", -1.0)
    models: dict[str, Scorer] = {"champion": scorer(), "b": challenger}
    one = server(models, challengers=[{"name": "b", "weight": "50%"}], serving={"fallback": ["reject"]})
    challenger.is_broken = True
    found = one.answer(rows([0] * 100))
    (given,) = found.given
    assert given.arm == "champion"
    assert len(given.rows) + len(found.rejected) == 100
    assert min(len(given.rows), len(found.rejected)) > 20


def test_models_are_warm_in_every_size_before_the_first_event() -> None:
    model = scorer()
    server({"champion": model}, serving={"batch_max": 100})
    assert model.runs == 8  # 1, 2, 4 … 64, 100


def test_a_batch_beyond_the_largest_is_scored_in_parts() -> None:
    model = scorer()
    one = server({"champion": model}, serving={"batch_max": 100})
    before = model.runs
    (given,) = one.answer(rows([i % TABLE for i in range(250)])).given
    assert model.runs - before == 3
    assert given.scores.tobytes() == server().answer(rows([i % TABLE for i in range(250)])).given[0].scores.tobytes()


def test_nothing_is_answered_for_no_rows() -> None:
    assert server().answer(rows([])) == Answers()


def test_a_worker_that_takes_too_much_memory_is_ended() -> None:
    MemoryLimit(None).check("while scoring")
    MemoryLimit(1_000_000).check("while scoring")
    with pytest.raises(MemoryLimitError, match=r"takes \d+ MB while scoring; model\.serving\.max_rss_mb allows 1;"):
        MemoryLimit(1).check("while scoring")


def test_a_provider_that_is_not_there_falls_back_to_the_next_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA: the fallback cannot be seen here")
    data = hostile()
    with caplog.at_level("WARNING"):
        found = Scorer(data, scorer().contract, ("cuda", "cpu"))
    assert found.provider == "cpu"
    assert "version 1: runs on CPUExecutionProvider, as cuda is not to be had here" in caplog.text
    with pytest.raises(Exception, match="got providers cuda; this machine has none of them; add cpu behind them"):
        Scorer(data, scorer().contract, ("cuda",))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown rung": (
        {"fallback": ["previous"]}, r"model\.serving\.fallback\[0\]: got 'previous'; did you mean 'previous_version'\?",
    ),
    "a rung twice": ({"fallback": ["reject", "reject"]}, r"fallback: got \['reject', 'reject'\]; each stands once"),
    "behind the end": (
        {"fallback": ["reject", "previous_version"]},
        r"model\.serving: fallback: got previous_version behind reject, which never fails; put reject last",
    ),
    "no score": (
        {"fallback": ["default_score"]},
        r"default_score: got no score, and a fallback with default_score; they go together",
    ),
    "a score for nothing": ({"default_score": 0.5}, r"default_score: got the score 0\.5, and a fallback without"),
    "no number": ({"fallback": ["default_score"], "default_score": float("nan")}, r"model\.serving\.default_score"),
    "a deadline without more": ({"deadline": "1s"}, r"model\.serving: deadline: got one, and no fallback"),
    "no time": ({"deadline": "0s", "fallback": ["reject"]}, r"deadline: got 0ms; no model is as quick"),
    "an unknown provider": ({"providers": ["rocm"]}, r"model\.serving\.providers\[0\]: got 'rocm'; known: cpu, cuda"),
    "an empty batch": ({"batch_max": 0}, r"model\.serving\.batch_max: got 0; input should be greater than"),
}  # fmt: skip


@pytest.mark.parametrize(("serving", "message"), WRONG.values(), ids=WRONG)
def test_a_declaration_that_contradicts_itself_is_refused(serving: dict[str, Any], message: str) -> None:
    document = declaration(model={"name": "shop-model", "serving": serving})
    with pytest.raises(DefinitionError, match=message):
        validate(FLIGHTS / "pipeline.yaml", document, Pipeline)
