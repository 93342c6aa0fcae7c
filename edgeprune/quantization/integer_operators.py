"""The operators of an int8 file in whole numbers: what each makes of its inputs, on the steps of its output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.quantization.fake_quantize import QuantizedLayerLogic, is_quantized_layer
from edgeprune.quantization.integer_arithmetic import (
    Kernels,
    Steps,
    added,
    mean,
    rescaled,
    rounded_away,
)
from edgeprune.quantization.kinds import CallKind, own_activation
from edgeprune.types import Layer, TfTensor, Variable

_SIGMOID_STEP = 1 / 256
# No operator works on steps that are so far apart; the sum of scores and a mask with -1e9 is a choice in a file.
_FARTHEST = 2.0**20
_MEANS = {"GlobalAveragePooling1D": (1,), "GlobalAveragePooling2D": (1, 2)}
# Layers that are one operator with one kernel, whose products a copy of the layer adds up.
_PRODUCTS = {"Dense", *(f"{kind}{rank}D" for kind in ("Conv", "DepthwiseConv") for rank in (1, 2))}
_PRODUCTS |= {"Conv1DTranspose", "Conv2DTranspose"}


@dataclass(frozen=True, eq=False)
class IntegerOperator:
    """An operator of the file whose output steps are still to come, with what is fused into it so far.

    Attributes:
        node: the call of the model.
        inputs: its inputs: tensors of real values, float64, on their steps.
        steps: those of each input.
        kernels: how sums are rounded.
        rule: makes the output.
        normalization: the batch normalization that is folded into its kernel.
        largest: what a ReLU behind it cuts off at; None without one.
    """

    node: flavor.GraphNode
    inputs: Sequence[Any]
    steps: Sequence[Steps]
    kernels: Kernels
    rule: Callable[[IntegerOperator, Steps, str], Any]
    normalization: Layer | None = None
    largest: float | None = None

    def followed_by(self, node: flavor.GraphNode) -> IntegerOperator | None:
        """The operator with a batch normalization or ReLU that follows; None where these are not fused."""
        if flavor.built_in_kind(node.layer) == "BatchNormalization":
            free = self.rule is _weighted and self.normalization is None and self.largest is None
            return dataclasses.replace(self, normalization=node.layer) if free else None
        return dataclasses.replace(self, largest=_largest(node.layer))

    def build(self, steps: Steps, name: str) -> Any:
        """The output as a tensor of real values on its steps.

        Args:
            steps: the output's.
            name: of the layer that makes it.
        """
        return self.rule(self, steps, name)

    def on_steps(self, steps: Steps) -> Callable[[Any], Any]:
        """What turns whole numbers into the real values of an output: its limits, those of a ReLU among them."""
        low, high = steps.limits
        if self.largest is not None:
            low, high = max(low, 0), min(high, round(min(self.largest / steps.scale, 255)))

        def real(numbers: TfTensor) -> Any:
            import tensorflow as tf

            return tf.clip_by_value(numbers, np.float64(low), np.float64(high)) * steps.scale

        return real


def operator_of(
    node: flavor.GraphNode, kind: CallKind, inputs: Sequence[Any], steps: Sequence[Any], kernels: Kernels
) -> IntegerOperator | None:
    """The operator of a call whose inputs are all on steps; None where there is no rule for it."""
    layer: Any = node.layer
    if is_quantized_layer(layer):
        if flavor.built_in_kind(layer.layer) not in _PRODUCTS:
            return None
        operator = IntegerOperator(node, inputs, steps, kernels, _weighted)
        return operator if layer.before_activation is None else _with_activation(operator, layer)
    scales = [one.scale for one in steps]
    if max(scales, default=0.0) > _FARTHEST * min(scales, default=0.0):
        return None
    rule = _rule(kind, flavor.function_name(layer) or flavor.built_in_kind(layer), node)
    return None if rule is None else IntegerOperator(node, inputs, steps, kernels, rule)


def _rule(kind: CallKind, name: str, node: flavor.GraphNode) -> Callable[[IntegerOperator, Steps, str], Any] | None:
    if kind is CallKind.ARITHMETIC and len(node.inputs) == 2 and name.lower() in ("add", "addv2"):
        return _sum
    if kind is CallKind.AVERAGE and name.startswith("AveragePooling"):
        return _average_pool
    is_mean = name in _MEANS and None not in node.inputs[0].shape[1:]  # a file has the count of values in a factor
    return _mean if is_mean else None


def whole_numbers(keras_object: object, function: Callable[..., Any], name: str | None) -> Any:
    """A layer in float64 that applies a function of tensors; a mask of the only one passes through."""

    def mask_behind(inputs: object, mask: TfTensor | None = None) -> Any:
        return None if isinstance(inputs, list | tuple) else mask

    return flavor.keras_of(keras_object).layers.Lambda(function, mask=mask_behind, dtype="float64", name=name)


def _numbers(values: TfTensor, steps: Steps) -> Any:
    """Real values on steps as whole numbers, counted from zero."""
    import tensorflow as tf

    return tf.round(tf.cast(values, tf.float64) / steps.scale)


def _weighted(operator: IntegerOperator, steps: Steps, name: str) -> Any:
    """A convolution or dense layer."""
    wrapper: Any = operator.node.layer
    (taken,) = operator.steps
    kernel, bias, scale = integer_weights(wrapper, operator.normalization, taken.scale)
    layer = flavor.clone_layer(
        wrapper.layer, dtype="float64", activation="linear", use_bias=True, name=f"{name}_products"
    )
    products = layer(
        whole_numbers(wrapper, lambda values: _numbers(values, taken), f"{name}_numbers")(operator.inputs[0])
    )
    (kernel_name,) = wrapper.kernel_axes
    getattr(layer, kernel_name).assign(kernel)
    layer.bias.assign(bias)
    relu = own_activation(wrapper.layer)
    if wrapper.before_activation is None and relu in ("relu", "relu6"):
        operator = dataclasses.replace(operator, largest=6.0 if relu == "relu6" else np.inf)
    real, kernels = operator.on_steps(steps), operator.kernels
    if kernels == "xnnpack" and wrapper.num_bits == 4:
        kernels = _kernels_of_four_bits(wrapper.layer)
    factors = np.float32(taken.scale) * scale / np.float32(steps.scale)
    if kernels != "xnnpack":
        factors = np.float64(taken.scale) * scale.astype(np.float64) / np.float64(steps.scale)
    if getattr(wrapper.layer, "data_format", None) == "channels_first":
        factors = factors.reshape(-1, *[1] * (len(products.shape) - 2))
    return whole_numbers(wrapper, lambda sums: real(rescaled(sums, factors, kernels)), name)(products)


def _kernels_of_four_bits(layer: Layer) -> Kernels:
    """XNNPACK leaves convolutions with weights of 4 bits to LiteRT's own kernels."""
    kind = flavor.built_in_kind(layer)
    return "xnnpack" if kind == "Dense" else "reference" if kind.startswith("Depthwise") else "ruy"


def integer_weights(
    wrapper: QuantizedLayerLogic, normalization: Layer | None, step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a file stores for a layer: the integers of its kernel and of its bias, and the scale of each channel.

    Args:
        wrapper: the layer with rounded kernels.
        normalization: the batch normalization behind it, which is folded into it; None without one.
        step: the scale of the layer's input.

    Returns:
        The kernel in float64, shaped as the layer's; the bias and the scales, `(channels,)`.
    """
    layer: Any = wrapper.layer
    ((name, axes),) = wrapper.kernel_axes.items()
    kernel = np.asarray(wrapper.rounded(name), np.float64)
    channels = [kernel.ndim + axis for axis in axes or (-1,)]
    shape = [size if axis in channels else 1 for axis, size in enumerate(kernel.shape)]
    factor, offset = (np.ones(1), 0.0) if normalization is None else _folded(normalization)
    kernel = kernel * np.broadcast_to(factor, int(np.prod(shape))).reshape(shape)
    others = tuple(axis for axis in range(kernel.ndim) if axis not in channels) if axes else None
    steps = 2 ** (wrapper.num_bits - 1) - 1
    scale = np.abs(kernel).max(axis=others, keepdims=True) / steps
    scale = np.where(scale > 0, scale, 1.0)
    scales = np.broadcast_to(scale, shape).reshape(-1)
    bias = 0.0 if getattr(layer, "bias", None) is None else flavor.array_of(layer.bias).astype(np.float64)
    # A file of 4 bits is made from one of 8, whose bias is brought to larger steps.
    finer = steps / 127
    biases = np.rint(np.broadcast_to(bias * factor + offset, scales.shape) / (step * scales * finer))
    return np.rint(kernel / scale), np.rint(biases * finer), scales.astype(np.float32)


def _folded(normalization: Layer) -> tuple[np.ndarray, np.ndarray]:
    """The factor and the offset of each channel, as a batch normalization applies them at inference."""

    def values(weight: Variable | None, without: float) -> Any:
        return without if weight is None else flavor.array_of(weight).astype(np.float64)

    variance = values(normalization.moving_variance, 1.0)
    factor = values(normalization.gamma, 1.0) / np.sqrt(variance + normalization.epsilon)
    return factor, values(normalization.beta, 0.0) - values(normalization.moving_mean, 0.0) * factor


def _largest(layer: Layer) -> float:
    """What a ReLU cuts off at."""
    if flavor.function_name(layer) == "relu6" or own_activation(layer) == "relu6":
        return 6.0
    return getattr(layer, "max_value", None) or np.inf


def _sum(operator: IntegerOperator, steps: Steps, name: str) -> Any:
    """Two tensors, added."""
    scales, real = [one.scale for one in operator.steps], operator.on_steps(steps)

    def function(pair: Sequence[TfTensor]) -> Any:
        a, b = (_numbers(values, one) for values, one in zip(pair, operator.steps, strict=True))
        return real(added(a, b, scales, steps.scale, operator.kernels))

    return whole_numbers(operator.node.layer, function, name)(list(operator.inputs))


def _average_pool(operator: IntegerOperator, steps: Steps, name: str) -> Any:
    """Averages over windows, of the stored integers."""
    (taken,), real = operator.steps, operator.on_steps(steps)
    layer = flavor.clone_layer(operator.node.layer, dtype="float64", name=f"{name}_averages")

    def stored(values: TfTensor) -> Any:
        return _numbers(values, taken) + taken.zero_point

    averages = layer(whole_numbers(layer, stored, f"{name}_numbers")(operator.inputs[0]))
    return whole_numbers(layer, lambda found: real(rounded_away(found) - taken.zero_point), name)(averages)


def _mean(operator: IntegerOperator, steps: Steps, name: str) -> Any:
    """The mean of each channel."""
    import tensorflow as tf

    layer: Any = operator.node.layer
    axes = _MEANS[flavor.built_in_kind(layer)]
    if layer.data_format == "channels_first":
        axes = tuple(axis + 1 for axis in axes)
    (taken,), real = operator.steps, operator.on_steps(steps)

    def function(values: TfTensor) -> Any:
        numbers = _numbers(values, taken)
        count = int(np.prod([numbers.shape[axis] for axis in axes]))
        sums = tf.reduce_sum(numbers, axes, keepdims=layer.keepdims)
        return real(mean(sums, count, taken.scale / steps.scale, operator.kernels))

    return whole_numbers(layer, function, name)(operator.inputs[0])


def _with_activation(operator: IntegerOperator, wrapper: Layer) -> IntegerOperator:
    """The function behind a layer with an activation of its own, which is an operator of its own in the file."""
    before = Steps.of_range(*wrapper.before_activation.limits)
    values = operator.build(before, f"{wrapper.layer.name}_before_activation")
    rule = _swish if own_activation(wrapper.layer) in ("swish", "silu") else _in_floats
    return dataclasses.replace(operator, inputs=[values], steps=[before], rule=rule)


def _swish(operator: IntegerOperator, steps: Steps, name: str) -> Any:
    """Values times their sigmoid, two operators."""
    (taken,), real = operator.steps, operator.on_steps(steps)

    def function(values: TfTensor) -> Any:
        import tensorflow as tf

        shares = tf.minimum(tf.round(tf.sigmoid(values) / _SIGMOID_STEP), 255.0)
        factor = taken.scale * _SIGMOID_STEP / steps.scale
        return real(rescaled(_numbers(values, taken) * shares, factor, operator.kernels))

    return whole_numbers(operator.node.layer, function, name)(operator.inputs[0])


def _in_floats(operator: IntegerOperator, steps: Steps, name: str) -> Any:
    """An activation, from a table of its values in floats."""
    layer: Any = operator.node.layer
    real, activation = operator.on_steps(steps), layer.layer.activation

    def function(values: TfTensor) -> Any:
        import tensorflow as tf

        return real(rounded_away(tf.cast(activation(tf.cast(values, tf.float32)), tf.float64) / steps.scale))

    return whole_numbers(layer, function, name)(operator.inputs[0])
