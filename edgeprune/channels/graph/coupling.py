"""What a trace of a model returns: which channels are coupled, and where each of them is stored.

Plain data. A *class* is a set of channels that must be kept or dropped together, written as a number in
`range(graph.class_count)`. A vector of classes says, for each position along an axis, to which class it belongs.
`kept_mask`, a bool array over the classes (True: kept), is what a plan decides and a rebuild uses.

The channels inside attention heads are a table of classes, one row for each head: every head loses as many of them,
and each chooses its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.flavor.example_shapes import ExampleShapes
from edgeprune.types import Layer, Model, Variable


@dataclass(frozen=True, eq=False)
class Slot:
    """One axis of one variable that is indexed by channels.

    Attributes:
        weight: the variable of the model.
        layer: the layer that holds it (inside a composite layer, the innermost).
        name: what the layer calls it, such as `"kernel"`.
        axis: the axis of the variable, counted from 0.
        classes: int array (weight.shape[axis],), the class of each position; of channels inside attention heads
            (heads, weight.shape[axis]), where the heads lie along the axis before.
        reads: True where this axis consumes channels (a kernel's input axis); False where it makes them or is
            merely indexed by them (a kernel's output axis, a bias, a batch norm's gamma).
        makes: True where this axis makes the channels (a kernel's output axis): the layer that names a group.
    """

    weight: Variable
    layer: Layer
    name: str
    axis: int
    classes: np.ndarray
    reads: bool = False
    makes: bool = False

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of the variable that `classes` lie along."""
        return tuple(range(self.axis + 1 - self.classes.ndim, self.axis + 1))

    @property
    def other_axes(self) -> tuple[int, ...]:
        """The axes of the variable that the slice of one class spans."""
        return tuple(axis for axis in range(len(self.weight.shape)) if axis not in self.axes)

    @property
    def spread(self) -> tuple[int, ...]:
        """The shape in which what there is for each of `classes` is broadcast to the variable."""
        return tuple(1 if axis in self.other_axes else size for axis, size in enumerate(self.weight.shape))


def count_kept(classes: np.ndarray, kept_mask: np.ndarray) -> int:
    """How many positions are kept along an axis with these classes; inside attention heads, in each head."""
    return int(np.count_nonzero(kept_mask[classes])) // (len(classes) if classes.ndim == 2 else 1)


@dataclass(frozen=True, eq=False)
class Cost:
    """The multiply-accumulates of one call of a layer on one sample.

    Attributes:
        layer: the layer.
        macs: their number before anything is dropped.
        axes: class vectors; the MACs that remain are `macs` times the fraction kept of each of them.
    """

    layer: Layer
    macs: int
    axes: tuple[np.ndarray, ...]

    def remaining(self, kept_mask: np.ndarray) -> float:
        """The MACs that remain where only the classes of `kept_mask` are kept."""
        fraction = 1.0
        for classes in self.axes:
            fraction *= np.count_nonzero(kept_mask[classes]) / max(classes.size, 1)
        return self.macs * fraction


@dataclass(frozen=True, eq=False)
class Group:
    """One prunable dimension: classes that own slices of the same axes of the same variables.

    Attributes:
        name: the path name of the first layer that makes these channels (`"block/conv"`); numbered where one
            layer makes several groups (`"conv:1"`).
        classes: int array in channel order.
        slots: the axes that these classes own slices of.
        frozen: None, or the reason why none of them can be dropped.
        layers: the path names of the layers that make these channels.
        heads: the number of attention heads that the channels lie inside, head by head, each of which loses as many;
            None where they do not.
    """

    name: str
    classes: np.ndarray
    slots: tuple[Slot, ...]
    frozen: str | None
    layers: tuple[str, ...]
    heads: int | None = None

    @property
    def size(self) -> int:
        """The number of channels, those of all heads."""
        return len(self.classes)

    @property
    def count(self) -> int:
        """How many can be dropped one after the other: those of one head, as all heads lose one at a time."""
        return self.size // (self.heads or 1)

    def kept(self, kept_mask: np.ndarray) -> int:
        """How many of `count` are kept.

        Raises:
            ValueError: the heads do not lose as many.
        """
        of_heads = kept_mask[self.classes].reshape(self.heads or 1, -1).sum(axis=1)
        if (of_heads != of_heads[0]).any():
            raise ValueError(
                f"Each of the {self.heads} heads of {self.name!r} must lose as many channels; left are "
                f"{', '.join(map(str, of_heads))}."
            )
        return int(of_heads[0])


@dataclass(frozen=True, eq=False)
class Resize:
    """How an argument of a layer or of a function in the graph follows the number of kept channels.

    Attributes:
        owner: the layer, or the node of the function's call.
        key: the argument's name in the layer's configuration or in the function's call.
        vectors: class vectors.
        value: a function of the number of kept positions of each vector; returns the argument's new value.
    """

    owner: Any
    key: str
    vectors: tuple[np.ndarray, ...]
    value: Callable[..., Any]

    def new_value(self, kept_mask: np.ndarray) -> Any:
        """The argument where only the classes of `kept_mask` are kept."""
        return self.value(*(count_kept(classes, kept_mask) for classes in self.vectors))


@dataclass(frozen=True, eq=False)
class Rescale:
    """A variable of an attention layer that divides its scores by the square root of how many channels a head has.

    Attributes:
        weight: the variable: where some of the channels go it is multiplied by what the division changes by.
        classes: int array (heads, channels).
    """

    weight: Variable
    classes: np.ndarray

    def factor(self, kept_mask: np.ndarray) -> float:
        """What the variable is multiplied by."""
        return math.sqrt(count_kept(self.classes, kept_mask) / self.classes.shape[1])


@dataclass(frozen=True, eq=False)
class Step:
    """One call in the model's graph, nested models unfolded, as the oracle runs it.

    Attributes:
        layer: the layer, or in Keras 3 the operation.
        node: the call's node in the graph.
        inputs: for each input tensor, its place in the list of all tensors.
        outputs: for each output tensor, its place in that list.
        reads: the inputs (position in `inputs`) whose channels it contracts, with the axis and the classes along it.
        mixes: whether dropping channels changes what it computes for the others (LayerNormalization, softmax).
        inside: whether its own weights consume channels that are no tensor of the graph (a recurrent state).
    """

    layer: Layer
    node: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    reads: tuple[tuple[int, int, np.ndarray], ...] = ()
    mixes: bool = False
    inside: bool = False


@dataclass(frozen=True, eq=False)
class Fold:
    """Steps of a sequence that become samples of a model inside `TimeDistributed`, or become steps again.

    Attributes:
        taken: the place of the tensor.
        given: the place of what it becomes.
        like: where samples become steps, the place of a tensor with as many; None where steps become samples.
    """

    taken: int
    given: int
    like: int | None = None


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph: its shape with a batch of one, and the axes its channels lie along.

    Attributes:
        shape: the sizes; 1 for the batch and for sizes that are not fixed.
        axes: axis to the classes along it, for each axis along which anything can be dropped.
    """

    shape: tuple[int, ...]
    axes: dict[int, np.ndarray]


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """The channels of a model.

    Attributes:
        model: the user's model, which nothing here changes.
        class_count: the number of classes.
        frozen_reason: class to the reason why it cannot be dropped; a class that is not in it can be.
        groups: the prunable dimensions, in the order of their layers; frozen ones with their reason.
        slots: every axis of every variable that channels index.
        costs: the MACs of every call that has any.
        resizes: the arguments that follow the channels.
        rescales: the variables that compensate for a layer's own scale, which follows the channels.
        notes: plain sentences on layers that mix statistics across channels.
        names: `id(layer)` to path name.
        steps: the calls, producers first.
        folds: where steps of a sequence become samples, and steps again.
        tensors: the tensors that `steps` and `folds` speak of.
        inputs: places of the model's inputs in `tensors`.
        outputs: places of the model's outputs.
        walked: the model whose graph was walked: a Functional stand-in of a subclassed one; left out, `model`.
        runs: classes that are cut out of a tensor by a split or a slice, each of which must keep one.
        example: the shapes of the inputs that the MACs are for, where the model leaves sizes open.
        renamed: `id(layer)` to its name in a rebuilt model, of layers inside composite ones.
        not_followed: path name to the reason, of layers that could not be followed.
    """

    model: Model
    class_count: int
    frozen_reason: dict[int, str]
    groups: tuple[Group, ...]
    slots: tuple[Slot, ...]
    costs: tuple[Cost, ...]
    resizes: tuple[Resize, ...]
    notes: tuple[str, ...]
    names: dict[int, str]
    steps: tuple[Step, ...] = ()
    folds: tuple[Fold, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    runs: tuple[np.ndarray, ...] = ()
    walked: Any = None
    example: ExampleShapes | None = None
    renamed: Mapping[int, str] = field(default_factory=dict)
    not_followed: Mapping[str, str] = field(default_factory=dict)
    rescales: tuple[Rescale, ...] = ()

    def __post_init__(self) -> None:
        if self.walked is None:
            object.__setattr__(self, "walked", self.model)

    @cached_property
    def frozen(self) -> dict[str, str]:
        """What cannot be pruned, each with the reason, in the order of the layers.

        Groups by their names; and the path names of all layers with weights none of whose channels can be dropped, and
        of those that could not be followed.
        """
        free = {self.name_of(slot.layer) for group in self._free for slot in group.slots if not slot.reads}
        reasons = {group.name: group.frozen for group in self.groups if group.frozen is not None}
        for slot in self.slots:
            frozen = (
                self.frozen_reason[number] for number in slot.classes.ravel().tolist() if number in self.frozen_reason
            )
            if not slot.reads and (reason := next(frozen, None)) is not None:
                reasons.setdefault(self.name_of(slot.layer), reason)
        for name, reason in self.not_followed.items():
            reasons.setdefault(name, reason)
        for step in self.steps:
            weights = [weight for weight in flavor.weights_of(step.layer) if len(weight.shape)]
            if weights and not any(id(weight) in self.weight_slots for weight in weights):
                reasons.setdefault(self.name_of(step.layer), "its input's channels pass through it, and those are kept")
        order = {name: place for place, name in enumerate(self.names.values())}
        found = sorted(reasons, key=lambda name: order.get(name.partition(":")[0], len(order)))
        return {name: reasons[name] for name in found if name not in free or name in self._frozen_names}

    @cached_property
    def _free(self) -> list[Group]:
        return [group for group in self.groups if group.frozen is None]

    @cached_property
    def _frozen_names(self) -> set[str]:
        return {group.name for group in self.groups if group.frozen is not None}

    def name_of(self, layer: Layer) -> str:
        """A layer's path name."""
        return self.names.get(id(layer), layer.name)

    @cached_property
    def weight_slots(self) -> dict[int, dict[int, Slot]]:
        """`id(variable)` to {axis: slot}."""
        slots: dict[int, dict[int, Slot]] = {}
        for slot in self.slots:
            slots.setdefault(id(slot.weight), {})[slot.axis] = slot
        return slots

    @cached_property
    def rebuilt_names(self) -> dict[int, str]:
        """`id(layer)` to the path name of the layer that stands for it in a rebuilt model."""
        return flavor.layer_names(self.walked, self.renamed)

    @property
    def macs(self) -> int:
        """The MACs of the whole model for one sample."""
        return sum(cost.macs for cost in self.costs)

    def remaining_macs(self, kept_mask: np.ndarray) -> int:
        """The MACs that remain where only the classes of `kept_mask` are kept."""
        return round(sum(cost.remaining(kept_mask) for cost in self.costs))

    def kept_indices(self, weight: Variable, kept_mask: np.ndarray) -> dict[int, np.ndarray]:
        """The sorted kept indices along each axis of a variable; {} where it is untouched.

        Inside attention heads they are an array (heads, indices), one row for each head of the original.
        """
        kept = {}
        for axis, slot in sorted(self.weight_slots.get(id(weight), {}).items()):
            is_kept = kept_mask[slot.classes]
            if not is_kept.all():
                kept[axis] = np.nonzero(is_kept)[-1].reshape(*is_kept.shape[:-1], -1)
        return kept

    def full_mask(self) -> np.ndarray:
        """The mask that keeps all classes."""
        return np.ones(self.class_count, bool)


def by_reason(frozen: Mapping[str, str], see: str, most_names: int = 4) -> list[tuple[str, str]]:
    """What is frozen, folded: for each reason the first few names, how many more there are, and where they all are.

    Example:
        >>> frozen = {"a": "ignored", "b": "ignored", "c": "ignored", "head": "output of the model"}
        >>> by_reason(frozen, "plan.frozen", most_names=2)
        [('a, b and 1 more, see plan.frozen', 'ignored'), ('head', 'output of the model')]
    """
    names: dict[str, list[str]] = {}
    for name, reason in frozen.items():
        names.setdefault(reason, []).append(name)
    return [(shortened(own, see, most_names), reason) for reason, own in names.items()]


def shortened(names: Sequence[str], see: str, most: int) -> str:
    """The first names of several, how many more there are, and where to see them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more, see {see}" if len(names) > most else "")
