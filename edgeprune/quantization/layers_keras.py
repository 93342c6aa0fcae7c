"""The layers of a quantization-aware model of Keras 3. Imports Keras: import this module only where one is at hand."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import keras

from edgeprune.quantization import channel_rules  # noqa: F401, registers them
from edgeprune.quantization.annotated_layer import AnnotatedLayerLogic
from edgeprune.quantization.fake_quantize import FakeQuantizeLogic, QuantizedLayerLogic, UpdateRanges
from edgeprune.types import Variable


@keras.saving.register_keras_serializable("edgeprune")
class FakeQuantize(FakeQuantizeLogic, keras.layers.Layer):
    """Rounds activations to the steps of a range."""

    def _state(self, name: str, value: float, trainable: bool = False) -> Any:
        return self.add_weight(
            shape=(), dtype="float32", initializer=keras.initializers.Constant(value), trainable=trainable, name=name,
            autocast=False, aggregation="mean",
        )  # fmt: skip


@keras.saving.register_keras_serializable("edgeprune")
class QuantizedLayer(QuantizedLayerLogic, keras.layers.Wrapper):
    """Calls a layer with rounded kernels."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A call of the layer; one of several tensors, as attention, is built for the shapes of all."""
        expected = inspect.signature(self.layer.build).parameters
        if not self.layer.built and len(expected) > 1:
            given = inspect.signature(self.layer.call).bind_partial(*args, **kwargs).arguments
            shapes = {f"{name}_shape": getattr(value, "shape", None) for name, value in given.items()}
            self.layer.build(**{name: shape for name, shape in shapes.items() if name in expected})
        self._call_signature = inspect.signature(self.layer.call)  # or tensors and options would be one argument
        return super().__call__(*args, **kwargs)

    def compute_output_spec(self, *args: object, **kwargs: Any) -> Any:
        """The layer's, which may be called on several tensors."""
        kwargs.pop("training", None)
        return self.layer.compute_output_spec(*args, **kwargs)

    def _stored(self, name: str) -> Variable:
        return self.kernel(name)._value

    @contextlib.contextmanager
    def _with_kernels(self, kernels: dict[str, Any]) -> Iterator[None]:
        scope = keras.StatelessScope([(self.kernel(name), value) for name, value in kernels.items()])
        with scope:
            yield
        rounded = {id(self.kernel(name)) for name in kernels}
        for variable in self.layer.variables:  # what the layer assigned is kept, as the state of a dropout's seed
            value = scope.get_current_value(variable)
            if value is not None and id(variable) not in rounded:
                variable.assign(value)

    def _fake_quantize(self, num_bits: int, update_ranges: UpdateRanges) -> FakeQuantize:
        return FakeQuantize(num_bits, update_ranges=update_ranges, name="before_activation")

    def _state(self, name: str, shape: tuple[int, ...]) -> Any:
        return self.add_weight(
            shape=shape, dtype="uint8", initializer="ones", trainable=False, name=name, autocast=False
        )


@keras.saving.register_keras_serializable("edgeprune")
class AnnotatedLayer(AnnotatedLayerLogic, keras.layers.Wrapper):
    """Marks a layer to be quantized."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A call of the layer."""
        self._call_signature = inspect.signature(self.layer.call)
        return super().__call__(*args, **kwargs)
