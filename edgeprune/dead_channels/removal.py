"""Channels that never contribute, and their removal without any change of the output.

A channel is dead when nothing that is live reads it, or when it is zero wherever it is read. A constant other than
zero is removed too where what it contributes can be added to the bias of the layers that read it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Slot, Step
from edgeprune.channels.graph.rules.kernels import channel_axis
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.plan.selection import freeze_in_attention
from edgeprune.dead_channels.constant_channels import Constants, constants, pads_with_zeros
from edgeprune.progress import status
from edgeprune.sparsity.prune import without_wrappers
from edgeprune.types import Layer, Model


@dataclass(frozen=True, eq=False)
class ConstantContribution:
    """What constant channels contribute to a layer, added to it once and for all.

    Attributes:
        layer: the layer that is changed.
        name: the weight it is added to: `"bias"`, or `"moving_mean"` of the batch norm behind a layer without bias.
        addition: float array with one entry for each entry of that weight.
    """

    layer: Layer
    name: str
    addition: np.ndarray


@dataclass(frozen=True, eq=False)
class DeadChannels:
    """The channels of a model that can be removed without any change of its output.

    Attributes:
        graph: the model's channels.
        kept_mask: bool array `(graph.class_count,)`, true where the class is kept.
        folds: what constants contribute to the layers that read them.
        left: group name to a sentence on constant channels that are kept, because no bias can hold their constant.
    """

    graph: ChannelGraph
    kept_mask: np.ndarray
    folds: tuple[ConstantContribution, ...]
    left: dict[str, str]

    @cached_property
    def plan(self) -> ChannelPlan:
        """The removal as a plan: its table, MACs and parameters. Its own `apply` leaves the constants out."""
        return ChannelPlan(self.graph, self.kept_mask)

    @property
    def count(self) -> int:
        """How many channels are removed; coupled channels count once."""
        return int(np.count_nonzero(~self.kept_mask))

    def __str__(self) -> str:
        """One line for each group that loses channels or keeps constant ones."""
        rows = [f"{row.name}: {row.before} -> {row.after}" for row in self.plan.planned if row.after < row.before]
        left = [f"{name}: {sentence}" for name, sentence in self.left.items()]
        return "\n".join([f"{self.count} dead channels in {self.graph.model.name}", *rows, *left])

    def apply(self, verify: bool = True) -> Model:
        """Build the model without them.

        Args:
            verify: compare its output with the original's on random inputs.

        Returns:
            A plain model of the same kind and the same Keras, with the same names.

        Raises:
            ValueError: the model cannot be run on random inputs.
            RuntimeError: the outputs differ by more than rounding.
        """
        from edgeprune.channels.rebuild.slicing import rebuild

        with status(f"Removing dead channels of {self.graph.model.name}"):
            smaller = rebuild(self.graph, self.kept_mask)
            self._fold_into(smaller)
            if verify:
                self._compare(smaller)
        return smaller

    def _fold_into(self, smaller: Model) -> None:
        names = flavor.layer_names(smaller)
        layers = {names[id(layer)]: layer for layer in flavor.layers_of(smaller)}
        for fold in self.folds:
            weight = getattr(layers[self.graph.rebuilt_names[id(fold.layer)]], fold.name)
            kept = self.graph.kept_indices(getattr(fold.layer, fold.name), self.kept_mask)
            weight.assign(np.asarray(weight) + fold.addition[kept.get(0, slice(None))])

    def _compare(self, smaller: Model) -> None:
        from edgeprune.channels.rebuild.proof import on_random_inputs, tolerance_of

        models = (self.graph.walked, smaller)
        outputs = on_random_inputs(
            self.graph.walked, lambda inputs: [flavor.call_model(model, inputs) for model in models]
        )
        for old, new in zip(*outputs, strict=True):
            difference = np.max(np.abs(np.subtract(old, new, dtype=np.float64)), initial=0.0)
            if not difference <= tolerance_of(self.graph.walked) * max(np.max(np.abs(old), initial=0.0), 1e-6):
                raise RuntimeError(
                    f"Without the channels of {self.graph.model.name!r} that were found dead the output differs by "
                    f"{difference:.2e}: the model that was built is not to be trusted."
                )


def remove_dead_channels(model: Model, verify: bool = True) -> Model:
    """Remove the channels that never contribute; the output does not change, to float rounding.

    Weights under pruning or pruned before make such channels: a filter of zeros, or a channel that only zeros read.
    So does a batch norm with a scale of zero. Removals that make further channels dead are followed to the end.

    Args:
        model: a built model of `keras` 3 or `tf_keras`, also one under `prune_low_magnitude`. It is not changed.
        verify: compare the outputs on random inputs.

    Returns:
        A plain model of the same kind and the same Keras, with the same names and fewer channels. A layer that is
        dead as a whole keeps one.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it is not built, it is subclassed and its call cannot be followed, or it cannot be run on random
            inputs.
        RuntimeError: the outputs differ.

    Example:
        >>> kernel, bias = model.get_layer("stem").get_weights()
        >>> kernel[..., :3] = 0  # and the bias is 0
        >>> model.get_layer("stem").set_weights([kernel, bias])
        >>> remove_dead_channels(model).get_layer("stem").filters
        5
    """
    smaller = find_dead_channels(model).apply(verify)
    # A second look sees more where a grouped convolution has become one for each channel apart.
    while (found := find_dead_channels(smaller)).count:
        smaller = found.apply(verify)
    return smaller


def find_dead_channels(model: Model) -> DeadChannels:
    """Find the channels that never contribute.

    Args:
        model: as `remove_dead_channels` accepts it.

    Returns:
        What would be removed, what its constants are added to, and which constant channels are kept.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it is not built, or it is subclassed and its call cannot be followed.
    """
    # Inside heads all would have to have as many dead channels.
    graph = freeze_in_attention(trace(without_wrappers(model)), "heads")
    use = _Use(graph, constants(graph))
    live = _live(graph, use)
    kept_mask = _with_one_of_each(graph, live)
    return DeadChannels(graph, kept_mask, tuple(use.folds(~kept_mask)), use.left(live))


def _live(graph: ChannelGraph, use: _Use) -> np.ndarray:
    """Bool for each class: whether it reaches an output. All are assumed dead until something live reads them."""
    live = np.ones(graph.class_count, bool)
    for group in graph.groups:
        live[group.classes] = group.frozen is not None
    live |= use.always
    readers = use.readers[::-1]  # consumers first: most models are done in one pass
    count = -1
    while count != (count := int(np.count_nonzero(live))):
        for reader in readers:
            live[reader.needs(live)] = True
    return live


def _with_one_of_each(graph: ChannelGraph, live: np.ndarray) -> np.ndarray:
    """A mask that keeps at least one channel of each layer and of each part that is cut out of a tensor."""
    kept_mask = live.copy()
    for classes in (*(slot.classes for slot in graph.slots), *graph.runs):
        if len(classes) and not kept_mask[classes].any():
            kept_mask[classes[0]] = True
    return kept_mask


@dataclass(frozen=True, eq=False)
class _Reader:
    """A weight that reads channels.

    Attributes:
        slot: the axis that reads.
        nonzero: where the weight is not zero.
        others: the classes along its other axes, with the axis.
        harmless: for each class whether its contribution is zero, or is added to a bias.
    """

    slot: Slot
    nonzero: np.ndarray
    others: tuple[tuple[int, np.ndarray], ...]
    harmless: np.ndarray

    def needs(self, live: np.ndarray) -> np.ndarray:
        """The classes without which something live would change."""
        nonzero = self.nonzero
        for axis, classes in self.others:
            if not live[classes].all():
                nonzero = np.compress(live[classes], nonzero, axis=axis)
        read = nonzero.any(axis=tuple(axis for axis in range(nonzero.ndim) if axis != self.slot.axis))
        classes = self.slot.classes[read]
        return classes[~self.harmless[classes]]


class _Use:
    """Who reads which channel, and what comes of it if the channel is constant."""

    def __init__(self, graph: ChannelGraph, known: list[Constants]) -> None:
        self.graph = graph
        self.known = known
        self._calls = Counter(id(step.layer) for step in graph.steps)
        self._consumers = defaultdict(list)
        self._steps_of = defaultdict(list)
        for step in graph.steps:
            for place in step.inputs:
                self._consumers[place].append(step)
            for weight in flavor.weights_of(step.layer):
                self._steps_of[id(weight)].append(step)
        self.readers = [self._reader(slot) for slot in graph.slots if slot.reads and slot.classes.ndim == 1]

    @cached_property
    def always(self) -> np.ndarray:
        """Classes that are read by what has no weights, or by statistics over channels."""
        always = np.zeros(self.graph.class_count, bool)
        for step in self.graph.steps:
            if step.mixes:
                # A layer with a softmax behind its kernel mixes what it makes, not what it reads.
                read = {(step.inputs[position], axis) for position, axis, _ in step.reads}
                for place in (*step.inputs, *step.outputs):
                    for axis, classes in self.graph.tensors[place].axes.items():
                        if (place, axis) not in read:
                            always[classes] = True
            by_weights = self._read_by_weights(step.layer)
            for position, _, classes in step.reads:
                known = self.known[step.inputs[position]]
                always[[n for n in set(classes.tolist()) - by_weights if known.get(n) != 0]] = True
        return always

    def _read_by_weights(self, layer: Layer) -> set[int]:
        slots = (self.graph.weight_slots.get(id(weight), {}) for weight in flavor.weights_of(layer))
        return {
            n for of_weight in slots for slot in of_weight.values() if slot.reads for n in slot.classes.ravel().tolist()
        }

    def _reader(self, slot: Slot) -> _Reader:
        others = self.graph.weight_slots[id(slot.weight)].items()
        harmless = np.zeros(self.graph.class_count, bool)
        of_calls = [self._harmless_at(step) for step in self._steps_of[id(slot.weight)]]
        if of_calls:
            harmless[list(set.intersection(*of_calls))] = True
        nonzero = np.asarray(slot.weight) != 0
        return _Reader(slot, nonzero, tuple((a, s.classes) for a, s in others if a != slot.axis), harmless)

    def _harmless_at(self, step: Step) -> set[int]:
        """The classes that a call finds to be zero, or constants that can go into a bias, wherever it reads them."""
        harmless: set[int] = set()
        varying: set[int] = set()
        for position, _, classes in () if step.inside else step.reads:
            known = self.known[step.inputs[position]]
            read = set(classes.tolist())
            fine = {n for n in read & known.keys() if known[n] == 0 or self._home(step) is not None}
            harmless |= fine
            varying |= read - fine
        return harmless - varying

    def _home(self, step: Step) -> tuple[Any, str, int] | None:
        """Where a constant that a call reads can be added: layer, weight, sign; None where it cannot."""
        layer = step.layer
        kind = flavor.built_in_kind(layer)
        if kind not in ("Dense", "Conv1D", "Conv2D", "Conv3D") or self._calls[id(layer)] > 1:
            return None
        if kind != "Dense" and (layer.groups > 1 or pads_with_zeros(layer, layer.kernel, len(layer.kernel.shape) - 2)):
            return None
        if layer.bias is not None:
            return layer, "bias", 1
        (place,) = step.outputs
        consumers = self._consumers[place]
        if len(consumers) != 1 or place in self.graph.outputs or layer.activation.__name__ != "linear":
            return None
        norm = consumers[0].layer
        axis = -1 if kind == "Dense" else channel_axis(layer)
        rank = len(self.graph.tensors[place].shape)
        fits = (
            flavor.built_in_kind(norm) == "BatchNormalization"
            and self._calls[id(norm)] == 1
            and norm.axis in (axis, axis % rank, [axis % rank])
        )
        return (norm, "moving_mean", -1) if fits else None

    def folds(self, dropped: np.ndarray) -> Iterator[ConstantContribution]:
        """What the constants that are dropped contribute."""
        for step in self.graph.steps:
            if not step.reads or (home := self._home(step)) is None:
                continue
            ((position, _, classes),) = step.reads
            known = self.known[step.inputs[position]]
            vector = np.array([known.get(number, 0.0) * dropped[number] for number in classes.tolist()])
            if vector.any():
                layer, name, sign = home
                kernel = np.asarray(step.layer.kernel, np.float64)
                yield ConstantContribution(
                    layer, name, sign * np.einsum("wio,i->o", kernel.reshape(-1, *kernel.shape[-2:]), vector)
                )

    def left(self, live: np.ndarray) -> dict[str, str]:
        """By group a sentence on the constants that are kept."""
        found: dict[str, str] = {}
        for step in self.graph.steps:
            for position, _, classes in () if self._home(step) else step.reads:
                known = self.known[step.inputs[position]]
                numbers = {number for number in set(classes.tolist()) if live[number] and known.get(number)}
                for group in self.graph.groups if numbers else ():
                    own = len(numbers.intersection(group.classes.tolist())) if group.frozen is None else 0
                    if own:
                        name = self.graph.names.get(id(step.layer), step.layer.name)
                        found[group.name] = f"{own} constant channels are kept: no bias of {name} can hold them"
        return found
