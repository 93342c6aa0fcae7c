"""A layer that is marked to be quantized later, as TF-MOT's `QuantizeAnnotate` marks one; it computes as it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from edgeprune.types import AnyTensor, Layer

if TYPE_CHECKING:
    from keras.layers import Layer as _BaseLayer

    class _BaseWrapper(_BaseLayer):
        def __init__(self, layer: Layer, **kwargs: object) -> None: ...

else:
    _BaseWrapper = object


class AnnotatedLayerLogic(_BaseWrapper):
    """Marks a layer to be quantized; calls go to the layer.

    Args:
        layer: the layer.
        **kwargs: arguments of every layer.
    """

    def __init__(self, layer: Layer, **kwargs: object) -> None:
        super().__init__(layer, **kwargs)
        self.supports_masking = layer.supports_masking
        for name in ("_input_shape_arg", "_batch_input_shape"):  # of the first layer of a Sequential model
            if (shape := getattr(layer, name, None)) is not None:
                setattr(self, name, shape)

    def build(self, *shapes: object, **shapes_by_name: object) -> None:
        """Leave it to the layer, which builds its weights when it is called."""
        self.built = True

    def call(self, inputs: AnyTensor, *args: object, **kwargs: object) -> Any:
        """What the layer returns."""
        return self.layer(inputs, *args, **kwargs)

    def compute_mask(self, inputs: AnyTensor, mask: AnyTensor | None = None) -> Any:
        """The layer's."""
        return self.layer.compute_mask(inputs, mask)


def is_annotated(layer: object) -> TypeGuard[AnnotatedLayerLogic]:
    """Whether it is a layer that is marked to be quantized."""
    return isinstance(layer, AnnotatedLayerLogic)
