"""Rules that only say what the axes of a layer's weights are: such a layer keeps its class and is made again smaller.

For custom layers that are not to be followed through the calls inside, or that cannot be: their class is made
again with smaller arguments, and the slices of its weights that are left.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.kernels import places
from edgeprune.channels.graph.rules.registry import Call, factor, rule
from edgeprune.types import Layer

Axes = Sequence[str | None]


def axes_rule(
    *kinds: type | str,
    weights: Mapping[str, Axes],
    output: str | None,
    input: str = "in",
    axis: int = -1,
    mixes: bool = False,
) -> None:
    """Declare the channels of each weight axis of a layer, and the constructor arguments that count them.

    A label's first weight produces its channels; the later weights consume them. In a
    weight without new ones the last is made there and the others are read; one that stands alone has one value for
    each channel. The class needs a `get_config` with the arguments. Its MACs are counted as if each weight with
    several labels were used at every place of the output.

    Args:
        kinds: classes of layers of either Keras, or `"package.Name"`, as `rule` accepts them.
        weights: attribute of a weight (`"kernel"`, `"conv.kernel"`, `"parts.0.bias"`) to a label for each of its axes:
            `input` for the channels of what the layer is called on, the name of a constructor argument for as many
            channels as that argument says, None for any other axis. In the order in which the layer uses them.
        output: the label of the channels that the layer returns; None where none of them can be dropped.
        input: the label of the channels of its first input; where it is the name of a constructor argument, that
            argument follows them.
        axis: the axis of the channels in what it is called on and returns.
        mixes: whether it computes statistics over channels (a normalization, a softmax): the proof then runs it on the
            kept channels.

    Raises:
        TypeError: one of `kinds` is no class and no name.
        ValueError: `output` is no label.

    Example:
        >>> import keras, edgeprune as ep
        >>> class Gated(keras.layers.Layer):
        ...     def __init__(self, units, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.units = units
        ...     def build(self, shape):
        ...         self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        ...         self.gate = self.add_weight(shape=(shape[-1], self.units), name="gate")
        ...     def call(self, x):
        ...         return (x @ self.kernel) * keras.ops.sigmoid(x @ self.gate)
        ...     def get_config(self):
        ...         return {**super().get_config(), "units": self.units}
        >>> ep.channels.axes_rule(Gated, weights={"kernel": ("in", "units"), "gate": ("in", "units")}, output="units")
        >>> model = keras.Sequential([keras.Input((4,)), Gated(8), keras.layers.Dense(2)])
        >>> ep.prune_channels(model, pruning_ratio=0.5).layers[0].units
        4
    """
    labels = {label for axes in weights.values() for label in axes if label is not None}
    if output is not None and output not in labels | {input}:
        raise ValueError(f"output={output!r} is the label of no axis; there are {', '.join(sorted(labels | {input}))}.")

    @rule(*kinds)
    def by_axes(call: Call) -> Value:
        lines: dict[str, np.ndarray | None] = {input: call.channels(call.x, axis)}
        for path, axes in weights.items():
            _follow_weight(call, path, axes, lines, input, axis)
        config = call.layer.get_config()
        for label, line in lines.items():
            if label in config:
                call.resize(label, line)
            elif label != input:
                raise ValueError(
                    f"The rule of {type(call.layer).__name__} names {label!r}, which is no entry of its get_config()."
                )
        if mixes:
            call.mixes(*lines.values())
        return call.output({} if output is None else {axis: lines[output]})


def _follow_weight(
    call: Call, path: str, axes: Axes, lines: dict[str, np.ndarray | None], input: str, axis: int
) -> None:
    holder, weight = _weight_at(call.layer, path)
    if len(axes) != len(weight.shape):
        raise ValueError(
            f"The rule of {type(call.layer).__name__} returns {len(axes)} labels for {path!r}, whose shape is "
            f"{tuple(weight.shape)}."
        )
    labelled = [(number, label) for number, label in enumerate(axes) if label is not None]
    new = {label for _, label in labelled if label not in lines}
    for number, label in labelled:
        size, line = weight.shape[number], lines.get(label)
        if line is not None and len(line) != size:
            raise ValueError(
                f"The rule of {type(call.layer).__name__} labels axis {number} of {path!r} {label!r}, which "
                f"has {len(line)} channels, and the axis has the size {size}."
            )
        if label in new:
            lines[label] = call.make(weight, number, layer=holder)
        elif len(labelled) == 1 or (not new and number == labelled[-1][0]):
            call.index(weight, number, line, layer=holder)
        elif label == input:
            dataclasses.replace(call, layer=holder).read(call.x, axis, weight, number)
        else:
            call.read_inside(weight, number, line, layer=holder)
    if len(labelled) > 1:
        others = math.prod(size for size, label in zip(weight.shape, axes, strict=True) if label is None)
        factors = [factor(lines[label], weight.shape[number]) for number, label in labelled]
        call.count_macs(places(call.output_shapes[0], axis) * others, *factors)


def _weight_at(layer: Layer, path: str) -> tuple[Any, Any]:
    """The layer that holds a weight, and the weight."""
    holder: Any = layer
    found: Any = layer
    try:
        for name in path.split("."):
            holder = found if hasattr(found, "weights") else holder
            found = found[int(name)] if name.isdigit() else getattr(found, name)
    except (AttributeError, IndexError, TypeError):
        raise ValueError(f"The rule of {type(layer).__name__} names the weight {path!r}, which it has not.") from None
    return holder, found
