"""Fake quantization: values rounded to the grid on which a file stores them; gradients pass straight through.

The two layers of a quantization-aware model are written here once; `layers_keras` and `layers_tf_keras` make them
layers of each Keras.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeGuard

import numpy as np

from edgeprune import flavor
from edgeprune.conversion.masked_scores import LEAST_SCORE
from edgeprune.quantization.wrapper import WrapperLogic
from edgeprune.types import AnyTensor, Layer, Shape, TfTensor, Variable

if TYPE_CHECKING:
    from keras.layers import Layer as _BaseLayer
else:
    _BaseLayer = object

# The range that an activation is thought to have before any data has passed, as TF-MOT's.
_UNSEEN = (-6.0, 6.0)
# The end of the range of values that are all zero: any, but not so near that no multiplier reaches its steps.
_OF_ZEROS = 1.0
# The least end of a range that is learned: above zero, which is in the range in any case.
_LEAST = 1e-6
# A channel whose weights are all smaller is zero.
_LEAST_MAGNITUDE = 1e-30
LEARNED: Literal["learned"] = "learned"
UpdateRanges = bool | Literal["learned"]
# How far a range counts as seen that is known from zeros alone: the next values take its place.
_HARDLY_SEEN = 1e-6


class Observer(Protocol):
    """What is shown the values of one activation, unquantized, while data passes through the model."""

    def update(self, values: np.ndarray) -> None:
        """Add the values of a batch."""


def rounded_to_grid(weight: AnyTensor | np.ndarray, axes: Sequence[int], num_bits: int) -> Any:
    """A kernel on the grid on which a file stores it: symmetric around zero, one scale for each channel.

    The largest magnitude of a channel is the grid's last step, `2 ** (num_bits - 1) - 1`, and zero is exactly zero.
    Batch normalization that is folded into the kernel multiplies a channel by one number, and its grid alike: so the
    grid is the file's, with it and without.

    Args:
        weight: float32 `(...)`.
        axes: those along which each entry has a scale of its own, counted from the end; none for one scale.
        num_bits: 2 to 8.

    Returns:
        A tensor like it. Gradients pass as if it were `weight` itself.

    Example:
        >>> rounded_to_grid(np.float32([[3.3, 7.0], [-7.0, 0.4]]), (-1,), 4).numpy().tolist()
        [[3.0, 7.0], [-7.0, 0.0]]
    """
    import tensorflow as tf

    rank = len(weight.shape)
    kept = [rank + axis for axis in axes]
    order = [axis for axis in range(rank) if axis not in kept] + kept

    @tf.custom_gradient
    def rounded(values: TfTensor) -> tuple[Any, Callable[[Any], Any]]:
        turned = tf.transpose(values, order)
        columns = tf.reshape(turned, [-1, int(np.prod([values.shape[axis] for axis in kept], dtype=int))])
        largest = tf.reduce_max(tf.abs(columns), axis=0)
        largest = tf.where(largest > _LEAST_MAGNITUDE, largest, 0.0)  # or its steps are no numbers
        columns = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            columns, -largest, largest, num_bits=num_bits, narrow_range=True
        )
        back = tf.transpose(tf.reshape(columns, tf.shape(turned)), np.argsort(order))
        return back, lambda gradient: gradient

    return rounded(tf.convert_to_tensor(weight))


class FakeQuantizeLogic(_BaseLayer):
    """Rounds activations to the 256 steps of a range that is measured: calibrated, then a moving average in training.

    Args:
        num_bits: of the integers.
        fixed_range: the range where it follows from the function that makes the values; left out, it is measured.
        update_ranges: whether training moves it: with a moving average, or where `"learned"` as a trainable weight.
        momentum: the share of the old range in the new one, at each step of training.
        in_file: whether a file has the range, or the converter finds its own there.
        room_below: how far the range goes below the least value, for scores that are masked: what a mask puts there,
            if it is among the values, does not count.
        **kwargs: arguments of every layer.
    """

    range_min: Variable
    range_max: Variable
    seen: Variable

    def __init__(
        self,
        num_bits: int = 8,
        fixed_range: Sequence[float] | None = None,
        update_ranges: UpdateRanges = True,
        momentum: float = 0.99,
        in_file: bool = True,
        room_below: float = 0.0,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.num_bits = num_bits
        self.room_below = room_below
        self.fixed_range = None if fixed_range is None else tuple(fixed_range)
        self.update_ranges = update_ranges
        self.momentum = momentum
        self.in_file = in_file
        self.supports_masking = True
        self.observer: Observer | None = None
        self.rounds = True

    def build(self, input_shape: Shape | None = None) -> None:
        """Make the variables of a range that is measured."""
        if self.fixed_range is None:
            for name, value in (("range_min", _UNSEEN[0]), ("range_max", _UNSEEN[1])):
                setattr(self, name, self._state(name, value, trainable=self.update_ranges == LEARNED))
            self.seen = self._state("seen", 0.0)
        self.built = True

    def call(self, x: AnyTensor, training: bool | None = None) -> Any:
        """Values on the grid; without an integer type of their own."""
        import tensorflow as tf

        if self.observer is not None:
            seen = np.asarray(tf.cast(x, tf.float32))
            self.observer.update(seen[seen > LEAST_SCORE] if self.room_below else seen)
        if not self.rounds:
            return x
        values = tf.cast(x, tf.float32)
        if training and self.update_ranges is True and self.trainable and self.fixed_range is None:
            self._follow(tf.stop_gradient(values))
        low, high = self.range
        rounded = tf.quantization.fake_quant_with_min_max_vars(values, low, high, num_bits=self.num_bits)
        return tf.cast(rounded, x.dtype)

    @property
    def range(self) -> tuple[Any, Any]:
        """The smallest and the largest value, with zero between them."""
        import tensorflow as tf

        if self.fixed_range is not None:
            return self.fixed_range[0], self.fixed_range[1]
        low, high = tf.convert_to_tensor(self.range_min), tf.convert_to_tensor(self.range_max)
        if self.update_ranges == LEARNED:  # an optimizer knows no limits
            return tf.minimum(low, 0.0), tf.maximum(high, _LEAST)
        return low, high

    @property
    def limits(self) -> tuple[float, float]:
        """The range as it is now, as numbers."""
        low, high = self.range
        return float(np.asarray(low)), float(np.asarray(high))

    @property
    def is_known(self) -> bool:
        """Whether the range is fixed, or has been measured on data."""
        import tensorflow as tf

        # Under tf.distribute each replica has a value of its own, which only a tensor joins.
        return self.fixed_range is not None or float(tf.convert_to_tensor(self.seen)) > 0

    def set_range(self, low: float, high: float) -> None:
        """Set the range of values that were measured elsewhere; zero is put into it, and the room below."""
        low, high = min(low - self.room_below, 0.0), max(high, 0.0)
        self.range_min.assign(low)
        self.range_max.assign(high if high > low else _OF_ZEROS)
        self.seen.assign(1.0)

    def _follow(self, values: TfTensor) -> None:
        """Move the range towards that of a batch; the first one is taken whole."""
        import tensorflow as tf

        if self.room_below:
            values = tf.where(tf.greater(values, LEAST_SCORE), values, tf.reduce_max(values))
        low = tf.minimum(tf.subtract(tf.reduce_min(values), self.room_below), 0.0)
        high = tf.maximum(tf.reduce_max(values), 0.0)
        seen, zeros = tf.convert_to_tensor(self.seen), tf.equal(low, high)
        high = tf.where(zeros, _OF_ZEROS, high)
        # A range that was measured holds zeros too; one that was not is that of zeros until other values come.
        kept = tf.where(zeros, tf.round(seen), self.momentum * seen)
        finite = tf.math.is_finite(low) & tf.math.is_finite(high)  # in mixed precision a step may overflow
        for variable, new in ((self.range_min, low), (self.range_max, high)):
            old = tf.convert_to_tensor(variable)
            variable.assign(tf.where(finite, old * kept + new * (1.0 - kept), old))
        self.seen.assign(tf.where(finite, tf.where(zeros, tf.maximum(seen, _HARDLY_SEEN), 1.0), seen))

    def _state(self, name: str, value: float, trainable: bool = False) -> Any:
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Any:
        """The shape that comes in."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        names = ("num_bits", "fixed_range", "update_ranges", "momentum", "in_file", "room_below")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own}


class QuantizedLayerLogic(WrapperLogic):
    """Calls a layer with its kernels rounded to the grid on which a file stores them.

    The layer itself is not changed: its kernels are float32, its own `call` computes, and gradients pass to it
    straight through the rounding.

    Args:
        layer: the layer.
        kernel_axes: name of a kernel, an attribute of the layer or of one inside it (`"cell.kernel"`), to the axes
            along which each entry has its own scale.
        num_bits: of the kernels' integers.
        kept_zeros: the kernels whose zeros are kept in training.
        activation_bits: of the integers between the layer and its activation, where a file computes these in two
            operators; None where it does not.
        update_ranges: whether training moves the range of these, and how.
        parts: how many parts the last axis of the kernels is split into, as an axis of its own before it.
        **kwargs: arguments of every layer.
    """

    def __init__(
        self,
        layer: Layer,
        kernel_axes: dict[str, Sequence[int]],
        num_bits: int = 8,
        kept_zeros: Sequence[str] = (),
        activation_bits: int | None = None,
        update_ranges: UpdateRanges = True,
        parts: int = 1,
        **kwargs: object,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.kernel_axes = {name: tuple(axes) for name, axes in kernel_axes.items()}
        self.num_bits = num_bits
        self.kept_zeros = tuple(kept_zeros)
        self.activation_bits = activation_bits
        self.update_ranges = update_ranges
        self.parts = parts
        self.before_activation: Any = None
        if activation_bits is not None:
            self.before_activation = self._fake_quantize(activation_bits, update_ranges)
        self.rounds = True

    def build(self, input_shape: Shape | None = None) -> None:
        """Make the layer's weights, and masks for the kernels whose zeros are kept."""
        if not self.layer.built:
            self.layer.build(input_shape)
            self.layer.built = True
        self._build_inner()
        for name in self.kept_zeros:
            setattr(self, _mask_name(name), self._state(_mask_name(name), tuple(self.kernel(name).shape)))
        if self.before_activation is not None and not self.before_activation.built:
            self.before_activation.build()
        self.built = True

    def kernel(self, name: str) -> Any:
        """The variable of a kernel."""
        return getattr(*holder_of(self.layer, name))

    def mask(self, name: str) -> Any:
        """The variable that is zero where zeros of a kernel are kept."""
        return getattr(self, _mask_name(name))

    def keep_zeros(self) -> None:
        """Hold what is zero in the kernels now."""
        for name in self.kept_zeros:
            self.mask(name).assign(flavor.array_of(self.kernel(name)) != 0)

    def set_zeros(self) -> None:
        """Put the zeros that are held into the kernels, where rounding has put them already."""
        for name in self.kept_zeros:
            kernel = self.kernel(name)
            kernel.assign(flavor.array_of(kernel) * flavor.array_of(self.mask(name)))

    def call(self, inputs: AnyTensor, *args: object, **kwargs: object) -> Any:
        """What the layer returns with rounded kernels."""
        # Named, it would be the second tensor for `tf_keras`; the layers inside know from the call around them.
        kwargs.pop("training", None)
        kernels = {name: self.rounded(name) for name in self.kernel_axes} if self.rounds else {}
        with self._with_kernels(kernels):
            if self.before_activation is None:
                return self.call_layer(inputs, *args, **kwargs)
            activation = self.layer.activation
            with _attribute(self.layer, "activation", None):
                given = self.call_layer(inputs, *args, **kwargs)
        return activation(self.before_activation(given))

    def rounded(self, name: str) -> Any:
        """A kernel on its grid."""
        import tensorflow as tf

        kernel = tf.cast(tf.convert_to_tensor(self._stored(name)), tf.float32)
        if name in self.kept_zeros:
            kernel = kernel * tf.cast(tf.convert_to_tensor(self.mask(name)), tf.float32)
        if self.parts == 1:
            return rounded_to_grid(kernel, self.kernel_axes[name], self.num_bits)
        *shape, last = kernel.shape
        parts = tf.reshape(kernel, [*shape, self.parts, last // self.parts])
        return tf.reshape(rounded_to_grid(parts, self.kernel_axes[name], self.num_bits), kernel.shape)

    def integers(self, name: str) -> np.ndarray:
        """What a file stores for a kernel: the steps of its grid, shaped as it is."""
        kernel, axes = np.asarray(self.rounded(name)), self.kernel_axes[name]
        others = tuple(axis for axis in range(kernel.ndim) if axis - kernel.ndim not in axes)
        largest = np.abs(kernel).max(axis=others, keepdims=True)
        return np.rint(kernel / np.where(largest > 0, largest, 1.0) * (2 ** (self.num_bits - 1) - 1)).astype(int)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        """The layer's."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        names = ("kernel_axes", "num_bits", "kept_zeros", "activation_bits", "update_ranges", "parts")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def _build_inner(self) -> None:
        """Make the weights of layers inside that are made at the first call."""

    def _stored(self, name: str) -> Variable:
        """The kernel's variable, in the precision in which it is trained."""
        raise NotImplementedError

    def _with_kernels(self, kernels: dict[str, Any]) -> contextlib.AbstractContextManager:
        """While the body runs, the layer computes with these tensors in place of its kernels."""
        raise NotImplementedError

    def _fake_quantize(self, num_bits: int, update_ranges: UpdateRanges) -> FakeQuantizeLogic:
        """The layer that rounds before the activation."""
        raise NotImplementedError

    def _state(self, name: str, shape: tuple[int, ...]) -> Any:
        raise NotImplementedError


def _mask_name(kernel: str) -> str:
    return f"{kernel.replace('.', '_')}_mask"


@contextlib.contextmanager
def _attribute(layer: Layer, name: str, value: object) -> Iterator[None]:
    """While the body runs, an attribute of a layer has another value, without Keras taking note of it."""
    held = layer.__dict__
    before = held[name]
    held[name] = value
    try:
        yield
    finally:
        held[name] = before


def holder_of(layer: Layer, path: str) -> tuple[Any, str]:
    """The layer that has a weight, at a path from another, and the attribute's name.

    Example:
        >>> import keras
        >>> layer = keras.layers.GRU(2)
        >>> holder_of(layer, "cell.kernel") == (layer.cell, "kernel")
        True
    """
    *names, attribute = path.split(".")
    holder: Any = layer
    for name in names:
        holder = getattr(holder, name)
    return holder, attribute


def layer_classes(keras_object: object) -> Any:
    """The module with `FakeQuantize` and `QuantizedLayer` of the Keras that an object belongs to."""
    return importlib.import_module(f"edgeprune.quantization.layers_{flavor.flavor_of(keras_object)}")


def is_fake_quantize(layer: object) -> TypeGuard[FakeQuantizeLogic]:
    """Whether it is the layer that rounds activations."""
    return isinstance(layer, FakeQuantizeLogic)


def is_quantized_layer(layer: object) -> TypeGuard[QuantizedLayerLogic]:
    """Whether it is the layer that calls another with rounded kernels."""
    return isinstance(layer, QuantizedLayerLogic)


def fake_quantizers(model: Layer) -> list[FakeQuantizeLogic]:
    """Every layer of a model that rounds activations, at any depth."""
    return [layer for layer in flavor.layers_of(model) if is_fake_quantize(layer)]


def quantized_layers(model: Layer) -> list[QuantizedLayerLogic]:
    """Every layer of a model that calls another with rounded kernels, at any depth."""
    return [layer for layer in flavor.layers_of(model) if is_quantized_layer(layer)]


def is_quantize_aware(model: Layer) -> bool:
    """Whether a model rounds weights or activations, anywhere in it."""
    return any(is_fake_quantize(layer) or is_quantized_layer(layer) for layer in flavor.layers_of(model))


def has_dense_channel_scales(model: Layer) -> bool:
    """Whether the units of dense layers have a scale each, in a quantization-aware model."""
    return all(axes for layer in quantized_layers(model) for axes in layer.kernel_axes.values())


def unknown_ranges(model: Layer) -> list[str]:
    """The names of the layers that round activations in a range that has never seen data."""
    return [layer.name for layer in fake_quantizers(model) if not layer.is_known]


def check_ranges_known(model: Layer) -> None:
    """Refuse a model that rounds activations in a range that has never seen data.

    Raises:
        ValueError: names the layers.
    """
    if unknown := unknown_ranges(model):
        raise ValueError(
            f"The ranges of {', '.join(map(repr, unknown[:3]))}{', ...' if len(unknown) > 3 else ''} are not known: "
            "train the quantization-aware model, or pass calibration=data to quantize_aware."
        )
