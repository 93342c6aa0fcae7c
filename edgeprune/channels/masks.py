"""The masks of channels under `ChannelPruning`, held by the constraints of the variables that own the channels.

A variable keeps its constraint in whichever model it stands, so the channels that are masked are known of a model that
was trained inside another one (a student in a distiller), and of one that is built around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Slot
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.data_importance import STATISTICS, is_float
from edgeprune.types import Layer, Model, TfTensor, Variable

# The attribute of a model that holds its masks; set past Keras's tracking, so that it is not saved.
_ATTRIBUTE = "edgeprune_channel_masks"


def masks_of(model: Layer) -> ChannelMasks | None:
    """The masks that `ChannelPruning` has put on a model, or None."""
    return getattr(model, _ATTRIBUTE, None)


def put_masks_on(model: Model, graph: ChannelGraph) -> None:
    """Add masks that keep everything to a model, and let its optimizer apply them.

    Args:
        model: the model.
        graph: its channels, or those of a model with the same weights.
    """
    masks = ChannelMasks(graph)
    object.__setattr__(model, _ATTRIBUTE, masks)
    masks.install()


def is_channel_pruned(model: Layer) -> bool:
    """Whether a model or layer, or a model that it stands in, trains or has trained with `ChannelPruning`."""
    if masks_of(model) is not None:
        return True
    return model.built and any(True for weight in flavor.weights_of(model) for _ in _constraints_on(weight))


def masked_channels(model: Layer) -> tuple[ChannelGraph, np.ndarray]:
    """The channels of a model, and which of them are not masked.

    Args:
        model: one that `is_channel_pruned`.

    Returns:
        The model's graph, and a bool array `(graph.class_count,)`: false where all that the class owns is masked.
    """
    masks = masks_of(model)
    graph = trace(model) if masks is None else masks.graph
    kept_mask = np.ones(graph.class_count, bool) if masks is None else masks.kept_mask
    return graph, kept_mask & _kept_by_constraints(graph)


def alive_classes(graph: ChannelGraph) -> np.ndarray:
    """Bool for each class: whether any weight that it owns is not zero."""
    alive = np.zeros(graph.class_count, bool)
    for slots in _slots_by_weight(graph):
        nonzero = flavor.array_of(slots[0].weight) != 0
        for slot in slots:
            alive[slot.classes[nonzero.any(axis=slot.other_axes)]] = True
    return alive


def _kept_by_constraints(graph: ChannelGraph) -> np.ndarray:
    """Bool for each class: whether it owns anything that no constraint masks, or cannot be dropped from this model."""
    kept, owns = np.zeros(graph.class_count, bool), np.zeros(graph.class_count, bool)
    for slots in _slots_by_weight(graph):
        constraints = list(_constraints_on(slots[0].weight))
        for slot in slots:
            owns[slot.classes] = True
            positions = np.ones(slot.classes.shape, bool)
            for constraint in constraints:
                positions &= constraint.kept_along(slot.axis)
            kept[slot.classes[positions]] = True
    kept[list(graph.frozen_reason)] = True
    return kept | ~owns


def _slots_by_weight(graph: ChannelGraph) -> Iterator[list[Slot]]:
    """The axes of each variable that is masked: of all but statistics and integers."""
    slots: dict[int, list[Slot]] = {}
    for slot in graph.slots:
        if is_float(slot.weight) and slot.name not in STATISTICS:
            slots.setdefault(id(slot.weight), []).append(slot)
    yield from slots.values()


def _constraints_on(weight: Variable) -> Iterator[_Constraint]:
    """The constraints of `ChannelPruning` on a variable: one for each training of another model that it stood in."""
    constraint = getattr(weight, "constraint", None)  # the vocabularies of tf_keras are weights without
    while isinstance(constraint, _Constraint):
        yield constraint
        constraint = constraint.own


class ChannelMasks:
    """The masks of a model's channels, held by the constraints of its variables."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self._slots = list(_slots_by_weight(graph))
        self._weights = [of_weight[0].weight for of_weight in self._slots]
        self._variables = [flavor.tf_variable(weight) for weight in self._weights]
        strategy = getattr(self._variables[0], "distribute_strategy", None) or tf.distribute.get_strategy()
        with tf.init_scope(), strategy.scope():
            self._kept = tf.Variable(
                graph.full_mask(), trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
        self._unit: tf.Tensor | None = None
        self._scale_all = tf.function(self._scale, autograph=False)

    @property
    def kept_mask(self) -> np.ndarray:
        """Bool array (graph.class_count,), true where the class is not masked."""
        return self._kept.numpy()

    def install(self) -> None:
        """Let the optimizer mask the variables after each of its updates."""
        for weight, slots in zip(self._weights, self._slots, strict=True):
            flavor.constrain(weight, _Constraint(weight.constraint, self._kept, slots))

    def keep(self, kept_mask: np.ndarray) -> None:
        """Mask all other classes, and set them to zero."""
        self._kept.assign(kept_mask)
        self._zero()

    def apply(self, model: Model) -> None:
        """Set masked classes to zero, in the optimizer's moving averages too."""
        self._zero()
        trained = [n for n, weight in enumerate(self._weights) if weight.trainable]
        averages = flavor.moving_averages(getattr(model, "optimizer", None), [self._weights[n] for n in trained])
        for average, number in zip(averages, trained if averages else (), strict=True):
            average.assign(masked(average, self._kept, self._slots[number]))

    def zero_producers(self, kept_mask: np.ndarray) -> None:
        """Set to zero what makes the other classes; what reads them is kept, so that they can come back."""
        for variable, slots in zip(self._variables, self._slots, strict=True):
            makers = [slot for slot in slots if slot.makes]
            if makers:
                variable.assign(masked(variable, tf.constant(kept_mask), makers))

    def silent(self) -> np.ndarray:
        """Bool for each class: whether it is masked, or all that it owns is zero, as in a model masked before."""
        alive = alive_classes(self.graph)
        masked_now = ~self.kept_mask
        for group in self.graph.groups:
            if not alive[group.classes].any():  # one must be kept, so zeros do not identify the removed ones
                alive[group.classes] = True
        return ~alive | masked_now

    def shrink(self, strength: float) -> None:
        """Subtract `strength` from the norm of each class that can be dropped, in units of its group's first mean."""
        if self._unit is None:
            self._unit = tf.constant(self._mean_norms())
        self._scale_all(tf.constant(strength, tf.float32))

    def _zero(self) -> None:
        for variable, slots in zip(self._variables, self._slots, strict=True):
            variable.assign(masked(variable, self._kept, slots))

    def _scale(self, strength: tf.Tensor) -> None:
        factors = tf.maximum(1 - tf.math.divide_no_nan(strength * self._unit, self._norms()), 0.0)
        for variable, slots in self._trained():
            scaled = tf.convert_to_tensor(variable)
            for slot in slots:
                scaled *= tf.cast(tf.reshape(tf.gather(factors, slot.classes), slot.spread), scaled.dtype)
            variable.assign(scaled)

    def _trained(self) -> list[tuple[tf.Variable, list[Slot]]]:
        return [
            (variable, slots)
            for weight, variable, slots in zip(self._weights, self._variables, self._slots, strict=True)
            if weight.trainable
        ]

    def _norms(self) -> tf.Tensor:
        """The norm of all that each class owns and that is trained."""
        squares = tf.zeros([self.graph.class_count])
        for variable, slots in self._trained():
            of_all = tf.square(tf.cast(tf.convert_to_tensor(variable), tf.float32))
            for slot in slots:
                along = tf.reduce_sum(of_all, slot.other_axes)
                squares += tf.math.unsorted_segment_sum(along, slot.classes, self.graph.class_count)
        return tf.sqrt(squares)

    def _mean_norms(self) -> np.ndarray:
        """For each class the mean norm of its group; zero for one that cannot be dropped."""
        norms, means = self._norms().numpy(), np.zeros(self.graph.class_count, np.float32)
        for group in self.graph.groups:
            if group.frozen is None:
                means[group.classes] = norms[group.classes].mean()
        return means


class _Constraint:
    """The constraint of a variable under channel pruning: its own one, then zeros."""

    def __init__(self, own: Callable[[Any], Any] | None, kept: tf.Variable, slots: Sequence[Slot]) -> None:
        self.own = own
        self.kept = kept
        self.slots = slots

    def __call__(self, value: TfTensor) -> Any:
        """The new value of the variable; called inside the compiled step."""
        return masked(value if self.own is None else self.own(value), self.kept, self.slots)

    def kept_along(self, axis: int) -> np.ndarray | bool:
        """Bool for each position along an axis: whether it is not masked; True where the axis has no channels."""
        kept = self.kept.numpy()
        return next((kept[slot.classes] for slot in self.slots if slot.axis == axis), True)


def masked(value: TfTensor | Variable, kept: TfTensor | Variable, slots: Sequence[Slot]) -> tf.Tensor:
    """A weight with zeros where a class is not kept.

    Args:
        value: the weight, a tensor or a variable.
        kept: bool tensor (class_count,).
        slots: its axes.
    """
    result = tf.convert_to_tensor(value)
    for slot in slots:
        is_kept = tf.reshape(tf.gather(kept, slot.classes), slot.spread)
        result = tf.where(is_kept, result, tf.zeros((), result.dtype))
    return result
