"""The layers of a quantization-aware model of `tf_keras`. Imports it: import this module only where one is at hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras

from edgeprune.quantization import channel_rules  # noqa: F401, registers them
from edgeprune.quantization.annotated_layer import AnnotatedLayerLogic
from edgeprune.quantization.fake_quantize import FakeQuantizeLogic, QuantizedLayerLogic
from edgeprune.sparsity.prunable import prunable_weights
from edgeprune.types import Variable

# The logic is typed as layers of Keras 3 are.
_Layer: Any = tf_keras.layers.Layer
_Wrapper: Any = tf_keras.layers.Wrapper


@tf_keras.utils.register_keras_serializable("edgeprune")
class FakeQuantize(FakeQuantizeLogic, _Layer):
    """Rounds activations to the steps of a range."""

    def _state(self, name: str, value: float) -> Any:
        return self.add_weight(
            name, (), tf.float32, tf_keras.initializers.Constant(value), trainable=False, experimental_autocast=False,
            synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.MEAN,
        )  # fmt: skip


@tf_keras.utils.register_keras_serializable("edgeprune")
class QuantizedLayer(QuantizedLayerLogic, _Wrapper):
    """Calls a layer with rounded kernels."""

    def _stored(self, name: str) -> Variable:
        variable = getattr(self.layer, name)
        return getattr(variable, "_variable", variable)  # under mixed precision it is one inside another

    @contextlib.contextmanager
    def _with_kernels(self, kernels: dict[str, Any]) -> Iterator[None]:
        held = self.layer.__dict__
        before = {name: held[name] for name in kernels}
        held.update({name: tf.cast(value, self.layer.compute_dtype) for name, value in kernels.items()})
        try:
            yield
        finally:
            held.update(before)

    def get_prunable_weights(self) -> list[Variable]:
        """What TF-MOT's wrapper, which stands around this layer, may prune: the weights of the layer inside."""
        return list(prunable_weights(self.layer).values())

    def _fake_quantize(self, num_bits: int, update_ranges: bool) -> FakeQuantize:
        return FakeQuantize(num_bits, update_ranges=update_ranges, name="before_activation")

    def _state(self, name: str, shape: tuple[int, ...]) -> Any:
        return self.add_weight(
            name, shape, tf.uint8, tf_keras.initializers.Ones(), trainable=False, experimental_autocast=False
        )


@tf_keras.utils.register_keras_serializable("edgeprune")
class AnnotatedLayer(AnnotatedLayerLogic, _Wrapper):
    """Marks a layer to be quantized."""
