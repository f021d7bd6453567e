"""The chain: which steps run before a model, and whether all that the models of a job take is there."""

from collections.abc import Collection, Mapping, Sequence

from udfs.core.declare.composition import Step
from udfs.core.declare.model_reference import ModelReference
from udfs.core.errors import did_you_mean
from udfs.core.model.contract import ModelContract
from udfs.core.model.ensemble import Combiner, said
from udfs.core.model.refusals import ModelRefusedError, Refusal


class Chain:
    """The steps of a chain, with what each takes.

    Parameters
    ----------
    steps : as declared
    contracts : of the models, by name
    """

    def __init__(self, steps: Sequence[Step], contracts: Mapping[str, ModelContract]) -> None:
        self._giver = {column: step.name for step in steps for column in step.columns}
        #: step -> the columns that it gives
        self.columns = {step.name: step.columns for step in steps}
        self._behind: dict[str, tuple[str, ...]] = {}
        for step in steps:
            self._behind[step.name] = self.behind(contracts[step.name].inputs)

    def behind(self, inputs: Sequence[str]) -> tuple[str, ...]:
        """Return the steps that a model of these inputs needs, directly or not, in the order in which they run."""
        if not self._giver:
            return ()
        direct = {self._giver[name] for name in inputs if name in self._giver}
        needed = direct.union(*(self._behind.get(name, ()) for name in direct))
        return tuple(name for name in self.columns if name in needed)


def refuse_unbound(
    reference: ModelReference, features: Collection[str], contracts: Mapping[str, ModelContract]
) -> None:
    """Refuse a composition that does not hold together: inputs, outputs of steps, ensembles.

    Parameters
    ----------
    features : the pipeline's feature set
    contracts : of all models of `reference.models`, by name

    Raises
    ------
    ModelRefusedError : `names`: an input that nothing gives, or a step that nothing takes. `order`: a step takes what
        comes behind it, or itself. `shape`: a step gives more or fewer numbers than it has columns. `contract`: an
        ensemble of answers that cannot be combined.
    """
    given: dict[str, int] = {column: i for i, step in enumerate(reference.chain) for column in step.columns}
    place = {step.name: i for i, step in enumerate(reference.chain)}
    taken: set[str] = set()
    for name, contract in contracts.items():
        before = place.get(name, len(place))
        for column in contract.inputs:
            if given.get(column, -1) >= before:
                behind = reference.chain[given[column]].name
                what = "itself" if behind == name else f"step {behind}, which comes behind it"
                msg = (
                    f"step {name}: {contract.what} takes {column!r}, of {what}; a step takes what steps before it give"
                )
                raise ModelRefusedError(Refusal.ORDER, f"{msg}; steps that take each other cannot be ordered")
            if column not in given and column not in features:
                near = did_you_mean(column, [*features, *given])
                msg = f"{name}: {contract.what} takes {column!r}, which is no feature and given by no step{near}"
                raise ModelRefusedError(Refusal.NAMES, msg)
        taken |= {reference.chain[given[column]].name for column in contract.inputs if column in given}
    for i, step in enumerate(reference.chain):
        contract = contracts[step.name]
        if contract.output.width != len(step.columns):
            msg = (
                f"step {step.name}: {contract.what} gives {said(contract)}, {contract.output.width} numbers; chain[{i}]"
                f" names {len(step.columns)} columns: {', '.join(step.columns)}; name as many with `gives`"
            )
            raise ModelRefusedError(Refusal.SHAPE, msg)
        if step.name not in taken:
            msg = f"step {step.name}: no model takes {' or '.join(step.columns)}; leave the step out of the chain"
            raise ModelRefusedError(Refusal.NAMES, msg)
    for arm, ensemble in reference.ensembles.items():
        Combiner(arm, ensemble, contracts)
