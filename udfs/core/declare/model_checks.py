"""Checks of the model against the rest of its pipeline: routing key, columns of rules, keys of entities, chain."""

from collections.abc import Mapping, Sequence

from udfs.core.declare.contract import FieldSpec
from udfs.core.declare.expansion import group_features
from udfs.core.declare.feature_groups import FeatureGroup
from udfs.core.declare.group_checks import Types, check_condition
from udfs.core.declare.model_reference import ModelReference
from udfs.core.errors import did_you_mean

KEY_TYPES = ("string", "int64")


def check_routing(
    model: ModelReference, fields: Mapping[str, FieldSpec], columns: Types, groups: Sequence[FeatureGroup]
) -> None:
    """Raise ValueError, naming the place, for a key, a rule or a step of the chain that does not fit.

    Parameters
    ----------
    model : as declared
    fields : of the event's contract
    columns : fields, lookups, joins and derived columns; None where only a file or a stream knows the type
    groups : feature groups, whose features a rule may name, too
    """
    fit = [name for name, spec in fields.items() if spec.kind in KEY_TYPES]
    keys = {"routing": model.routing.key, "per_entity": model.per_entity.key if model.per_entity else None}
    for place, key in keys.items():
        if key is not None and key not in fit:
            msg = f"model.{place}.key: got {key!r}, which is no string or int64 field of the contract"
            raise ValueError(msg + did_you_mean(key, fit))
    if not model.rules and not model.chain:
        return
    features = [one for group in groups for one in group_features(group, columns)]
    for position, step in enumerate(model.chain):
        for name in step.columns:
            if name in columns or name in [one.name for one in features]:
                msg = f"model.chain[{position}]: got {name!r}, which is a column already; name another with `gives`"
                raise ValueError(msg)
    known = dict(columns) | {one.name: "float64" for one in features if one.gives == "float64"}
    for position, rule in enumerate(model.rules):
        check_condition(f"model.rules[{position}].when", rule.when, known)
