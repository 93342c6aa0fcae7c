"""What was removed from a model, as reconstruction needs to know it: channels here, single weights in `one_shot`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step
from edgeprune.channels.rebuild.slicing import changed_arguments, counterparts, cut
from edgeprune.channels.reconstruct.linear import Linear
from edgeprune.channels.reconstruct.ridge import Solver, least_squares
from edgeprune.types import AnyTensor, Layer, Model, Variable


class Removal(Protocol):
    """A model and what is left of it.

    Attributes:
        graph: the calls of the original.
        smaller: what is left of it: a model of the same layers, whose weights are solved.
        counterparts: `id` of a layer of the original to that of the smaller model.
        changes: `id` of a call's node to the arguments that change with it.
    """

    graph: ChannelGraph
    smaller: Model
    counterparts: Mapping[int, Layer]
    changes: Mapping[int, Mapping[str, Any]]

    def is_changed(self, step: Step) -> bool:
        """Whether a call returns something else in the smaller model where it reads the same."""

    def reduces(self, layer: Layer) -> bool:
        """Whether a layer of the original has lost weights that those left make up for, whatever it reads."""

    def left_of_tensor(self, place: int, tensor: AnyTensor, contracted: Sequence[int] = ()) -> Any:
        """What is left of a tensor of the original but along axes that are contracted."""

    def left_of_inputs(self, linear: Linear, x: np.ndarray) -> np.ndarray:
        """What is left, along the last axis, of what a kernel of the original with the inputs first reads."""

    def wanted_kernel(self, linear: Linear) -> np.ndarray:
        """A kernel of the original with the outputs that are left and all its inputs."""

    def solver(self, linear: Linear) -> Solver:
        """What solves for a kernel of the smaller model."""

    def to_solve(self, layer: Layer) -> Iterator[tuple[Variable, str]]:
        """The weights of a layer of the original that should be solved, with their path names."""


class ChannelRemoval:
    """Channels that were cut.

    Args:
        graph: the channels of the original model.
        kept_mask: bool array (graph.class_count,), True for the kept classes.
        smaller: what `rebuild(graph, kept_mask)` returned.
    """

    def __init__(self, graph: ChannelGraph, kept_mask: np.ndarray, smaller: Model) -> None:
        self.graph, self.smaller, self._kept_mask = graph, smaller, kept_mask
        self.counterparts: Mapping[int, Layer] = counterparts(graph, smaller)
        self.changes: Mapping[int, Mapping[str, Any]] = changed_arguments(graph, kept_mask)

    def is_changed(self, step: Step) -> bool:
        """Whether a weight, an argument or an output of it is cut."""
        cuts = (self.graph.kept_indices(weight, self._kept_mask) for weight in flavor.weights_of(step.layer))
        return bool(self.changes.get(id(step.node))) or any(cuts) or any(map(self._is_cut, step.outputs))

    def _is_cut(self, place: int) -> bool:
        return any(not self._kept_mask[classes].all() for classes in self.graph.tensors[place].axes.values())

    def reduces(self, layer: Layer) -> bool:
        """Never: a layer whose inputs are whole computes what it did."""
        return False

    def left_of_tensor(self, place: int, tensor: AnyTensor, contracted: Sequence[int] = ()) -> Any:
        """It without the removed channels."""
        import tensorflow as tf

        for axis, classes in self.graph.tensors[place].axes.items():
            if axis not in contracted and not self._kept_mask[classes].all():
                tensor = tf.gather(tensor, np.flatnonzero(self._kept_mask[classes]), axis=axis)
        return tensor

    def left_of_inputs(self, linear: Linear, x: np.ndarray) -> np.ndarray:
        """It without the removed channels."""
        kept = self.graph.kept_indices(linear.kernel, self._kept_mask).get(0)
        return x if kept is None else np.take(x, kept, axis=-1)

    def wanted_kernel(self, linear: Linear) -> np.ndarray:
        """It cut along all axes but those that it sums over."""
        weight = linear.kernel
        kept = self.graph.kept_indices(weight, self._kept_mask)
        values = cut(weight, {axis: indices for axis, indices in kept.items() if axis not in linear.contracted})
        for rescale in self.graph.rescales:
            if rescale.weight is weight:
                values = values * rescale.factor(self._kept_mask)
        return values

    def solver(self, linear: Linear) -> Solver:
        """Least squares for all its weights."""
        return least_squares

    def to_solve(self, layer: Layer) -> Iterator[tuple[Variable, str]]:
        """Those that read removed channels."""
        held = {id(weight) for weight in flavor.weights_of(layer)}
        for slot in self.graph.slots:
            if slot.reads and not self._kept_mask[slot.classes].all() and id(slot.weight) in held:
                yield slot.weight, f"{self.graph.name_of(slot.layer)}/{slot.name}"
