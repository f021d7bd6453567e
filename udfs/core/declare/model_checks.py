"""Checks of the model's routing against the rest of its pipeline: the key, and the columns of its rules."""

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
    """Raise ValueError, naming the place, for a routing key or a rule that does not fit.

    Parameters
    ----------
    model : as declared
    fields : of the event's contract
    columns : fields, lookups, joins and derived columns; None where only a file or a stream knows the type
    groups : feature groups, whose features a rule may name, too
    """
    key = model.routing.key
    fit = [name for name, spec in fields.items() if spec.kind in KEY_TYPES]
    if key is not None and key not in fit:
        msg = f"model.routing.key: got {key!r}, which is no string or int64 field of the contract"
        raise ValueError(msg + did_you_mean(key, fit))
    if not model.rules:
        return
    known = dict(columns) | {
        one.name: "float64" for group in groups for one in group_features(group, columns) if one.gives == "float64"
    }
    for position, rule in enumerate(model.rules):
        check_condition(f"model.rules[{position}].when", rule.when, known)
