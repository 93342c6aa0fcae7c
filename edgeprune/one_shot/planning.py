"""From a trained model to a plan of its zeros, or at once to the model that has them.

pruned = prune_weights(model, sparsity=0.5, reconstruct=data)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict, Unpack, cast

from edgeprune import flavor
from edgeprune.number_checks import check_number
from edgeprune.one_shot.planned import planned_weights
from edgeprune.one_shot.weight_plan import WeightPlan
from edgeprune.sparsity.mechanism import mechanism_of
from edgeprune.sparsity.schedules import ConstantSparsity
from edgeprune.sparsity.settings import PruningRun
from edgeprune.types import DataLike, LayerChoice, Model, SameModel


class WeightSettings(TypedDict, total=False):
    """The arguments of `plan_weights` after the sparsity."""

    sparsity_m_by_n: tuple[int, int] | None
    block_size: tuple[int, int]
    block_pooling_type: Literal["AVG", "MAX"]
    layers: LayerChoice | None
    ignore: LayerChoice | None
    scope: Literal["local", "global"]


def plan_weights(
    model: Model,
    sparsity: float | Mapping[str, float] | None = None,
    *,
    sparsity_m_by_n: tuple[int, int] | None = None,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: Literal["AVG", "MAX"] = "AVG",
    layers: LayerChoice | None = None,
    ignore: LayerChoice | None = None,
    scope: Literal["local", "global"] = "local",
) -> WeightPlan:
    """Choose the weights of a trained model that become zero, in one shot: those of the smallest magnitude.

    The masks are those that `prune_low_magnitude` with a `ConstantSparsity` makes at its first step, and TF-MOT too.
    `plan.apply()` is the model with the zeros; `plan.reconstruct(data)` chooses as many zeros again, layer by layer, so
    that the kept weights can make up for them. Pass exactly one of `sparsity` and `sparsity_m_by_n`.

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        sparsity: fraction of zeros, 0 to below 1, in each weight tensor. A dict of names and patterns has a fraction
            for each layer: `{"block_*": 0.8, "head": 0.3}`; the first pattern that fits counts, and a layer that none
            fits is not pruned.
        sparsity_m_by_n: (m, n): m zeros in every n consecutive weights along the inputs of a Dense or Conv2D layer.
        block_size: (rows, columns) of blocks that become zero together, of 2-dimensional weights.
        block_pooling_type: `"AVG"` or `"MAX"`: a block's magnitude from its weights'.
        layers: which layers: a name or pattern, a layer, a function of a layer, or a list of these.
        ignore: layers that are left alone, in the same forms.
        scope: `"local"`: each weight tensor has the sparsity; `"global"`: all together have it, ranked with each other.

    Returns:
        The plan, with the layers that get no zeros and the reason.

    Raises:
        TypeError: `model` is no Keras model, or an argument of the wrong type.
        ValueError: the model is not built or under pruning, an argument is out of range, no layer can be pruned, or a
            weight is not finite.

    Example:
        >>> plan = plan_weights(model, sparsity=0.5, ignore="head")
        >>> [(one.name, one.zeros) for one in plan.weights], plan.unprunable
        ([('stem/kernel', 36), ('conv/kernel', 576)], {'head': 'ignored'})
    """
    flavor.check_built_model(model)
    if mechanism_of(model).has_masks(model):
        raise ValueError(f"Model {model.name!r} is under pruning: strip_pruning(model) first.")
    fractions = _fractions(sparsity, sparsity_m_by_n)
    if scope == "global" and len(fractions) > 1:
        raise ValueError('scope="global" ranks all weights together and accepts one sparsity, not a dict of them.')
    runs = {
        pattern: PruningRun(ConstantSparsity(one, 0), block_size, block_pooling_type, sparsity_m_by_n, scope)
        for pattern, one in fractions.items()
    }
    weights, unprunable = planned_weights(model, runs, layers, ignore)
    if not weights:
        listed = "; ".join(f"{name}: {reason}" for name, reason in unprunable.items()) or "It has no kernel."
        raise ValueError(f"No layer of model {model.name!r} can be pruned. {listed}")
    return WeightPlan(model, tuple(weights), unprunable)


def prune_weights(
    model: SameModel,
    sparsity: float | Mapping[str, float] | None = None,
    *,
    reconstruct: DataLike | None = None,
    **settings: Unpack[WeightSettings],
) -> SameModel:
    """Prune a trained model in one shot: `plan_weights(model, sparsity, **settings).apply(reconstruct=reconstruct)`.

    Nothing is trained, and no labels are needed. With `reconstruct`, some hundred samples, the kept weights make
    up for those that go; without it the smallest magnitudes become zero and that is all.

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        sparsity: as `plan_weights` accepts it.
        reconstruct: unlabelled samples, as `WeightPlan.reconstruct` accepts them.
        **settings: as `plan_weights` accepts them.

    Returns:
        A plain model of the same Keras with the same layers and names, compiled as the one passed is. To train it
        on with its zeros, put it under pruning with the same sparsity from the first step:
        `prune_low_magnitude(pruned, ConstantSparsity(0.5, 0, frequency=1))`, whose masks are then what is zero already.

    Raises:
        TypeError: as `plan_weights`.
        ValueError: as `plan_weights`; or the data do not fit the model or are not finite.

    Example:
        >>> pruned = prune_weights(model, sparsity_m_by_n=(2, 4), reconstruct=x)
        >>> (pruned.get_layer("conv").kernel.numpy() == 0).mean().item()
        0.5
    """
    return cast(SameModel, plan_weights(model, sparsity, **settings).apply(reconstruct=reconstruct))


def _fractions(sparsity: float | Mapping[str, float] | None, m_by_n: tuple[int, int] | None) -> dict[str, float]:
    """A sparsity for each pattern of layers; of N:M any."""
    if (sparsity is None) == (m_by_n is None):
        raise ValueError("Pass exactly one of sparsity and sparsity_m_by_n.")
    if sparsity is None:
        return {"*": 0.5}
    fractions = dict(sparsity) if isinstance(sparsity, Mapping) else {"*": sparsity}
    if not fractions or not all(isinstance(pattern, str) for pattern in fractions):
        raise ValueError(f"sparsity as a dict has names or patterns of layers as keys, got {sparsity!r}.")
    for pattern, one in fractions.items():
        name = f"sparsity[{pattern!r}]" if isinstance(sparsity, Mapping) else "sparsity"
        check_number(name, one)
        if not 0 <= one < 1:
            raise ValueError(f"{name} is the fraction of zeros, from 0 to below 1; got {one}.")
    return fractions
