"""What works on each element apart: activations, noise, merging layers, pooling and what else keeps channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.registry import Call, CannotFollow, function_rule, rule
from edgeprune.types import Layer

# Functions by the names of `flavor.function_name`.
EACH_ELEMENT = (
    "absolute abs fabs add addv2 arccos arccosh arcsin arcsinh arctan arctan2 arctanh acos acosh asin asinh atan "
    "atanh bitwiseand bitwiseor bitwisexor cast ceil celu clip clipbyvalue converttotensor cos cosh copy divide "
    "divideonan dividenonan div elu equal erf erfc exp exp2 expm1 floor floordiv floordivide floormod fmax fmin gelu "
    "greater greaterequal hardshrink hardsigmoid hardsilu hardswish hardtanh identity isfinite isinf isnan leakyrelu "
    "less lessequal log log10 log1p log2 logaddexp logicaland logicalnot logicalor logicalxor logsigmoid maximum "
    "minimum mod multiply multiplynonan mul nantonum neg negative notequal oneslike pow power real realdiv "
    "reciprocal relu relu6 round rsqrt saturatecast selu sigmoid sign silu sin sinh softplus softshrink softsign "
    "sparseplus sparsesigmoid sqrt square squareddifference squareplus stopgradient sub subtract swish tan tanh "
    "tanhshrink threshold truediv truedivide trunc where wherev2 zeroslike"
).split()
_MIXING_ACTIVATIONS = {"softmax", "log_softmax", "sparsemax"}
_KNOWN_PACKAGES = {"keras", "tf_keras", "tensorflow"}


def follow_activation(call: Call, activation: Callable[..., Any] | None, channels: np.ndarray | None) -> None:
    """An activation leaves channels where they are, but softmax weighs those of the last axis against each other."""
    if activation is None:
        return
    name = getattr(activation, "__name__", None) or type(activation).__name__.lower()
    package = getattr(activation, "__module__", None) or type(activation).__module__
    if name in _MIXING_ACTIVATIONS or name == "softmax_v2":
        call.mixes(channels, why="softmax over channels")
    elif name == "glu":
        raise CannotFollow("glu halves the channels")
    elif package.partition(".")[0] not in _KNOWN_PACKAGES and not _works_on_each_element(call.layer, activation):
        raise CannotFollow(f"its activation {name} is unknown")


def _works_on_each_element(layer: Layer, activation: Callable[..., Any]) -> bool:
    """Whether a custom function is made of functions that work on each element, and of numbers."""
    functions = flavor.functions_inside(activation) if flavor.is_keras_3(layer) else None
    return functions is not None and bool(functions) and all(name in EACH_ELEMENT for name in functions)


@function_rule("biasadd")
def bias_add(call: Call) -> Value:
    """TensorFlow's addition along the last axis."""
    if len(call.inputs) != 2 or str(call.argument("data_format")).startswith("NC"):
        raise CannotFollow("its bias is a constant, or its data is channels first")
    return call.merge(call.inputs)


@rule("Activation")
def activation(call: Call) -> Value:
    """Any activation as a layer."""
    if call.x.parts:
        follow_activation(call, call.layer.activation, call.line(call.x, -1))
    return call.x


@rule(
    "ReLU",
    "ELU",
    "LeakyReLU",
    "ThresholdedReLU",
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "Identity",
)
def elementwise_layer(call: Call) -> Value:
    """Nothing moves."""
    return call.x


@rule("Softmax")
def softmax_layer(call: Call) -> Value:
    """Softmax over one axis or several."""
    axes = call.layer.axis if isinstance(call.layer.axis, list | tuple) else [call.layer.axis]
    mix_along(call, axes)
    return call.x


def mix_along(call: Call, axes: Iterable[int], what: str = "softmax over channels") -> None:
    """Note that what is computed depends on all the channels along these axes, if there are any."""
    call.mixes(*(call.line(call.x, axis) for axis in axes), why=what)


@rule("PReLU")
def prelu(call: Call) -> Value:
    """Its alpha has the input's shape without the batch, 1 along shared axes."""
    for axis, size in enumerate(call.layer.alpha.shape):
        if size > 1:
            call.index(call.layer.alpha, axis, call.line(call.x, axis + 1))
    return call.x


@rule("Rescaling")
def rescaling(call: Call) -> Value:
    """A factor and an offset, the same for all channels or one for each."""
    factors = [call.layer.scale, call.layer.offset]
    if any(isinstance(number, list | tuple) or getattr(number, "shape", ()) for number in factors):
        call.freeze(call.x, f"{call.name} has a factor for each channel")
    return call.x


@rule("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
def merging(call: Call) -> Value:
    """Channels that meet live and die together."""
    return call.merge(call.inputs)


@rule(
    *(
        f"{kind}{rank}D"
        for kind in ("MaxPooling", "AveragePooling", "ZeroPadding", "Cropping", "UpSampling")
        for rank in (1, 2, 3)
    ),
    *(f"Adaptive{kind}Pooling{rank}D" for kind in ("Average", "Max") for rank in (1, 2, 3)),
    "Resizing",
    "CenterCrop",
)
def places_layer(call: Call) -> Value:
    """Works along space, for each channel apart."""
    axis = 1 if getattr(call.layer, "data_format", None) == "channels_first" else call.x.rank - 1
    return call.output({axis: call.channels(call.x, axis)})


@rule(*(f"Global{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)))
def over_all_places(call: Call) -> Value:
    """One value for each channel."""
    first = getattr(call.layer, "data_format", None) == "channels_first"
    axis = 1 if first else call.x.rank - 1
    return call.output({1 if first else -1: call.channels(call.x, axis)})
