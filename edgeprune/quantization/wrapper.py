"""What the layers around another one have in common, those that mark it and those that round its kernels."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from edgeprune.types import AnyTensor, Layer

if TYPE_CHECKING:
    from keras.layers import Layer as _BaseLayer

    class _BaseWrapper(_BaseLayer):
        def __init__(self, layer: Layer, **kwargs: object) -> None: ...

else:
    _BaseWrapper = object


class WrapperLogic(_BaseWrapper):
    """Stands in the place of a layer, with its masks.

    Args:
        layer: the layer.
        **kwargs: arguments of every layer.
    """

    def __init__(self, layer: Layer, **kwargs: object) -> None:
        super().__init__(layer, **kwargs)
        self.supports_masking = layer.supports_masking

    def call_layer(self, inputs: AnyTensor, *args: object, **kwargs: object) -> Any:
        """What the layer returns."""
        # `tf_keras` passes the mask of its inputs to a call that accepts any argument, as a wrapper's does.
        if "mask" in kwargs and not _accepts(self.layer, "mask"):
            kwargs.pop("mask")
        return self.layer(inputs, *args, **kwargs)

    def compute_mask(self, inputs: AnyTensor, mask: AnyTensor | None = None) -> Any:
        """The layer's."""
        return self.layer.compute_mask(inputs, mask)


def _accepts(layer: Layer, name: str) -> bool:
    """Whether a layer's call has an argument of a name, or accepts any."""
    parameters = inspect.signature(layer.call).parameters
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
