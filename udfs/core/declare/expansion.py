"""Expansion: the single features that a feature group stands for."""

from collections.abc import Iterator, Mapping

from udfs.core.declare.contract import vector_size
from udfs.core.declare.feature import Feature, Input
from udfs.core.declare.feature_groups import FeatureGroup


def group_features(group: FeatureGroup, types: Mapping[str, str | None] | None = None) -> Iterator[Feature]:
    """Yield the features of a group: window by window, aggregation by aggregation, element by element of a vector.

    Parameters
    ----------
    types : of the columns of its stream, as far as they are known: `string`, `float64[8]`
    """
    kind = (types or {}).get(group.of or "")
    size = vector_size(kind)
    for window in group.over:
        for take in group.take:
            for element in range(size or 1):
                of, prefix = group.of, group.prefix
                if size is not None:
                    of, prefix = f"{group.of}[{element}]", f"{prefix}_{element}"
                for part, label in enumerate(take.labels):
                    yield Feature(
                        name=f"{prefix}_{label}_{window.suffix}",
                        entity=group.entity_name,
                        stream=group.stream,
                        take=take,
                        input=Input(of if take.flag is None else None, group.where, take.flag),
                        window=window,
                        slide_ms=window.slide_ms(group.declared_slide_ms) if window.kind == "sliding" else 0,
                        includes_event=group.includes_event and not take.aggregation.before_event,
                        part=part,
                        parts=len(take.labels),
                        by=group.by,
                        is_text=kind == "string",
                    )
