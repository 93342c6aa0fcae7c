"""Which weights of a model become zero, and which layers are left alone and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgeprune import flavor
from edgeprune.layer_patterns import by_first_pattern
from edgeprune.sparsity import masks, prunable
from edgeprune.sparsity.settings import PruningRun
from edgeprune.types import Layer, LayerChoice, Model, Variable


@dataclass(frozen=True, eq=False)
class PlannedWeight:
    """A weight that gets zeros.

    Attributes:
        layer: path name of the layer that holds it.
        weight: what the layer calls it, such as `"kernel"`.
        mask: bool array of its shape, True where the value is kept.
        run: the settings that it is pruned with.
        holder: the layer.
        variable: the weight itself.
    """

    layer: str
    weight: str
    mask: np.ndarray
    run: PruningRun
    holder: Layer
    variable: Variable

    @property
    def name(self) -> str:
        """Its path name."""
        return f"{self.layer}/{self.weight}"

    @property
    def zeros(self) -> int:
        """How many values become zero."""
        return int(self.mask.size - np.count_nonzero(self.mask))

    def variable_in(self, counterparts: Mapping[int, Layer]) -> Variable:
        """The same weight of a copy of the model, whose layers are passed by `id` of those of the original."""
        old = flavor.weights_of(self.holder)
        new = flavor.weights_of(counterparts[id(self.holder)])
        return next(copy for one, copy in zip(old, new, strict=True) if one is self.variable)


class _Candidate(NamedTuple):
    """A weight that can be pruned, of a layer of this path name."""

    layer: str
    weight: str
    run: PruningRun
    holder: Layer
    variable: Variable


def planned_weights(
    model: Model,
    runs: Mapping[str, PruningRun],
    layers: LayerChoice | None,
    ignore: LayerChoice | None,
) -> tuple[list[PlannedWeight], dict[str, str]]:
    """Choose the weights, and in each what is kept: the largest magnitudes, as TF-MOT's masks have it.

    Args:
        model: a built model of either Keras.
        runs: settings by name or pattern of layers; the first that fits counts.
        layers: which layers; None for all.
        ignore: layers to leave alone; None for none.

    Returns:
        The weights, and the path names of layers with weights that are left alone, with the reason.

    Raises:
        TypeError, ValueError: `layers` or `ignore` names no layer, a pattern fits none, or a weight is not finite.
    """
    names = prunable.names_of(model)
    chosen = {id(layer) for layer in prunable.chosen_layers(model, layers)}
    ignored = set() if ignore is None else {id(layer) for layer in prunable.chosen_layers(model, ignore)}
    run_of = by_first_pattern(model, runs, names, "sparsity")
    left_alone: dict[str, str] = {}
    found: list[_Candidate] = []
    for layer in flavor.layers_of(model):
        weights = prunable.prunable_weights(layer)
        reason = None if weights else prunable.why_not_prunable(layer)
        run = run_of.get(id(layer))
        if weights and id(layer) in ignored:
            reason = "ignored"
        elif weights and id(layer) not in chosen:
            reason = "not among those that layers= chooses"
        elif weights and run is None:
            reason = "no pattern of sparsity fits its name"
        elif weights and run is not None:
            reason = prunable.why_not_settings(layer, run)
        if reason:
            left_alone[names[id(layer)]] = reason
        elif run is not None:
            seen = {id(one.variable) for one in found}  # a composite layer may name a kernel of a layer inside it
            own = ((name, variable) for name, variable in weights.items() if id(variable) not in seen)
            found += [_Candidate(names[id(layer)], name, run, layer, variable) for name, variable in own]
    return list(_masked(found)), left_alone


def _masked(found: Sequence[_Candidate]) -> Iterator[PlannedWeight]:
    """Each weight with its mask."""
    magnitudes = [_magnitudes(one) for one in found]
    fractions = [one.run.final_sparsity or 0.0 for one in found]
    if found and found[0].run.scope == "global":
        kept = masks.global_masks(magnitudes, fractions[0])
    else:
        triples = zip(found, magnitudes, fractions, strict=True)
        kept = [one.run.local_mask(values, fraction) for one, values, fraction in triples]
    for one, mask in zip(found, kept, strict=True):
        yield PlannedWeight(one.layer, one.weight, mask, one.run, one.holder, one.variable)


def _magnitudes(one: _Candidate) -> np.ndarray:
    values = np.abs(flavor.array_of(one.variable))
    if not np.isfinite(values).all():
        name = f"{one.layer}/{one.weight}"
        raise ValueError(f"{name} holds NaN or infinite values, and there is nothing to rank: train the model first.")
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
