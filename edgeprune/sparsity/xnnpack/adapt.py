"""The changes that bring a model into the form XNNPACK's sparse inference requires, and keep what it computes."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from typing import Any

from edgeprune import flavor, progress
from edgeprune.sparsity.xnnpack import geometry
from edgeprune.sparsity.xnnpack.misses import xnnpack_misses
from edgeprune.types import AnyTensor, Layer, Model


def adapt_for_xnnpack(model: Model, *, exact: bool = True) -> Model:
    """Change a model so that XNNPACK's sparse inference can run it, keeping what it computes.

    Four changes leave the function as it is:

    - the padding ('same', or a lopsided `ZeroPadding2D`) of a 3x3 stride-2 first convolution on an odd size
      becomes `ZeroPadding2D(1)`, after one more row of zeros that keeps the converter from undoing it.
    - that of a stride-2 depthwise convolution on an even size becomes `ZeroPadding2D(2)`, with its 3x3 kernel
      in the corner of a 5x5 kernel of zeros.
    - `GlobalAveragePooling2D()` becomes `GlobalAveragePooling2D(keepdims=True)` followed by a `Reshape`.
    - `AveragePooling2D` over the whole map becomes `GlobalAveragePooling2D(keepdims=True)`.

    What cannot be changed so is not changed and reported in one warning, with the remedy.

    Args:
        model: a built Functional or Sequential model of either Keras, before pruning. It is not touched.
        exact: True keeps the function. False also pads evenly where that moves the sampling grid by one
            pixel, as the first convolution of a network at 224 needs: fine-tune the model afterwards.

    Returns:
        A new Functional model of the same Keras, not compiled, with a copy of the weights. Layers keep their
        names; a layer that was added is called after the one it serves. Nested models remain nested.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: the model, or one nested in it, is subclassed or not built, or carries pruning wrappers.

    Example:
        >>> import keras
        >>> layers = keras.layers
        >>> model = keras.Sequential([keras.Input((95, 95, 3)),
        ...     layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
        ...     layers.Conv2D(16, 1), layers.GlobalAveragePooling2D(), layers.Dense(10)])
        >>> len(xnnpack_misses(model)), len(xnnpack_misses(adapt_for_xnnpack(model)))
        (2, 0)
    """
    flavor.check_model(model)
    wrapped = [layer.name for layer in flavor.layers_of(model) if geometry.unwrapped(layer) is not layer]
    if wrapped:
        raise ValueError(
            f"Layer {wrapped[0]!r} carries a pruning wrapper: adapt the model before `prune_low_magnitude`, "
            "or after `strip_pruning`."
        )
    with progress.status(f"Adapting {model.name} for XNNPACK"):
        adapted = _Adaptation(model, exact).run()
    misses = xnnpack_misses(adapted)
    if misses:
        warnings.warn(
            f"Model {model.name!r} still misses what XNNPACK's sparse inference needs:\n"
            + "\n".join(f"- {miss}" for miss in misses),
            stacklevel=2,
        )
    return adapted


class _Adaptation:
    """One walk over a model that makes the changes and copies the weights."""

    def __init__(self, model: Model, exact: bool):
        self.model, self.exact = model, exact
        self.layers = flavor.keras_of(model).layers
        self.clones: dict[Any, tuple[Any, Any, tuple[int, int] | None]] = {}
        self.names = {layer.name for layer in flavor.layers_of(model)}
        self.flattened: dict[int, tuple[Any, Any]] = {}

    def run(self) -> Any:
        """The adapted model, with a copy of the weights."""
        adapted = flavor.rebuild_graph(self.model, lambda node, args, kwargs: self.call(node.layer, args, kwargs))
        for old, new, offsets in self.clones.values():
            if flavor.is_layer(old) and not flavor.is_model(old):
                new.set_weights(_weights(old, new, offsets))
                if hasattr(new, "finalize_state"):  # preprocessing layers keep values made of their weights
                    new.finalize_state()
        return adapted

    def call(self, layer: Layer, args: tuple, kwargs: dict) -> Any:
        """Call the new form of a layer on tensors of the new graph."""
        layers = self.layers
        image = args[0] if args and len(getattr(args[0], "shape", ())) == 4 else None
        if geometry.is_folded_reshape(layer, layers) and args and id(args[0]) in self.flattened:
            return self.flattened[id(args[0])][1]
        if image is not None:
            if geometry.is_stem_like(layer, layers, image.shape):
                return self.convolution(layer, image, geometry.STEM_KERNELS)
            if geometry.is_depthwise_like(layer, layers) and not (layer.padding == "same" and layer.strides == (1, 1)):
                return self.convolution(layer, image, geometry.DEPTHWISE_KERNELS)
            if isinstance(layer, layers.GlobalAveragePooling2D) and not layer.keepdims:
                return self.pooling(layer, image)
            if geometry.pools_whole_map(layer, layers, image.shape):
                return self.new(layers.GlobalAveragePooling2D, layer, layer.name, keepdims=True)(image)
        return self.clone(layer)(*args, **kwargs)

    def convolution(self, layer: Layer, image: AnyTensor, kernels: tuple[int, ...]) -> Any:
        """A convolution with the same padding on every side where that computes the same (or may not)."""
        producer, tensors = flavor.producer_of(image)
        padding = producer if isinstance(producer, self.layers.ZeroPadding2D) else None
        unpadded = image if padding is None else tensors[0]
        sampling = geometry.Sampling.of(layer, image.shape, padding, unpadded.shape)
        kernel, stem = sampling.kernel(kernels), kernels == geometry.STEM_KERNELS
        may_move = not self.exact and sampling.pads
        undone = sampling.folds and not stem  # the converter would undo it
        settled = sampling.is_even and not sampling.folds
        if undone or settled or (kernel is None and not may_move):
            return self.clone(layer)(image)
        offsets = sampling.offsets(kernel) if kernel else (0, 0)
        kernel = kernel or sampling.size
        source = image if sampling.padding == "same" else unpadded
        if sampling.folds:
            row = self.new(self.layers.ZeroPadding2D, layer, f"{layer.name}_row", padding=geometry.ROW_OF_ZEROS)
            source = row(source)
        even = self.new(self.layers.ZeroPadding2D, layer, f"{layer.name}_pad", padding=kernel // 2)
        changes = {"kernel_size": (kernel, kernel), "padding": "valid"}
        return self.clone(layer, offsets, **changes)(even(source))

    def pooling(self, layer: Layer, image: AnyTensor) -> Any:
        """A global pooling that keeps the image's axes, and a Reshape that drops them."""
        pooled = self.clone(layer, keepdims=True)(image)
        shape = (image.shape[-1],)
        flat = self.new(self.layers.Reshape, layer, f"{layer.name}_reshape", target_shape=shape)(pooled)
        self.flattened[id(flat)] = flat, pooled
        return flat

    def clone(self, layer: Layer, offsets: tuple[int, int] | None = None, **changes: object) -> Any:
        """The new form of a layer, one for each form in which a shared layer is called."""
        key = id(layer), offsets, tuple(changes.items())
        if key not in self.clones:
            if flavor.is_model(layer):
                new = _Adaptation(layer, self.exact).run()
            else:
                new = flavor.clone_layer(layer, None, **changes)
            self.clones[key] = layer, new, offsets
        return self.clones[key][1]

    def new(self, layer_class: type, like: Layer, name: str, **config: object) -> Any:
        """A layer that was not in the model, of the number type of the one it serves."""
        if name != like.name:
            name = next(n for n in _numbered(name) if n not in self.names)
            self.names.add(name)
        return layer_class(name=name, dtype=like.get_config()["dtype"], **config)


def _weights(old: Layer, new: Layer, offsets: tuple[int, int] | None) -> list[Any]:
    """The weights of a layer for its new form: the kernel put into a larger one of zeros at `offsets`."""
    weights = old.get_weights()
    if offsets is not None and old.kernel_size != new.kernel_size:
        import numpy as np

        kernel, (top, left) = weights[0], offsets
        larger = np.zeros((*new.kernel_size, *kernel.shape[2:]), kernel.dtype)
        larger[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
        weights[0] = larger
    return weights


def _numbered(name: str) -> Iterable[str]:
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(1))
