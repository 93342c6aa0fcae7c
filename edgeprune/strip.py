"""Whether a model is under pruning or trained for quantization, and the end of both: a plain model.

Zeros are kept, masked channels removed, rounding left out.
"""

from __future__ import annotations

from edgeprune import flavor
from edgeprune.channels import callback, masks
from edgeprune.quantization.fake_quantize import (
    check_ranges_known,
    fake_quantizers,
    has_dense_channel_scales,
    is_quantize_aware,
)
from edgeprune.quantization.rounding_state import kernels_on_grid
from edgeprune.quantization.training import remove_fake_quantizers
from edgeprune.sparsity.mechanism import mechanism_of
from edgeprune.sparsity.prune import remove_weight_masks, with_masks_applied
from edgeprune.types import Layer, Model, SameLayer, SameModel

__all__ = [
    "has_dense_channel_scales",
    "has_ranges",
    "is_pruned",
    "is_quantize_aware",
    "kernels_on_grid",
    "strip_pruning",
    "strip_quantization",
    "without_pruning",
]


def strip_pruning(model: SameLayer) -> SameLayer:
    """End pruning: a plain model, with nothing of edgeprune or TF-MOT left.

    The weights that `prune_low_magnitude` pruned are zero. The channels that `ChannelPruning` masked are gone.

    Args:
        model: a model or layer of either Keras. Without pruning it is returned as it is. After `ChannelPruning` the
            model that was in `fit`, one inside it such as the student of a distiller, or one built around it.

    Returns:
        After `prune_low_magnitude`: for Keras 3 the same object, freed in place; for `tf_keras` a clone without
        wrappers that shares the layers, not compiled. After `ChannelPruning`: a smaller model that is proven to
        compute the same, compiled as the one passed is, with a fresh optimizer; the one passed keeps its masks. A
        subclassed model, as a distiller is, becomes a Functional one that computes what its call does.

    Raises:
        TypeError: a single layer with masked channels, which are coupled with those of others.
        ValueError: not a Keras model or layer, or `ChannelPruning` has masked no channel yet.
        RuntimeError: the smaller model failed its proof.

    Example:
        >>> model = ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0, frequency=1))
        >>> history = model.fit(x, y, callbacks=[ep.UpdatePruningStep()], verbose=0)
        >>> model = strip_pruning(model)
        >>> is_pruned(model), int((model.get_layer("stem").kernel.numpy() == 0).sum())  # of 3 x 3 x 1 x 8 weights
        (False, 36)
    """
    model = remove_weight_masks(model)
    return callback.strip_channels(model) if masks.is_channel_pruned(model) else model


def without_pruning(model: SameModel) -> SameModel:
    """A plain model to convert or to look at, its masks applied; the one passed continues to be pruned."""
    model = with_masks_applied(model)
    is_masked = masks.is_channel_pruned(model) and not masks.masked_channels(model)[1].all()
    return callback.strip_channels(model) if is_masked else model


def strip_quantization(model: Model) -> Model:
    """End quantization-aware training: the plain float model, with the weights that were trained.

    To deploy what was trained, export the quantization-aware model itself: its ranges go into the file.

    Args:
        model: a model from `quantize_aware`. Any other is returned as it is. Where it is under pruning, the pruning
            ends too, and its zeros are kept.

    Returns:
        A Functional or Sequential model with the names of the one that `quantize_aware` was called on, compiled as the
        one passed is. Its weights are not rounded, but what `quantize_aware` held at zero is zero.

    Raises:
        TypeError: not a Keras model.
        ValueError: a model that is not built.

    Example:
        >>> import keras, edgeprune as ep
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> [layer.name for layer in strip_quantization(ep.quantize_aware(model)).layers]
        ['head']
    """
    flavor.check_built_model(model)
    if not is_quantize_aware(model):
        return model
    return remove_fake_quantizers(strip_pruning(model) if is_pruned(model) else model)


def has_ranges(model: Layer) -> bool:
    """Whether a model is quantization-aware and rounds its activations, so that a file can have its ranges.

    Raises:
        ValueError: it does, and a range has never seen data.
    """
    check_ranges_known(model)
    return bool(fake_quantizers(model))


def is_pruned(model: Layer) -> bool:
    """Whether a model or layer is under pruning of either kind, so that `strip_pruning` has something to do.

    Args:
        model: a model or layer of either Keras.

    Returns:
        True from `prune_low_magnitude`, or the first training with `ChannelPruning`, until `strip_pruning`. Of a
        model or a composite layer: whether anything in it is under pruning.

    Raises:
        TypeError: not a Keras model or layer.

    Example:
        >>> import keras, edgeprune as ep
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="a"), keras.layers.ReLU(name="b")])
        >>> model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8))
        >>> {layer.name: is_pruned(layer) for layer in model.layers}
        {'a': True, 'b': False}
    """
    return mechanism_of(model).has_masks(model) or masks.is_channel_pruned(model)
