"""Routing: an arm is a function of the row and the declaration, dealt out evenly, and refused where it contradicts."""

import itertools
import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from jsonschema import Draft202012Validator
from numpy.typing import NDArray

from flink_jobs.schema import schema_text
from tests.samples import FLIGHTS, declaration, small_pipeline
from udfs.core.declare.arms import format_share, parse_share
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.loading import validate
from udfs.core.declare.model_reference import ModelReference
from udfs.core.errors import DefinitionError
from udfs.core.model.routing import Router, text_hashes

KEYS = 20_000
DAY_MS = 86_400_000
BEGIN_MS = 1_767_225_600_000  # 2026-01-01
RAMP: dict[str, Any] = {"from": "2026-01-01T00:00:00Z", "every": "1d", "steps": ["1%", "5%", "25%", "100%"]}
AB: list[dict[str, Any]] = [{"name": "b", "weight": "20%"}, {"name": "c", "weight": "7.5%"}]


def pipeline(**model: Any) -> Pipeline:
    return small_pipeline(model={"name": "shop-model"} | model)


def rows(count: int = KEYS, at_ms: int = 0, **columns: list[Any]) -> pa.RecordBatch:
    """Return rows, each of a user of its own unless `user` says otherwise."""
    made: dict[str, Any] = {
        "id": [f"p{i}" for i in range(count)],
        "at_ms": [at_ms] * count,
        "user": [f"user-{i}" for i in range(count)],
        "amount": [float(i) for i in range(count)],
    }
    types = {"user": pa.string(), "amount": pa.float64(), "units": pa.int64()}
    return pa.RecordBatch.from_pydict(
        {name: pa.array(values, types.get(name)) for name, values in (made | columns).items()}
    )


def arms_of(batch: pa.RecordBatch, **model: Any) -> NDArray[np.int64]:
    return Router(pipeline(**model)).assign(batch)


def test_a_single_model_answers_every_row() -> None:
    assert Router(pipeline()).arms == ("champion",)
    assert not arms_of(rows(10)).any()
    assert arms_of(rows(0), challengers=AB).shape == (0,)


def test_arms_do_not_depend_on_where_batches_are_cut() -> None:
    router = Router(pipeline(challengers=AB, canary={"share": "10%"}, rules=[{"when": "amount < 100", "arm": "c"}]))
    batch = rows(3_000, user=[None if i % 5 == 0 else f"u{i % 700}" for i in range(3_000)])
    whole = router.assign(batch)
    for size in (1, 7, 256, 1_000):
        parts = [router.assign(batch.slice(start, size)) for start in range(0, 3_000, size)]
        assert np.concatenate(parts).tolist() == whole.tolist()


def within(count: int, share: float, of: int = KEYS) -> bool:
    """Say whether a count is within five standard deviations of a binomial: one in two million is not."""
    return bool(abs(count - of * share) <= 5 * np.sqrt(of * share * (1 - share)))


@pytest.mark.parametrize("salt", ["", "a", "b", "2026-02"])
def test_shares_are_those_declared(salt: str) -> None:
    found = arms_of(rows(), challengers=AB, canary={"share": "10%"}, routing={"salt": salt})
    counts = np.bincount(found, minlength=4)
    for count, share in zip(counts, (0.9 * 0.725, 0.9 * 0.2, 0.9 * 0.075, 0.1), strict=True):
        assert within(count, share)


def test_another_salt_deals_the_keys_out_independently() -> None:
    one, other = (arms_of(rows(), canary={"share": "50%"}, routing={"salt": salt}) for salt in ("a", "b"))
    assert within(int((one == other).sum()), 0.5)


def test_the_canary_takes_from_all_arms_alike_and_moves_no_other_key() -> None:
    before, after = arms_of(rows(), challengers=AB), arms_of(rows(), challengers=AB, canary={"share": "30%"})
    in_canary = after == 3
    assert (before[~in_canary] == after[~in_canary]).all()
    for arm, share in ((0, 0.725), (1, 0.2), (2, 0.075)):
        assert within(int((before[in_canary] == arm).sum()), share, int(in_canary.sum()))


def test_a_key_stays_in_the_canary_as_its_share_grows() -> None:
    by_hand = [arms_of(rows(), canary={"share": f"{share}%"}) == 1 for share in (0, 1, 5, 25, 99, 100)]
    for smaller, larger in itertools.pairwise(by_hand):
        assert larger[smaller].all()
        assert larger.sum() > smaller.sum()
    assert not by_hand[0].any()
    assert by_hand[-1].all()


def test_a_ramp_goes_by_event_time_in_steps_and_gives_the_same_keys_as_by_hand() -> None:
    router = Router(pipeline(canary={"ramp": RAMP}))
    moments = [(-DAY_MS, "0%"), (-1, "0%"), (0, "1%"), (DAY_MS - 1, "1%"), (DAY_MS, "5%"), (2 * DAY_MS, "25%")]
    for after_ms, share in [*moments, (3 * DAY_MS, "100%"), (10**12, "100%")]:
        found = router.assign(rows(2_000, BEGIN_MS + after_ms))
        assert found.tolist() == arms_of(rows(2_000), canary={"share": share}).tolist(), after_ms
    mixed = rows(4, user=["user-1"] * 4, at_ms=0)
    times = [BEGIN_MS + day * DAY_MS for day in (3, -1, 9, 0)]
    mixed = mixed.set_column(1, "at_ms", pa.array(times))
    assert router.assign(mixed).tolist() == [router.assign(mixed.slice(i, 1))[0] for i in range(4)]
    assert router.assign(mixed)[[0, 2]].tolist() == [1, 1]


def test_rules_come_first_and_the_first_that_fits_counts() -> None:
    rules = [
        {"when": "amount < 10", "arm": "champion"},
        {"when": "amount < 50", "arm": "by_rule"},
        {"when": "amount is null", "arm": "canary"},
    ]
    found = arms_of(
        rows(200, amount=[*map(float, range(100)), *[None] * 100]),
        challengers=[{"name": "b", "weight": "90%"}, {"name": "by_rule"}],
        canary={"share": "100%"},
        rules=rules,
    )
    assert found[:10].tolist() == [0] * 10
    assert found[10:50].tolist() == [2] * 40
    assert found[50:].tolist() == [3] * 150


def test_a_row_without_a_key_goes_by_its_event_id() -> None:
    nameless = rows(KEYS, user=[None] * KEYS)
    found = arms_of(nameless, canary={"share": "50%"})
    assert within(int(found.sum()), 0.5)
    assert found.tolist() == arms_of(nameless, canary={"share": "50%"}, routing={"key": "id"}).tolist()


def test_a_number_can_be_the_key() -> None:
    numbers = rows(KEYS, units=list(range(KEYS)))
    found = arms_of(numbers, canary={"share": "25%"}, routing={"key": "units"})
    assert within(int(found.sum()), 0.25)


def fnv(text: str) -> int:
    """FNV-1a, 64 bits, as its authors write it."""
    code = 0xCBF29CE484222325
    for byte in text.encode():
        code = (code ^ byte) * 0x100000001B3 % 2**64
    return code


def test_draws_are_the_same_on_every_machine_and_in_every_release() -> None:
    # A change of these numbers deals out every running experiment anew.
    texts = ["", "ann", "ü", "a" * 300]
    assert text_hashes(pa.array(texts)).tolist() == [fnv(text) for text in texts]
    assert text_hashes(pa.array(texts).slice(2)).tolist() == [fnv(text) for text in texts[2:]]
    found = arms_of(rows(40), challengers=AB, canary={"share": "25%"}, routing={"salt": "s"})
    assert "".join(map(str, found)) == GOLDEN


GOLDEN = "1300203310333323032000000010331033301000"


def test_the_epoch_changes_with_what_decides_and_with_nothing_else() -> None:
    base: dict[str, Any] = {"challengers": AB, "canary": {"share": "5%"}, "rules": [{"when": "amount>1", "arm": "b"}]}
    same: list[dict[str, Any]] = [
        {"alias": "live"},
        {"inputs": ["amount"]},
        {"shadows": [{"name": "next"}]},
        {"serving": {"fallback": ["reject"], "deadline": "1s"}},
        {"routing": {"key": "user"}},
        {"rules": [{"when": " amount  > 1", "arm": "b"}]},
        {"challengers": [AB[0] | {"alias": "elsewhere"}, AB[1]]},
    ]
    other: list[dict[str, Any]] = [
        {"canary": {"share": "6%"}},
        {"canary": {"ramp": RAMP}},
        {"canary": {"name": "small", "share": "5%"}},
        {"challengers": AB[::-1]},
        {"challengers": AB[:1]},
        {"rules": []},
        {"routing": {"salt": "x"}},
        {"routing": {"key": "shop"}},
    ]
    epoch = pipeline(**base).model.routing_epoch("user")
    assert re.fullmatch("[0-9a-f]{16}", epoch)
    assert {pipeline(**base | change).model.routing_epoch("user") for change in same} == {epoch}
    epochs = [pipeline(**base | change).model.routing_epoch("user") for change in other]
    assert len({*epochs, epoch}) == len(other) + 1


def test_a_declaration_comes_back_as_it_was_written() -> None:
    declared = pipeline(challengers=AB, canary={"ramp": RAMP}, rules=[{"when": "amount > 1", "arm": "b"}])
    assert Pipeline.model_validate(json.loads(declared.model_dump_json(by_alias=True))) == declared


@pytest.mark.parametrize("text", ["0%", "100%", "5%", "0.25%", "33.3333%"])
def test_a_share_comes_back_as_it_was_written(text: str) -> None:
    assert format_share(parse_share(text)) == text


B: dict[str, Any] = {"name": "b", "weight": "20%"}
RULE: dict[str, Any] = {"when": "amount > 1", "arm": "b"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a fraction": (
        {"challengers": [{"name": "b", "weight": 0.2}]},
        r"model\.challengers\[0\]\.weight: got 0\.2; a share is a percentage .*; did you mean '20%'\?",
    ),
    "above 100%": ({"canary": {"share": "101%"}}, r"model\.canary\.share: got '101%'; a share is a percentage"),
    "weights of 100%": (
        {"challengers": [B, {"name": "c", "weight": "80%"}]},
        r"model: challengers: got weights of 100% in all; below 100%, the champion has the rest",
    ),
    "no rows": (
        {"challengers": [{"name": "b"}]}, r"model: challengers\[0\]\.weight: got none, and no rows; .* 'b' in a rule",
    ),
    "no weight": ({"challengers": [B | {"weight": "0%"}], "rules": [RULE]}, r"challengers\[0\]\.weight: got 0%"),
    "a name twice": (
        {"challengers": [B], "shadows": [{"name": "b", "alias": "x"}]},
        r"model: shadows\[0\]\.name: got 'b', as challengers\[0\] has; each arm needs a name of its own",
    ),
    "the champion's name": (
        {"shadows": [{"name": "champion", "alias": "x"}]}, r"shadows\[0\]\.name: got 'champion', which names the model",
    ),
    "the champion's version": (
        {"shadows": [{"name": "next", "alias": "champion"}]}, r"shadows\[0\]\.alias: got 'champion', which is the",
    ),
    "a rule to nowhere": (
        {"challengers": [B], "rules": [RULE | {"arm": "bb"}]},
        r"model: rules\[0\]\.arm: got 'bb', which is no arm; did you mean 'b'\?",
    ),
    "a rule to a shadow": (
        {"shadows": [{"name": "next"}], "rules": [RULE | {"arm": "next"}]},
        r"rules\[0\]\.arm: got 'next', which is a shadow and never answers; known: champion",
    ),
    "a rule over nothing": (
        {"challengers": [B], "rules": [{"when": "amuont > 1", "arm": "b"}]},
        r"model\.rules\[0\]\.when: 'amuont' is no column known here; did you mean 'amount'\?",
    ),
    "a rule of wrong types": (
        {"challengers": [B], "rules": [{"when": "amount == 'x'", "arm": "b"}]}, r"model\.rules\[0\]\.when: .*amount",
    ),
    "a falling ramp": (
        {"canary": {"ramp": RAMP | {"steps": ["5%", "1%"]}}},
        r"model\.canary\.ramp: steps\[1\]: got 1% after 5%; a ramp only grows",
    ),
    "no zone": (
        {"canary": {"ramp": RAMP | {"from": "2026-01-01 00:00"}}},
        r"model\.canary\.ramp\.from: got '2026-01-01 00:00'; a moment has a date, a time and a zone, such as",
    ),
    "share and ramp": ({"canary": {"share": "5%", "ramp": RAMP}}, r"model\.canary: got both of share and ramp"),
    "neither": ({"canary": {}}, r"model\.canary: got neither of share and ramp; give one of them"),
    "a key that is none": (
        {"routing": {"key": "usr"}},
        r"model\.routing\.key: got 'usr', which is no string or int64 field of the contract; did you mean 'user'\?",
    ),
    "a number as a key": ({"routing": {"key": "amount"}}, r"model\.routing\.key: got 'amount', which is no string or"),
    "an unknown key": ({"canary": {"shares": "5%"}}, r"model\.canary\.shares: unknown key; did you mean 'share'\?"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "message"), WRONG.values(), ids=WRONG)
def test_a_declaration_that_contradicts_itself_is_refused(model: dict[str, Any], message: str) -> None:
    document = declaration(model={"name": "shop-model"} | model)
    with pytest.raises(DefinitionError, match=message):
        validate(FLIGHTS / "pipeline.yaml", document, Pipeline)


def test_the_page_shows_declarations_that_hold() -> None:
    text = (FLIGHTS.parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block.partition("```")[0])["model"] for block in text.split("```yaml\n")[1:]]
    schema = json.loads(schema_text("pipeline.schema.json"))
    reference = Draft202012Validator({"$ref": "#/$defs/ModelReference", "$defs": schema["$defs"]})
    assert len(blocks) == 5
    for block in blocks:
        declared = ModelReference.model_validate(block)
        reference.validate(declared.model_dump(mode="json", by_alias=True))
    routed = ModelReference.model_validate(blocks[0])
    assert [arm.name for arm in routed.answering] == ["champion", "deep", "germany", "canary"]
