"""Which channels have one and the same value whatever the input is, and which value.

The model's calls are followed once, producers first. A kernel whose slice is zero makes a constant, and so does one
that reads constants only; what follows (a batch norm, an activation, an addition) is computed on the constants. A
layer that is unknown here makes channels that vary, so what is found is certain but may not be all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step, Tensor
from edgeprune.channels.graph.rules.kernels import channel_axis, depthwise_kernel
from edgeprune.channels.graph.rules.normalization import normalized_axes
from edgeprune.types import Layer

# The classes that are constant in one tensor, with their values.
Constants = dict[int, float]


def constants(graph: ChannelGraph) -> list[Constants]:
    """Find the constant channels of every tensor.

    Args:
        graph: a traced model.

    Returns:
        For each of `graph.tensors` a dict from class to value; a class is in it if all its channels in this tensor
        have that value at all places, for every input.

    Example:
        >>> import keras
        >>> from edgeprune.channels.graph.trace import trace
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
        >>> _ = model.layers[0].kernel.assign([[0, 1, 1], [0, 1, 1]])
        >>> constants(trace(model))[1]
        {0: 0.0}
    """
    known: list[Constants] = [{} for _ in graph.tensors]
    for step in graph.steps:
        rule = None if step.mixes else _rule_of(step.layer)
        if rule is not None:
            given = rule(_View(graph, step, known))
            for place in step.outputs:
                present = {int(number) for classes in graph.tensors[place].axes.values() for number in classes}
                known[place] = {number: value for number, value in given.items() if number in present}
    return known


class _View:
    """One call as a rule sees it."""

    def __init__(self, graph: ChannelGraph, step: Step, known: list[Constants]) -> None:
        self.layer = step.layer
        self.inputs = [known[place] for place in step.inputs]
        self.tensors = [graph.tensors[place] for place in step.inputs]
        self.output: Tensor = graph.tensors[step.outputs[0]]

    def read(self, axis: int) -> np.ndarray:
        """The constants along an axis of the first input, NaN for a channel that varies."""
        tensor, known = self.tensors[0], self.inputs[0]  # a mask of steps may be another input
        axis %= len(tensor.shape)
        classes = tensor.axes.get(axis)
        if classes is None or not known:
            return np.full(tensor.shape[axis], np.nan)
        return np.array([known.get(number, np.nan) for number in classes.tolist()])

    def made(self, vector: np.ndarray, axis: int, activation: Callable[..., Any] | None = None) -> Constants:
        """By class the constants along an axis of the output, after an activation."""
        classes = self.output.axes.get(axis % len(self.output.shape))
        if classes is None or np.isnan(vector).all():
            return {}
        if activation is not None:
            vector = np.where(np.isnan(vector), np.nan, _computed(activation, vector))
        of_class: Constants = {}
        for number, value in zip(classes.tolist(), vector.tolist(), strict=True):
            if of_class.setdefault(number, value) != value:
                of_class[number] = math.nan
        return {number: value for number, value in of_class.items() if math.isfinite(value)}

    def everywhere(self, number: int) -> list[float]:
        """The value of a class in each of the inputs, NaN where it varies."""
        return [known.get(number, math.nan) for known in self.inputs]


def _computed(function: Callable[[Any], Any], vector: np.ndarray) -> np.ndarray:
    """An element-wise function of a vector."""
    return np.asarray(function(np.asarray(vector, np.float32)[None]), np.float64)[0]


def product(
    vector: np.ndarray, kernel: np.ndarray, bias: np.ndarray | float, pads_with_zeros: bool, groups: int = 1
) -> np.ndarray:
    """What a kernel makes of constants.

    Args:
        vector: the constant of each input channel, NaN for one that varies.
        kernel: (*window, in / groups, out).
        bias: of each channel that comes out.
        pads_with_zeros: whether zeros are put around the input, so that only zeros are constant there.
        groups: of a grouped convolution.

    Returns:
        The constant of each channel that comes out, NaN for one that varies.
    """
    kernel = kernel.reshape(-1, kernel.shape[-2], groups, kernel.shape[-1] // groups)
    vector = vector.reshape(groups, -1).T
    varies = np.isnan(vector) | ((vector != 0) & pads_with_zeros)
    sums = np.einsum("wigo,ig->go", kernel, np.where(varies, 0.0, vector), dtype=np.float64).reshape(-1)
    touched = ((kernel != 0).any(axis=0) & varies[:, :, None]).any(axis=0).reshape(-1)
    return np.where(touched, np.nan, sums + bias)


def pads_with_zeros(layer: Layer, kernel: np.ndarray, spatial: int) -> bool:
    """Whether a convolution puts zeros around its input."""
    return getattr(layer, "padding", "valid") != "valid" and any(size > 1 for size in kernel.shape[:spatial])


def _bias(layer: Layer) -> Any:
    return 0.0 if layer.bias is None else np.asarray(layer.bias, np.float64)


def _own_weight(view: _View) -> Constants:
    """A weight that a composite layer uses itself."""
    values = np.asarray(view.layer.variable, np.float64)
    known: Constants = {}
    for axis in view.output.axes:
        slices = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        known |= view.made(np.where((slices == slices[:, :1]).all(axis=1), slices[:, 0], np.nan), axis)
    return known


def _dense(view: _View) -> Constants:
    layer = view.layer
    made = product(view.read(-1), np.asarray(layer.kernel), _bias(layer), False)
    return view.made(made, -1, layer.activation)


def _convolution(view: _View) -> Constants:
    layer, axis, kernel = view.layer, channel_axis(view.layer), np.asarray(view.layer.kernel)
    border = pads_with_zeros(layer, kernel, kernel.ndim - 2)
    return view.made(product(view.read(axis), kernel, _bias(layer), border, layer.groups), axis, layer.activation)


def _transposed(view: _View) -> Constants:
    layer, axis, kernel = view.layer, channel_axis(view.layer), np.asarray(view.layer.kernel)
    # Places of the output are reached by different numbers of weights, as places at a border are.
    made = product(view.read(axis), np.swapaxes(kernel, -1, -2), _bias(layer), True)
    return view.made(made, axis, layer.activation)


def _depthwise_sum(layer: Layer, kernel: np.ndarray, vector: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
    """A depthwise kernel (*window, in, multiplier) is one with as many groups as channels."""
    border = pads_with_zeros(layer, kernel, kernel.ndim - 2)
    whole = kernel.reshape(*kernel.shape[:-2], 1, -1)
    return product(vector, whole, bias, border, groups=len(vector))


def _depthwise(view: _View) -> Constants:
    layer, axis = view.layer, channel_axis(view.layer)
    made = _depthwise_sum(layer, np.asarray(depthwise_kernel(layer)), view.read(axis), _bias(layer))
    return view.made(made, axis, layer.activation)


def _separable(view: _View) -> Constants:
    layer, axis = view.layer, channel_axis(view.layer)
    between = _depthwise_sum(layer, np.asarray(layer.depthwise_kernel), view.read(axis), 0.0)
    made = product(between, np.asarray(layer.pointwise_kernel), _bias(layer), False)
    return view.made(made, axis, layer.activation)


def _batch_normalization(view: _View) -> Constants:
    layer = view.layer
    axes = normalized_axes(layer, len(view.output.shape))
    scale, offset = scale_and_offset(layer)
    vector = view.read(axes[0])
    return view.made(np.where(scale == 0, offset, vector * scale + offset), axes[0])


def scale_and_offset(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """What a batch normalization multiplies each channel by at inference, and what it then adds."""
    mean, variance = (np.asarray(weight, np.float64) for weight in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * np.asarray(layer.gamma, np.float64)
    return scale, (0.0 if layer.beta is None else np.asarray(layer.beta, np.float64)) - mean * scale


def _unary(view: _View) -> Constants:
    known = view.inputs[0]
    values = _computed(view.layer, np.array([*known.values()])) if known else ()
    return {number: float(value) for number, value in zip(known, values, strict=True) if math.isfinite(value)}


def _moved(view: _View) -> Constants:
    """Values go to other places; a class that comes from several tensors must have one value in all of them."""
    of_class: Constants = {}
    for known, tensor in zip(view.inputs, view.tensors, strict=True):
        for classes in tensor.axes.values():
            for number in set(classes.tolist()):
                value = known.get(number, math.nan)
                if of_class.setdefault(number, value) != value:
                    of_class[number] = math.nan
    return {number: value for number, value in of_class.items() if math.isfinite(value)}


def _zeros_moved(view: _View) -> Constants:
    return {number: value for number, value in _moved(view).items() if value == 0}


def _merged(function: Callable[[list[float]], float]) -> Callable[[_View], Constants]:
    def merge(view: _View) -> Constants:
        numbers = {number for known in view.inputs for number in known}
        of_class = {number: function(view.everywhere(number)) for number in numbers}
        return {number: value for number, value in of_class.items() if math.isfinite(value)}

    return merge


def _product(values: list[float]) -> float:
    return 0.0 if 0 in values else math.prod(values)


def _difference(values: list[float]) -> float:
    return values[0] - values[1]


_MERGES = {
    "Add": _merged(sum),
    "Subtract": _merged(_difference),
    "Multiply": _merged(_product),
    "Average": _merged(lambda values: sum(values) / len(values)),
    # NumPy's return NaN where any value is.
    "Maximum": _merged(lambda values: float(np.max(values))),
    "Minimum": _merged(lambda values: float(np.min(values))),
}
_SPATIAL = [f"{{}}{rank}D" for rank in (1, 2, 3)]
_LAYERS: dict[str, Callable[[_View], Constants]] = {
    "Dense": _dense,
    **{kind.format("Conv"): _convolution for kind in _SPATIAL},
    **{f"Conv{rank}DTranspose": _transposed for rank in (1, 2, 3)},
    "DepthwiseConv1D": _depthwise,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "BatchNormalization": _batch_normalization,
    "SyncBatchNormalization": _batch_normalization,
    **dict.fromkeys(("Activation", "ReLU", "ELU", "LeakyReLU", "ThresholdedReLU"), _unary),
    "PReLU": _zeros_moved,
    **_MERGES,
    **dict.fromkeys(
        (
            *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization", "Identity"),
            *("Flatten", "Reshape", "Permute", "RepeatVector", "Concatenate"),
            *(
                kind.format(name)
                for kind in _SPATIAL
                for name in ("SpatialDropout", "MaxPooling", "AveragePooling", "GlobalMaxPooling")
            ),
            *(kind.format(name) for kind in _SPATIAL for name in ("GlobalAveragePooling", "Cropping", "UpSampling")),
        ),
        _moved,
    ),
    **{kind.format("ZeroPadding"): _zeros_moved for kind in _SPATIAL},
}
_FUNCTIONS: dict[str, Callable[[_View], Constants]] = {
    "ownweight": _own_weight,
    **dict.fromkeys(("add", "addv2"), _MERGES["Add"]),
    **dict.fromkeys(("multiply", "mul"), _MERGES["Multiply"]),
    **dict.fromkeys(("reshape", "transpose", "transposev2", "concatenate", "concat", "split", "getitem"), _moved),
}
# Whatever their other arguments are.
_KEEP_ZERO = {"relu", "relu6", "tanh", "silu", "swish", "gelu", "elu", "selu", "leakyrelu", "hardswish", "hardsilu"}
_BINARY = {"add", "addv2", "multiply", "mul"}


def _rule_of(layer: Layer) -> Callable[[_View], Constants] | None:
    name = flavor.function_name(layer)
    if name is not None:
        return (
            _zeros_moved if name in _KEEP_ZERO else _of_two_tensors(name) if name in _BINARY else _FUNCTIONS.get(name)
        )
    return _LAYERS.get(flavor.built_in_kind(layer))


def _of_two_tensors(name: str) -> Callable[[_View], Constants]:
    """A function of two arguments, one of which may be no tensor of the graph: then only 0 times it is known."""

    def merge(view: _View) -> Constants:
        if len(view.inputs) == 2:
            return _FUNCTIONS[name](view)
        return _zeros_moved(view) if name in ("multiply", "mul") else {}

    return merge
