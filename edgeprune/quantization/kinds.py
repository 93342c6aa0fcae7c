"""What the integers of a file do with a call of a model: its kernels, what it does to ranges, what fuses with it."""

from __future__ import annotations

import enum
from typing import Any, SupportsFloat

from edgeprune import flavor
from edgeprune.types import Layer


class CallKind(enum.Enum):
    """What a call does, as far as the ranges of activations go."""

    WEIGHTED = "a convolution or matrix product, with a bias"
    NORMALIZATION = "a scale and an offset for each channel, folded into a kernel before it"
    RELU = "an activation that an operator before it does by itself"
    ARITHMETIC = "element by element, and can be followed by a ReLU in the same operator"
    MOVEMENT = "returns the values of its inputs, in other places"
    AVERAGE = "returns values between those of its inputs, on the same steps"
    JOIN = "puts several tensors side by side, or chooses between them, on the same steps"
    NOTHING = "returns its input, at inference"
    RECURRENT = "runs over the steps in one operator, whose ranges the converter measures"
    OTHER = "makes values of another range"


# Kernels by the class of Keras: name to the axes along which each entry has a scale of its own.
_LAST, _LAST_BUT_ONE, _LAST_TWO = (-1,), (-2,), (-2, -1)
_KERNELS: dict[str, dict[str, tuple[int, ...]]] = {
    "Dense": {"kernel": _LAST},
    **{f"Conv{rank}D": {"kernel": _LAST} for rank in (1, 2)},
    **{f"Conv{rank}DTranspose": {"kernel": _LAST_BUT_ONE} for rank in (1, 2)},
    **{f"DepthwiseConv{rank}D": {"kernel": _LAST_TWO, "depthwise_kernel": _LAST_TWO} for rank in (1, 2)},
    **{f"SeparableConv{rank}D": {"depthwise_kernel": _LAST_TWO, "pointwise_kernel": _LAST} for rank in (1, 2)},
}
# Convolutions of one axis become those of two.
_READ_FOUR_BITS = {"Dense", *(f"{kind}Conv{rank}D" for kind in ("", "Depthwise", "Separable") for rank in (1, 2))}
_ATTENTIONS = {"MultiHeadAttention", "GroupedQueryAttention"}
_PROJECTIONS = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")
_RECURRENT = {"LSTM", "GRU", "SimpleRNN"}
# Softmax and sigmoid end below 1, tanh below 1 too: these are the ranges of their operators.
_UNIT, _SYMMETRIC = (0.0, 255 / 256), (-1.0, 127 / 128)
_ENDS_OF_MASKS = {"softmax", "softmaxv2", "logsoftmax", "logsoftmaxv2", "max", "reducemax", "argmax", "argmaxv2"}
_FIXED_RANGES = {"softmax": _UNIT, "softmaxv2": _UNIT, "sigmoid": _UNIT, "tanh": _SYMMETRIC}

# Operators without a version in integers, by the function or layer of which they are a part.
_FLOAT_FUNCTIONS = {
    **{name: name.upper() for name in ("sin", "cos", "cumsum", "floor", "ceil", "round", "sign")},
    **{"rint": "ROUND", "mod": "FLOOR_MOD", "floormod": "FLOOR_MOD", "floordiv": "FLOOR_DIV"},
    **{"floordivide": "FLOOR_DIV", "sparsemax": "CUMSUM"},
}
_FLOAT_LAYERS = {"Conv3D": "CONV_3D", "Conv3DTranspose": "CONV_3D_TRANSPOSE"}

_MOVEMENT_LAYERS = {
    *("Flatten", "Reshape", "Permute", "RepeatVector"),
    *(f"{kind}{rank}D" for kind in ("MaxPooling", "ZeroPadding", "Cropping", "GlobalMaxPooling") for rank in (1, 2, 3)),
}
_MOVEMENT_FUNCTIONS = set(
    "broadcastto expanddims flip gather getitem maxpool maxpool2d moveaxis pad ravel repeat reshape slice "
    "slicinghelper split squeeze stridedslice swapaxes take tile transpose unstack".split()
)
_ARITHMETIC_LAYERS = {"Add", "Subtract", "Multiply"}
_ARITHMETIC_FUNCTIONS = {"add", "subtract", "sub", "multiply", "mul", "addv2"}
_NOTHING_LAYERS = {
    *("Identity", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
    *(f"SpatialDropout{rank}D" for rank in (1, 2, 3)),
}
_AVERAGE_LAYERS = {"AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "Resizing"}
_FUSED_RELUS = {"relu", "relu6"}


def kernel_axes(layer: Layer, per_channel_dense: bool = True) -> dict[str, tuple[int, ...]]:
    """The kernels of a layer that a file stores in integers.

    Args:
        layer: a built layer of either Keras.
        per_channel_dense: whether each unit of a dense layer has a scale of its own; `EinsumDense` is one in a file.

    Returns:
        Name of the attribute to the axes along which each entry has a scale of its own, counted from the end.

    Example:
        >>> import keras
        >>> layer = keras.layers.DepthwiseConv2D(3); layer.build((None, 8, 8, 4))
        >>> kernel_axes(layer)
        {'kernel': (-2, -1)}
    """
    kind = flavor.built_in_kind(layer)
    if kind == "EinsumDense":
        found = _einsum_axes(layer)
        return found if per_channel_dense else dict.fromkeys(found, ())
    found = {name: axes for name, axes in _KERNELS.get(kind, {}).items() if getattr(layer, name, None) is not None}
    return dict.fromkeys(found, ()) if kind == "Dense" and not per_channel_dense else found


def inner_kernel_axes(layer: Layer, per_channel_dense: bool = True) -> dict[str, tuple[int, ...]]:
    """The kernels inside a layer that is called as a whole: an attention, or a recurrent layer of a known kind.

    Args:
        layer: a built layer of either Keras.
        per_channel_dense: whether each unit of the dense layers that it becomes in a file has a scale of its own.

    Returns:
        The path of the attribute to the axes along which each entry has a scale of its own, counted from the end. Those
        of an LSTM that a file computes in one operator have a scale for each gate, a part of the last axis: see
        `kernel_parts`.

    Example:
        >>> import keras
        >>> layer = keras.layers.GRU(2); layer.build((None, 5, 4))
        >>> inner_kernel_axes(layer)
        {'cell.kernel': (-1,), 'cell.recurrent_kernel': (-1,)}
    """
    kind = flavor.built_in_kind(layer)
    if kind == "Bidirectional":
        sides = {
            side: inner_kernel_axes(getattr(layer, side), per_channel_dense)
            for side in ("forward_layer", "backward_layer")
        }
        return {f"{side}.{path}": axes for side, found in sides.items() for path, axes in found.items()}
    if kind in _ATTENTIONS:
        return {
            f"{name}.kernel": axes
            for name in _PROJECTIONS
            if (axes := kernel_axes(getattr(layer, name), per_channel_dense).get("kernel")) is not None
        }
    if kind in _RECURRENT:
        axes = _LAST_BUT_ONE if _gates(layer) else _LAST if per_channel_dense else ()
        return dict.fromkeys(("cell.kernel", "cell.recurrent_kernel"), axes)
    return {}


def kernel_parts(layer: Layer) -> int:
    """How many parts the last axis of a layer's kernels has, where each has a scale of its own; 1 for no parts."""
    return _gates(getattr(layer, "forward_layer", layer)) or 1


def _gates(layer: Layer) -> int:
    """The gates of an LSTM that a file computes in one operator."""
    return 4 if flavor.is_plain_lstm(layer) else 0


def reads_four_bits(layer: Layer) -> bool:
    """Whether the operators that a layer becomes read kernels of 4 bits: those of `tflite.four_bits.READ_FOUR_BITS`."""
    kind = flavor.built_in_kind(layer)
    is_dense = kind in _ATTENTIONS or (kind == "EinsumDense" and bool(kernel_axes(layer)))
    return is_dense or kind in _READ_FOUR_BITS


def _einsum_axes(layer: Any) -> dict[str, tuple[int, ...]]:
    """The kernel of an EinsumDense that a file computes as a dense layer: each letter is summed over, or new."""
    terms, _, result = layer.equation.replace(" ", "").partition("->")
    source, letters = terms.split(",")
    new = [letter in result for letter in letters]
    if any((letter in source) == is_new for letter, is_new in zip(letters, new, strict=True)):
        return {}
    return {"kernel": tuple(axis - len(letters) for axis, is_new in enumerate(new) if is_new)}


def own_activation(layer: Layer) -> str:
    """The name of the activation that a layer has or is; `"linear"` without one, empty if it is none known."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return "linear"
    if not flavor.is_layer(activation):
        return str(getattr(activation, "__name__", ""))
    kind = flavor.built_in_kind(activation)
    if kind == "ReLU":
        return "relu" if _is_fused_relu(activation) else ""
    return kind.lower() if kind in ("Softmax",) else ""


def splits_activation(layer: Layer) -> bool:
    """Whether a file computes a layer with a kernel and its own activation in two operators."""
    return bool(kernel_axes(layer)) and own_activation(layer) not in {"linear", *_FUSED_RELUS}


def fixed_range(layer: Layer) -> tuple[float, float] | None:
    """The range of what a call returns, where it follows from the function and not from data."""
    return _FIXED_RANGES.get(_function_of(layer))


def ends_mask(layer: Layer) -> bool:
    """Whether a call leaves nothing of values far below the others: softmax, or the largest of them."""
    is_largest = flavor.built_in_kind(layer).startswith("GlobalMaxPooling")
    return is_largest or (not kernel_axes(layer) and _function_of(layer) in _ENDS_OF_MASKS)


def _function_of(layer: Layer) -> str:
    """The name of the function that makes what a call returns."""
    name = flavor.function_name(layer)
    if name is not None:
        return name
    return "softmax" if flavor.built_in_kind(layer) == "Softmax" else own_activation(layer)


def float_operator(layer: Layer) -> str | None:
    """The operator of a file that computes a call, or a part of it, in floats; None where there is none.

    Args:
        layer: a built layer of either Keras, or a function in a graph.

    Example:
        >>> import keras
        >>> float_operator(keras.layers.Conv3D(2, 3)), float_operator(keras.layers.Activation("elu"))
        ('CONV_3D', None)
    """
    name = flavor.function_name(layer)
    if name is not None:
        is_scaled = name == "elu" and getattr(layer, "alpha", 1) != 1  # the layer is converted as other operators
        return "ELU" if is_scaled else _FLOAT_FUNCTIONS.get(name)
    kind = flavor.built_in_kind(layer)
    if kind == "Activation" or kernel_axes(layer):
        return _FLOAT_FUNCTIONS.get(own_activation(layer).replace("_", ""))
    return _FLOAT_LAYERS.get(kind)


def kind_of(node: flavor.GraphNode) -> CallKind:
    """What a call does."""
    name = flavor.function_name(node.layer)
    if name is not None:
        return _kind_of_function(name)
    return _kind_of_layer(node.layer)


def _kind_of_function(name: str) -> CallKind:
    if name in _FUSED_RELUS:
        return CallKind.RELU
    if name in _ARITHMETIC_FUNCTIONS:
        return CallKind.ARITHMETIC
    if name in ("concatenate", "concat", "concatv2", "stack", "where", "wherev2"):
        return CallKind.JOIN
    if name in ("averagepool", "avgpool"):
        return CallKind.AVERAGE
    if name in ("identity", "cast", "stopgradient"):
        return CallKind.NOTHING
    return CallKind.MOVEMENT if name in _MOVEMENT_FUNCTIONS else CallKind.OTHER


def _kind_of_layer(layer: Layer) -> CallKind:
    while flavor.is_time_distributed(layer):
        layer = layer.layer
    kind = flavor.built_in_kind(layer)
    if kind in _KERNELS or (kind == "EinsumDense" and len(layer.kernel.shape) == 2 and kernel_axes(layer)):
        return CallKind.WEIGHTED
    if flavor.is_plain_lstm(getattr(layer, "forward_layer", layer)):
        return CallKind.RECURRENT
    if kind == "Activation":
        name = own_activation(layer)
        return CallKind.NOTHING if name == "linear" else CallKind.RELU if name in _FUSED_RELUS else CallKind.OTHER
    if kind == "ReLU":
        return CallKind.RELU if _is_fused_relu(layer) else CallKind.OTHER
    if kind.startswith("UpSampling"):
        return CallKind.AVERAGE if getattr(layer, "interpolation", "nearest") != "nearest" else CallKind.MOVEMENT
    for kinds, found in (
        (_MOVEMENT_LAYERS, CallKind.MOVEMENT),
        (_ARITHMETIC_LAYERS, CallKind.ARITHMETIC),
        (_NOTHING_LAYERS, CallKind.NOTHING),
        (_AVERAGE_LAYERS, CallKind.AVERAGE),
        ({"Concatenate"}, CallKind.JOIN),
        ({"BatchNormalization"}, CallKind.NORMALIZATION),
    ):
        if kind in kinds:
            return found
    return CallKind.OTHER


def _is_fused_relu(layer: Layer) -> bool:
    """Whether a ReLU layer is one that other operators do by themselves: without a slope or a threshold, up to 6."""
    slope = getattr(layer, "negative_slope", 0.0)
    return not _number(slope) and not _number(layer.threshold) and layer.max_value in (None, 6, 6.0)


def _number(value: SupportsFloat | None) -> float:
    """A number that Keras may keep as an array of one element."""
    return 0.0 if value is None else float(value)
