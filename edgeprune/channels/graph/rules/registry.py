"""How a rule is written, and which rule a layer has.

A rule describes, for one kind of layer, what a call of it does with channels. It accepts a `Call` and returns the
`Value` (or the list of values) that the layer returns:

    @rule("Dense")                                    # a class of Keras by name (both Kerases), or a class
    def dense(call: Call) -> Value:
        (x,) = call.inputs
        layer = call.layer
        read = call.read(x, -1, layer.kernel, 0)      # the kernel's axis 0 consumes the input's last axis
        units = call.make(layer.kernel, 1)            # its axis 1 makes new channels
        call.index(layer.bias, 0, units)              # the bias has one entry for each of them
        call.resize("units", units)                   # `units` in the configuration follows their number
        call.count_macs(math.prod(x.shape[:-1]), x.shape[-1] if read is None else read, units)
        return call.output({-1: units}, keeping=x)

For custom layers of which the axes of the weights say all there is `axes_rule`, in `weight_axes`.

A family of layers is one file in this folder, imported by `rules/__init__.py`. Functions in the graph
(`x + y`, `keras.ops.reshape`, `tf.reshape`) have rules made with `function_rule("reshape")`; their arguments
are in `call.arguments` under the names of their own signature.

What a rule cannot follow it answers with `raise CannotFollow("why")`: everything that the call touches is frozen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.channel_values import Space, Value
from edgeprune.channels.graph.record import CannotFollow, Record
from edgeprune.types import Layer, Variable

Rule = Callable[["Call"], "Value | Sequence[Value]"]

_LAYER_RULES: dict[type | str, Rule] = {}
_FUNCTION_RULES: dict[str, Rule] = {}


def rule(*kinds: type | str) -> Callable[[Rule], Rule]:
    """Teach what calls of these layers do with channels.

    A rule holds for a class and for those of its subclasses that do not override `call`.

    Args:
        kinds: classes of layers; or names: of Keras's own classes, which then stand for both Kerases, or
            `"package.Name"` of a class of another package, which is not imported.

    Returns:
        A decorator for a function that accepts a `Call` and returns the layer's output: a `Value`, or a list
        of them where it has several.

    Raises:
        TypeError: one of `kinds` is no class and no name.

    Example:
        >>> import keras
        >>> class Gain(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")
        ...     def call(self, x):
        ...         return x * self.gain
        >>> @rule(Gain)
        ... def gain(call):
        ...     (x,) = call.inputs
        ...     call.index(call.layer.gain, 0, call.line(x, -1))
        ...     return x
    """

    for kind in kinds:
        if not isinstance(kind, type | str):
            raise TypeError(f"A rule is for a class of layers; got {kind!r}.")

    def register(function: Rule) -> Rule:
        _LAYER_RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def function_rule(*names: str) -> Callable[[Rule], Rule]:
    """Teach what functions in the graph do with channels; the names are those of `flavor.function_name`."""

    def register(function: Rule) -> Rule:
        _FUNCTION_RULES.update(dict.fromkeys(names, function))
        return function

    return register


def rule_for(layer: Layer) -> Rule:
    """The rule of a layer or of a function in the graph.

    Raises:
        CannotFollow: there is none.
    """
    if (name := flavor.function_name(layer)) is not None:
        if name not in _FUNCTION_RULES:
            raise CannotFollow(f"the function {name!r} is unknown")
        return _FUNCTION_RULES[name]
    if flavor.is_quantized_by_keras(layer):
        raise CannotFollow("it is quantized: remove channels first, then quantize")
    kind = type(layer)
    for ancestor in kind.__mro__:
        package, name = ancestor.__module__.partition(".")[0], ancestor.__name__
        built_in = package in (flavor.KERAS_3, flavor.TF_KERAS)
        found = _LAYER_RULES.get(ancestor) or _LAYER_RULES.get(name if built_in else f"{package}.{name}")
        if found is not None:
            if getattr(kind, "call", None) is not getattr(ancestor, "call", None):
                raise CannotFollow(f"{kind.__name__} overrides call(): register a rule with edgeprune.channels.rule")
            return found
    if _passes_inputs(layer):
        return lambda call: call.x
    raise CannotFollow(f"the layer {kind.__name__} is unknown: register a rule with edgeprune.channels.rule")


def _passes_inputs(layer: Layer) -> bool:
    """Whether a layer of Keras 3 draws random numbers in training and else returns what it is called on."""
    if not (flavor.is_keras_3(layer) and layer._seed_generators) or flavor.weights_of(layer):
        return False
    x = flavor.keras_module(flavor.KERAS_3).KerasTensor((2, 2, 2, 2))
    try:
        return layer.call(x, training=False) is x
    except Exception:  # a custom layer may raise anything
        return False


def _is_of_keras(thing: object) -> bool:
    return thing.__module__.partition(".")[0] in (flavor.KERAS_3, flavor.TF_KERAS, "tensorflow")


def is_composite(layer: Layer) -> bool:
    """Whether a layer has no rule and is to be followed through the calls that it makes inside.

    A layer that draws random numbers itself is not: those of training would be lost.
    """
    if flavor.function_name(layer) is not None or flavor.is_model(layer):
        return False
    if type(layer) is flavor.keras_of(layer).layers.Activation:  # which need not be found by name, as its calls are
        is_own = type(layer.activation).__name__ == "function" and not _is_of_keras(layer.activation)
        return is_own and flavor.is_keras_3(layer)
    if _is_of_keras(type(layer)) or getattr(layer, "_seed_generators", None):
        return False
    try:
        rule_for(layer)
    except CannotFollow:
        return True
    return not (flavor.weights_of(layer) or flavor.is_made_from_config(layer))  # no file could be loaded that holds it


@dataclass(eq=False)
class Call:
    """One call of a layer, as its rule sees it.

    Attributes:
        layer: the layer, or the function in the graph.
        name: its path name.
        inputs: the values of its input tensors, flat.
        args: the positional arguments, values in place of tensors.
        kwargs: the keyword arguments.
        output_shapes: the shapes of its output tensors, flat; 1 for the batch and for sizes that are not fixed.
        node: the call in the model's graph.
        record: what the rules of the model write down.
        masks: what of its inputs it contracts: (position in `inputs`, axis, ids).
        mixes_channels: whether `mixes` was called.
    """

    layer: Layer
    name: str
    inputs: list[Value]
    args: tuple
    kwargs: dict[str, Any]
    output_shapes: list[tuple[int, ...]]
    node: Any
    record: Record
    masks: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    mixes_channels: bool = False

    @property
    def space(self) -> Space:
        """The ids of the model and the operations on values."""
        return self.record.space

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """A function's arguments by name, values in place of tensors."""
        return flavor.function_arguments(self.layer, self.args, self.kwargs)

    @property
    def x(self) -> Value:
        """Its first input."""
        return self.inputs[0]

    def argument(self, *names: str, default: object = None) -> Any:
        """A function's argument under the first of these names that it has."""
        for name in names:
            if name in self.arguments:
                return self.arguments[name]
        return default

    def argument_name(self, *names: str) -> str:
        """The first of these names that the function has an argument of."""
        return next(name for name in names if name in self.arguments)

    # Channels of tensors

    def line(self, value: Value, axis: int) -> np.ndarray | None:
        """The ids along an axis of a value; None where nothing is dropped along it."""
        return self.space.line(value, axis)

    def output(self, lines: Mapping[int, np.ndarray | None], keeping: Value | None = None, number: int = 0) -> Value:
        """An output of the call: ids along some axes, and along the others those of an input of the same rank."""
        shape = self.output_shapes[number]
        lines = {axis % len(shape): line for axis, line in lines.items()}
        for axis, line in lines.items():
            if line is not None and 1 < shape[axis] != len(line):
                raise CannotFollow(f"it returns {shape[axis]} channels where its rule has {len(line)}")
        if keeping is not None and len(keeping.shape) == len(shape):
            lines = {**self.space.other_lines(keeping, lines), **lines}
        return self.space.value(shape, lines)

    def merge(self, values: Sequence[Value]) -> Value:
        """The result of an element-wise operation: channels at the same place become coupled."""
        return self.space.merge(values, f"{self.name} joins it with a tensor whose channels cannot be dropped")

    def unite(self, a: np.ndarray | None, b: np.ndarray | None) -> None:
        """Coupled channels, pairwise; None on one side stands for frozen channels."""
        if a is not None and b is not None:
            self.space.ids.unite(a, b)
        else:
            for line in (a, b):
                if line is not None:
                    self.freeze(line, f"{self.name} needs all of it")

    def tie_repeats(self, line: np.ndarray | None, count: int) -> np.ndarray | None:
        """Make `count` equal runs of a line lose the same places; returns the line of one run."""
        if line is None:
            return None
        runs = line.reshape(count, -1)
        self.space.ids.tie(runs, 0)
        return runs[0]

    def freeze(self, what: Value | np.ndarray | None, reason: str) -> None:
        """Keep channels from being dropped."""
        if isinstance(what, Value):
            self.space.freeze(what, reason)
        elif what is not None:
            self.space.ids.freeze(what, reason)

    def channels(self, value: Value, axis: int) -> np.ndarray | None:
        """The ids along the channel axis of a value of which nothing can be dropped along the other axes."""
        line = self.line(value, axis)
        for other in range(1, value.rank):
            if other != value.axis(axis):
                self.freeze(self.line(value, other), f"{self.name} works along it")
        return line

    def never_empty(self, line: np.ndarray | None) -> None:
        """At least one of these channels is kept: they are cut out of a tensor."""
        if line is not None and len(line):  # a part of size zero has none to keep
            self.record.runs.append(line)

    # Weights

    def make(self, weight: Variable, axis: int, layer: Layer | None = None, name: str | None = None) -> np.ndarray:
        """New channels along an axis of a weight; in a second call of a shared layer those of the first."""
        axis %= len(weight.shape)
        known = self.record.line_of(weight, axis)
        line = self.space.ids.fresh(weight.shape[axis]) if known is None else known
        self.record.add_slot(weight, layer or self.layer, name, axis, line, makes=True)
        return line

    def make_in_heads(self, weight: Variable, axis: int, layer: Layer | None = None) -> np.ndarray:
        """New channels (heads, size) along an axis of a weight, inside the attention heads along the axis before."""
        known = self.record.line_of(weight, axis)
        heads, size = weight.shape[axis - 1 : axis + 1]
        table = self.space.ids.fresh(heads * size).reshape(heads, size) if known is None else known
        self.record.add_slot(weight, layer or self.layer, None, axis, table, makes=True)
        return table

    def index(
        self,
        weight: Variable | None,
        axis: int,
        line: np.ndarray | None,
        layer: Layer | None = None,
        name: str | None = None,
    ) -> None:
        """An axis of a weight has one entry for each of these channels; nothing for a weight or line of None."""
        if weight is not None and line is not None:
            self.record.add_slot(weight, layer or self.layer, name, axis % len(weight.shape), line)

    def read(
        self,
        value: Value,
        axis: int,
        weight: Variable,
        weight_axis: int,
        via: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray | None:
        """The weight's axis consumes what lies along the value's axis.

        Args:
            value: one of the call's inputs.
            axis: its axis.
            weight: the weight.
            weight_axis: its axis.
            via: from the ids along the value's axis to those along the weight's, where they are not the same.

        Returns:
            The ids along the value's axis; None where nothing is dropped along it.
        """
        weight_axis %= len(weight.shape)
        line = self.line(value, axis)
        if line is None:
            known = self.record.line_of(weight, weight_axis)
            if known is not None:  # a shared layer that consumed channels in another call
                self.freeze(known, f"{self.name} is also called on a tensor whose channels cannot be dropped")
            else:
                self.record.forbid(weight, weight_axis, f"{self.name} is also called on frozen channels")
            return None
        self.contract(value, axis)
        self.record.add_slot(weight, self.layer, None, weight_axis, via(line) if via else line, reads=True)
        return line

    def read_inside(
        self,
        weight: Variable | None,
        axis: int,
        line: np.ndarray | None,
        layer: Layer | None = None,
        name: str | None = None,
    ) -> None:
        """An axis of a weight consumes channels that are not a tensor of the graph (a recurrent state, a head)."""
        if weight is not None and line is not None:
            self.record.add_slot(weight, layer or self.layer, name, axis % len(weight.shape), line, reads=True)
            self.record.inside.add(id(self.layer))

    def contract(self, value: Value, axis: int) -> None:
        """The call sums over what lies along this axis of one of its inputs, so a zero there drops out."""
        line = self.line(value, axis)
        if line is not None:
            positions = [position for position, own in enumerate(self.inputs) if own is value]
            self.masks += [(position, value.axis(axis), line) for position in positions]

    def mixes(self, *lines: np.ndarray | None, why: str | None = None) -> None:
        """What it computes for one of these channels depends on the others; `why` becomes a note of the plan."""
        lines = tuple(line for line in lines if line is not None)
        if lines:
            self.mixes_channels = True
            if why is not None:
                self.record.note(f"{self.name}: {why}", lines)

    # Layers inside this one

    def follow(self, layer: Layer, inputs: list[Value], output_shapes: list[tuple[int, ...]]) -> list[Value]:
        """What a layer inside this one returns for these inputs, in place of this call's own inputs.

        An axis 1 that the layer inside does not see may be folded into the batch of its inputs.
        """
        name = self.record.names.get(id(layer), layer.name)
        call = replace(
            self, layer=layer, name=name, inputs=inputs, args=(), kwargs={}, output_shapes=output_shapes, masks=[]
        )
        given: Any = rule_for(layer)(call)
        self.masks += [
            (position, axis + self.inputs[position].rank - inputs[position].rank, line)
            for position, axis, line in call.masks
        ]
        self.mixes_channels |= call.mixes_channels
        if id(layer) in self.record.inside:
            self.record.inside.add(id(self.layer))
        return list(given) if isinstance(given, list | tuple) else [given]

    # What follows the channels

    def resize(
        self, key: str, *lines: np.ndarray | None, value: Callable[..., Any] = int, of_function: bool = False
    ) -> None:
        """An entry of the layer's configuration (or a function's argument) follows the number of channels.

        Args:
            key: its name.
            lines: lines of ids; nothing is done where all are None.
            value: a function of the number of kept ids of each line.
            of_function: whether it belongs to this call rather than to the layer.
        """
        if any(line is not None for line in lines):
            owner = self.node if of_function else self.layer
            self.record.add_resize(owner, key, cast(tuple[np.ndarray, ...], lines), value)

    def resize_shape(self, key: str, shape: Sequence[Any], value: Value, *, of_function: bool, skip: int = 0) -> None:
        """A shape among the arguments follows a value's channels, however they settle.

        Args:
            key: the argument's name.
            shape: what it is now; only entries that are whole sizes are changed.
            value: the value that has this shape.
            of_function: whether it belongs to this call rather than to the layer.
            skip: how many leading axes the argument leaves out.
        """
        if value.parts:
            owner = self.node if of_function else self.layer
            self.record.add_shape_resize(owner, key, shape, value, skip)

    def rescale(self, weight: Variable, table: np.ndarray) -> None:
        """The layer divides by the square root of these channels (heads, size): the weight makes up for the change."""
        if weight is not None:
            self.record.add_rescale(weight, table)

    def count_macs(self, places: int, *lines: np.ndarray | int) -> None:
        """The products this call computes.

        Args:
            places: how often the product over `lines` is computed.
            lines: for each factor the ids along it, or its size where nothing is dropped along it.
        """
        sizes = [line if isinstance(line, int) else line.shape[-1] for line in lines]
        self.record.add_cost(
            self.layer, places * math.prod(sizes), tuple(line for line in lines if not isinstance(line, int))
        )


def factor(line: np.ndarray | None, size: int) -> np.ndarray | int:
    """A line as a factor of the MACs: its ids, or its size where nothing is dropped along it."""
    return size if line is None else line
