"""A layer that is marked to be quantized later, as TF-MOT's `QuantizeAnnotate` marks one; it computes as it did."""

from __future__ import annotations

from typing import Any, TypeGuard

from edgeprune.quantization.wrapper import WrapperLogic
from edgeprune.types import AnyTensor, Layer


class AnnotatedLayerLogic(WrapperLogic):
    """Marks a layer to be quantized; calls go to the layer.

    Args:
        layer: the layer.
        **kwargs: arguments of every layer.
    """

    def __init__(self, layer: Layer, **kwargs: object) -> None:
        super().__init__(layer, **kwargs)
        for name in ("_input_shape_arg", "_batch_input_shape"):  # of the first layer of a Sequential model
            if (shape := getattr(layer, name, None)) is not None:
                setattr(self, name, shape)

    def build(self, *shapes: object, **shapes_by_name: object) -> None:
        """Leave it to the layer, which builds its weights when it is called."""
        self.built = True

    def call(self, inputs: AnyTensor, *args: object, **kwargs: object) -> Any:
        """What the layer returns."""
        return self.call_layer(inputs, *args, **kwargs)


def is_annotated(layer: object) -> TypeGuard[AnnotatedLayerLogic]:
    """Whether it is a layer that is marked to be quantized."""
    return isinstance(layer, AnnotatedLayerLogic)
