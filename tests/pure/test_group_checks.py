"""What a group of features may not say, each refusal with its sentence; and what it may, written out and read again."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.samples import FIELDS, RATE_JOIN, declaration, small_pipeline
from udfs.core.declare.catalog import CATALOG
from udfs.core.declare.definition import Pipeline
from udfs.core.declare.expansion import group_features
from udfs.core.declare.feature_groups import FeatureGroup
from udfs.core.declare.group_checks import TEXT_TAKES
from udfs.core.declare.windows import KINDS

COUNT: dict[str, Any] = {"entity": "user", "take": ["count"], "over": ["1s"]}
SUM = COUNT | {"of": "amount", "take": ["sum"]}
RATES = COUNT | {"entity": "shop", "from": "rates", "of": "rate", "take": ["mean"]}
PAIR = COUNT | {"entity": ["user", "shop"]}
FIELDS_AND_VECTOR = FIELDS | {"vector": "float64[2]?"}
#: fields that stand in the way of names
MORE_FIELDS = FIELDS | {"user_shop": "string?", "a_b": "string", "c": "string", "a": "string", "b_c": "string"}
MORE_FIELDS |= {"the_count_1s": "float64"}

#: what is wrong -> the groups, and the sentence
REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "an entity that is no field": (
        [COUNT | {"entity": "usr"}],
        "features[0].entity: got 'usr', which is no string field of the contract; did you mean 'user'?",
    ),
    "an entity that is a number": (
        [COUNT, COUNT | {"entity": ["user", "amount"]}],
        "features[1].entity: got 'amount', which is no string field of the contract",
    ),
    "an entity of no fields": ([COUNT | {"entity": []}], "entity: got []; name one field, or several different ones"),
    "an entity that names a field twice": (
        [COUNT | {"entity": ["user", "user"]}],
        "entity: got ['user', 'user']; name one field, or several different ones",
    ),
    "fields that make the name of a column": (
        [PAIR],
        "features[0].entity: its fields make the name 'user_shop', which is a column; reorder them",
    ),
    "fields that make the name that others make": (
        [COUNT | {"entity": ["a_b", "c"]}, COUNT | {"entity": ["a", "b_c"], "as": "other"}],
        "features[1].entity: its fields make the name 'a_b_c', as ['a_b', 'c'] do; reorder them",
    ),
    "a stream that there is none of": (
        [RATES | {"from": "rate"}],
        "features[0].from: got 'rate', which is no enrichment; did you mean 'rates'?",
    ),
    "a stream of another entity": (
        [COUNT | {"entity": "shop"}, RATES | {"entity": "user"}],
        "features[1].from: 'rates' is matched with entity 'shop'; got entity 'user'",
    ),
    "the event's own value in a stream that it is none of": (
        [COUNT | {"entity": "shop"}, RATES | {"take": [{"delta": 1}]}],
        "features[1].take.delta: needs the event's own value, and the event is none of 'rates'; take lag",
    ),
    "a column of the events in a stream": (
        [COUNT | {"entity": "shop"}, RATES | {"of": "amount"}],
        "features[1].of: got 'amount', which is no number column known here",
    ),
    "a column of a stream in the events": (
        [SUM | {"of": "rate"}],
        "features[0].of: got 'rate', which is no number column known here",
    ),
    "an unknown column": (
        [SUM | {"of": "amuont"}],
        "features[0].of: got 'amuont', which is no number column known here; did you mean 'amount'?",
    ),
    "the sum of a text": ([SUM | {"of": "shop"}], "features[0].of: got 'shop', which is no number column known here"),
    "an unknown column that may be text": (
        [SUM | {"of": "shopp", "take": ["distinct"]}],
        "features[0].of: got 'shopp', which is no column known here; did you mean 'shop'?",
    ),
    "no column": (
        [COUNT | {"take": ["count", "mean", {"unique": 2}]}],
        "of: missing; mean, unique cannot do without a value",
    ),
    "an unknown second column": (
        [SUM | {"take": [{"argmax": "unit"}]}],
        "features[0].take.argmax: got 'unit', which is no number column known here; did you mean 'units'?",
    ),
    "a second column of text": (
        [SUM | {"take": [{"argmin": "shop"}]}],
        "features[0].take.argmin: got 'shop', which is no number column known here",
    ),
    "a share of a condition on nothing": (
        [COUNT | {"take": [{"ratio": "amuont > 1"}]}],
        "features[0].take.ratio: 'amuont' is no column known here; did you mean 'amount'?",
    ),
    "a condition on nothing": (
        [COUNT | {"where": "unit > 1"}],
        "features[0].where: 'unit' is no column known here; did you mean 'units'?",
    ),
    "a condition that compares text with a number": (
        [COUNT | {"where": "shop > 1"}],
        "features[0].where: ",
    ),
    "a session that starts with nothing": (
        [COUNT | {"over": [{"session_from": "unit > 1"}]}],
        "features[0].over.session_from: 'unit' is no column known here; did you mean 'units'?",
    ),
    "a session that starts with another stream's rows": (
        [COUNT | {"over": [{"session_from": "rate > 1"}]}],
        "features[0].over.session_from: 'rate' is no column known here",
    ),
    "a sketch of sessions": (
        [SUM | {"take": ["distinct"], "over": ["1s", {"session": "1s"}]}],
        "features[0].over: distinct looks at sliding, tumbling and lifetime windows; got session_1s",
    ),
    "text of the last events": (
        [SUM | {"of": "shop", "take": ["count", "last"], "over": [{"last": 3}]}],
        "features[0].over: last looks at sliding, tumbling and lifetime windows; got last_3",
    ),
    "buckets of sessions": (
        [SUM | {"by": "shop", "over": [{"session_from": "units > 1"}]}],
        "features[0].over: by: shop looks at sliding, tumbling and lifetime windows; got session_from",
    ),
    "a sketch by bucket": (
        [SUM | {"by": "shop", "take": ["sum", "distinct"]}],
        "features[0].by: goes with aggregations of numbers, each by itself; got distinct",
    ),
    "a second column by bucket": (
        [SUM | {"by": "shop", "take": [{"argmax": "units"}]}],
        "features[0].by: goes with aggregations of numbers, each by itself; got argmax",
    ),
    "the event's own value by bucket": (
        [SUM | {"by": "shop", "take": [{"delta": 1}]}],
        "features[0].by: goes with aggregations of numbers, each by itself; got delta",
    ),
    "text by bucket": (
        [SUM | {"of": "user", "by": "shop", "take": ["count", "first"]}],
        "features[0].by: goes with aggregations of numbers, each by itself; got first",
    ),
    "a sketch of a vector": (
        [SUM | {"of": "vector", "take": ["mean", "distinct"]}],
        "features[0].of: 'vector' is a vector, which goes with aggregations of numbers, each element by itself",
    ),
    "buckets of a vector": (
        [SUM | {"of": "vector", "by": "shop"}],
        "features[0].of: 'vector' is a vector, which goes with aggregations of numbers, each element by itself",
    ),
    "a vector as second column": (
        [SUM | {"take": [{"argmax": "vector"}]}],
        "features[0].take.argmax: got 'vector', which is no number column known here",
    ),
    "buckets of numbers": (
        [SUM | {"by": "units"}],
        "features[0].by: got 'units', which is no string column known here",
    ),
    "buckets of nothing": (
        [SUM | {"by": "shp"}],
        "features[0].by: got 'shp', which is no string column known here; did you mean 'shop'?",
    ),
    "a feature that stands twice": (
        [SUM, COUNT, SUM | {"slide": "100ms"}],
        "feature 'user_amount_sum_1s' stands twice: in features[0], and in features[2]; keep one, or name one with",
    ),
    "a feature with the name of a column": (
        [COUNT | {"as": "the"}],
        "feature 'the_count_1s' stands twice: as a column that is no feature, and in features[0]; keep one",
    ),
    "no tile": ([COUNT | {"slide": "0s"}], "slide: got 0; a tile is at least 1ms wide"),
    "half a tile": (
        [COUNT | {"over": ["1500ms"], "slide": "1s"}],
        "over: got 1500ms; a window and its delay are whole multiples of its slide (1s)",
    ),
    "a delay of half a tile": (
        [COUNT | {"over": [{"sliding": "2s", "delay": "1500ms"}], "slide": "1s"}],
        "over: got 2s_delay_1500ms; a window and its delay are whole multiples of its slide (1s)",
    ),
    "too many tiles": (
        [COUNT | {"over": ["7d"], "slide": "1s"}],
        "over: got 7d with a slide of 1s; a window has at most 20000 tiles: choose a wider slide, or none",
    ),
    "an unknown window": ([COUNT | {"over": [{"slidng": "1s"}]}], "features.0.over.0.slidng"),
    "two windows in one": (
        [COUNT | {"over": [{"sliding": "1s", "last": 3}]}],
        "got sliding, last; a window is one of sliding, tumbling, session, session_from, last, lifetime, such as 1h or",
    ),
    "no window": ([COUNT | {"over": [{}]}], "got none of them; a window is one of sliding, tumbling, "),
    "a delayed session": (
        [COUNT | {"over": [{"session": "1s", "delay": "1s"}]}],
        "delay goes with a sliding window; got session; write {sliding: 1h, delay: 1d}",
    ),
    "a window of no time": (
        [COUNT | {"over": [{"session": "0s"}]}],
        "got session: 0ms; a window is at least 1ms long",
    ),
    "a window that is a number": (
        [COUNT | {"over": [60]}],
        "got 60; a duration is a whole number and a unit, such as '30s'",
    ),
    "an unknown aggregation": ([SUM | {"take": ["maen"]}], "got 'maen'; did you mean 'mean'?"),
    "an argument too many": ([SUM | {"take": [{"mean": 3}]}], "mean needs no argument, such as mean; got 3"),
    "an argument too few": (
        [SUM | {"take": ["lag"]}],
        "lag needs a whole number from 1 to 100, such as {lag: 3}; got None",
    ),
    "a duration that is none": (
        [SUM | {"take": [{"rate": "1x"}]}],
        "rate needs a duration, such as {rate: 1h}; got '1x': got '1x'; a duration is a whole number and a unit",
    ),
    "a condition that is none": (
        [SUM | {"take": [{"ratio": "amount >"}]}],
        "ratio needs a condition, such as {ratio: \"amount > 100\"}; got 'amount >': ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_is_wrong_is_said(wrong: str) -> None:
    groups, sentence = REFUSED[wrong]
    contract = {"id": "id", "time": "at_ms", "fields": MORE_FIELDS if "name" in wrong else FIELDS_AND_VECTOR}
    joins = [RATE_JOIN] if any(group["entity"] == "shop" for group in groups) or "from" in groups[0] else []
    with pytest.raises(ValidationError) as caught:
        small_pipeline(features=groups, contract=contract, enrichments=joins)
    assert sentence in str(caught.value)


def test_fields_may_not_make_the_name_of_a_joined_column() -> None:
    join = RATE_JOIN | {"take": {"user_shop": "rate"}}
    with pytest.raises(ValidationError, match=r"features\[1\].entity: its fields make the name 'user_shop', which is"):
        small_pipeline(features=[COUNT | {"entity": "shop"}, PAIR], enrichments=[join])


WRONG_ARGUMENTS: dict[str, list[Any]] = {
    "none": [1, "x", [1]],
    "count": [None, 0, 101, -1, 2.0, True, "3", [3]],
    "share": [None, -0.1, 1.1, True, "0.5", float("nan")],
    "duration": [None, 60, "0s", "1 hour", "", True],
    "column": [None, 3, True, ["amount"]],
    "condition": [None, 3, "", "amount >", "sum(amount) > 3", True],
    "bounds": [None, 3, [], [2, 1], [1, 1], ["1"], [True, 2], [float("nan")], [1.0, float("inf")], list(range(101))],
}


@pytest.mark.parametrize("name", CATALOG)
def test_a_wrong_argument_is_refused_with_what_is_wanted_and_an_example(name: str) -> None:
    for argument in WRONG_ARGUMENTS[CATALOG[name].argument]:
        with pytest.raises(ValidationError, match=rf"{name} needs .*, such as .*{name}.*; got ") as caught:
            FeatureGroup.model_validate(SUM | {"take": [{name: argument}]})
        # The example it gives is one that works.
        example = str(caught.value).split("such as ")[1].split("; got")[0]
        assert name in example


ARGUMENTS: dict[str, list[Any]] = {
    "none": [None],
    "count": [1, 100],
    "share": [0, 0.29, 0.5, 0.999, 1],
    "duration": ["1ms", "90s", "1 h"],
    "column": ["units"],
    "condition": ["units > 3 or shop is null"],
    "bounds": [[0], [-1.5, 0, 10]],
}
LABELS = {
    "quantile": ["p0", "p29", "p50", "p99_9", "p100"],
    "rate": ["rate_1ms", "rate_90s", "rate_1h"],
    "histogram": ["histogram_0", "histogram_1", "histogram_0", "histogram_1", "histogram_2", "histogram_3"],
    "argmax": ["argmax_units"],
    "ratio": ["ratio"],
    "lag": ["lag_1", "lag_100"],
}


@pytest.mark.parametrize("name", CATALOG)
def test_every_aggregation_is_declared_by_its_name_and_argument_and_names_its_columns(name: str) -> None:
    labels = []
    for argument in ARGUMENTS[CATALOG[name].argument]:
        take = name if argument is None else {name: argument}
        pipeline = small_pipeline(features=[SUM | {"take": [take]}])
        (group,) = pipeline.features
        labels += [one.name.removeprefix("user_amount_").removesuffix("_1s") for one in group_features(group)]
        assert Pipeline.model_validate(pipeline.model_dump(mode="json", by_alias=True)) == pipeline
    assert all(label.replace("_", "a").isalnum() for label in labels)
    assert labels == LABELS.get(name, labels)


WINDOWS: dict[str, tuple[Any, str]] = {
    "sliding": ({"sliding": "1h", "delay": "1d"}, "1h_delay_1d"),
    "tumbling": ({"tumbling": "7d"}, "tumbling_7d"),
    "session": ({"session": "90s"}, "session_90s"),
    "session_from": ({"session_from": "units > 3"}, "session_from"),
    "last": ({"last": 1000}, "last_1000"),
    "lifetime": ("lifetime", "lifetime"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_window_is_declared_and_names_its_columns(kind: str) -> None:
    window, suffix = WINDOWS[kind]
    pipeline = small_pipeline(features=[COUNT | {"over": [window]}])
    assert [one.name for one in group_features(pipeline.features[0])] == [f"user_count_{suffix}"]
    assert pipeline.features[0].over[0].kind == kind
    assert Pipeline.model_validate(pipeline.model_dump(mode="json", by_alias=True)) == pipeline


@pytest.mark.parametrize("name", sorted(TEXT_TAKES))
def test_what_takes_text_takes_it(name: str) -> None:
    argument = {"count": 2, "duration": "1s", "condition": "units > 1"}.get(CATALOG[name].argument)
    take = name if argument is None else {name: argument}
    assert small_pipeline(features=[SUM | {"of": "shop", "take": [take]}]).features[0].of == "shop"


@pytest.mark.parametrize(
    ("window", "slide_ms"),
    [("1h", 60_000), ("1d", 1_800_000), ("7d", 10_800_000), ("10s", 200), ("47ms", 1), ("61m", 60_000)],
)
def test_a_slide_is_about_a_fiftieth_where_none_is_declared(window: str, slide_ms: int) -> None:
    (feature,) = group_features(FeatureGroup.model_validate(COUNT | {"over": [window]}))
    assert feature.slide_ms == slide_ms


def test_a_slide_divides_the_delay_too() -> None:
    (feature,) = group_features(FeatureGroup.model_validate(COUNT | {"over": [{"sliding": "1h", "delay": "90s"}]}))
    assert feature.slide_ms == 30_000


def test_the_samples_pass() -> None:
    assert Pipeline.model_validate(declaration()).features
