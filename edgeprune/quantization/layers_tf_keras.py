"""The layers of a quantization-aware model of `tf_keras`. Imports it: import this module only where one is at hand."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras

from edgeprune.quantization import channel_rules  # noqa: F401, registers them
from edgeprune.quantization.annotated_layer import AnnotatedLayerLogic
from edgeprune.quantization.fake_quantize import FakeQuantizeLogic, QuantizedLayerLogic, UpdateRanges, holder_of
from edgeprune.sparsity.prunable import prunable_weights
from edgeprune.types import AnyTensor, Variable

# The logic is typed as layers of Keras 3 are.
_Layer: Any = tf_keras.layers.Layer
_Wrapper: Any = tf_keras.layers.Wrapper


@tf_keras.utils.register_keras_serializable("edgeprune")
class FakeQuantize(FakeQuantizeLogic, _Layer):
    """Rounds activations to the steps of a range."""

    def _state(self, name: str, value: float, trainable: bool = False) -> Any:
        # Each replica follows its own values; what an optimizer changes is the same in all.
        reading = tf.VariableSynchronization.AUTO if trainable else tf.VariableSynchronization.ON_READ
        return self.add_weight(
            name, (), tf.float32, tf_keras.initializers.Constant(value), trainable=trainable,
            experimental_autocast=False, synchronization=reading, aggregation=tf.VariableAggregation.MEAN,
        )  # fmt: skip


@tf_keras.utils.register_keras_serializable("edgeprune")
class QuantizedLayer(QuantizedLayerLogic, _Wrapper):
    """Calls a layer with rounded kernels."""

    def __call__(self, inputs: AnyTensor, *args: object, **kwargs: object) -> Any:
        """A call of the layer; a file keeps tensors besides the first by their names alone."""
        names = list(inspect.signature(self.layer.call).parameters)[1:]
        return super().__call__(inputs, **dict(zip(names, args, strict=False)), **kwargs)

    def _build_inner(self) -> None:
        """An attention makes its projections at its first call; here their kernels must be known before."""
        layer = self.layer
        if not isinstance(layer, tf_keras.layers.MultiHeadAttention):
            return
        query = layer._query_shape
        shapes = {
            "_query_dense": query,
            "_key_dense": layer._key_shape,
            "_value_dense": layer._value_shape,
            "_output_dense": tf.TensorShape([*query[:-1], layer._num_heads, layer._value_dim]),
        }
        for name, shape in shapes.items():
            dense = getattr(layer, name)
            if not dense.built:
                with tf.name_scope(f"{layer.name}/{dense.name}/"):
                    dense.build(shape)

    def _stored(self, name: str) -> Variable:
        variable = self.kernel(name)
        return getattr(variable, "_variable", variable)  # under mixed precision it is one inside another

    @contextlib.contextmanager
    def _with_kernels(self, kernels: dict[str, Any]) -> Iterator[None]:
        before = []
        for name, value in kernels.items():
            holder, attribute = holder_of(self.layer, name)
            before.append((holder, attribute, holder.__dict__[attribute]))
            holder.__dict__[attribute] = tf.cast(value, holder.compute_dtype)
        try:
            yield
        finally:
            for holder, attribute, value in before:
                holder.__dict__[attribute] = value

    def get_prunable_weights(self) -> list[Variable]:
        """What TF-MOT's wrapper, which stands around this layer, may prune: the weights of the layer inside."""
        return list(prunable_weights(self.layer).values())

    def _fake_quantize(self, num_bits: int, update_ranges: UpdateRanges) -> FakeQuantize:
        return FakeQuantize(num_bits, update_ranges=update_ranges, name="before_activation")

    def _state(self, name: str, shape: tuple[int, ...]) -> Any:
        return self.add_weight(
            name, shape, tf.uint8, tf_keras.initializers.Ones(), trainable=False, experimental_autocast=False
        )


@tf_keras.utils.register_keras_serializable("edgeprune")
class AnnotatedLayer(AnnotatedLayerLogic, _Wrapper):
    """Marks a layer to be quantized."""


# TimeDistributed of `tf_keras` looks for the layer inside it by the class's name alone, without the package's.
tf_keras.utils.get_custom_objects().setdefault(QuantizedLayer.__name__, QuantizedLayer)
